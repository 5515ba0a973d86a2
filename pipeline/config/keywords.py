"""The settings of a run as arguments of a Python function and as a table; they are those of the command line."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import Setting, options_of, settings_of

from .run import RunConfig, resolve_config

SETTINGS = {setting.keyword: setting for setting in options_of(RunConfig)}


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Values by keyword, put where the groups of the settings have them: ``{"subset": {"seed": 1}}``."""
    groups: dict[str, Any] = {}
    for keyword, value in values.items():
        setting = SETTINGS[keyword]
        group = groups
        for name in setting.path[:-1]:
            group = group.setdefault(name, {})
        group[setting.path[-1]] = setting.stored(value)
    return groups


def settings_from_keywords(
    catalog: str | Path = "digits", out: str | Path | None = None, **keywords: Any
) -> RunConfig:
    """The settings of a run.

    Parameters
    ----------
    catalog
        A built-in catalogue's name, or a file.
    out
        The run's directory; None means ``runs/<catalog>``.
    keywords
        The other options of ``dsmi-zoo run``, without dashes: ``subset_seed=1``. None means the default; where there
        may be several values, a string is one of them.

    Raises
    ------
    InputError
        For an unknown name, a wrong value, or values that clash.
    """
    given: dict[str, Any] = {"catalog": str(catalog), "out": out}
    for keyword, value in keywords.items():
        if keyword not in SETTINGS:
            raise InputError(_unknown(keyword))
        if SETTINGS[keyword].repeated and isinstance(value, list | tuple) and not value:
            raise InputError(f"{keyword} is empty; name one, or leave it out")
        given[keyword] = value
    chosen = {keyword: value for keyword, value in given.items() if value is not None}
    names = {setting.path: keyword for keyword, setting in SETTINGS.items()}
    return resolve_config(nested(chosen), names=names)


def _unknown(keyword: str) -> str:
    near = get_close_matches(keyword, SETTINGS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(SETTINGS)}"
    return f"{keyword} is no setting of a run; {hint}"


def settings_table() -> str:
    """All settings as a Markdown table: option, key in a TOML file, default, meaning.

    A Python function takes an option's name without the dashes in front, and with ``_`` for ``-``.
    """
    lines = ["| option | in a file | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in settings_of(RunConfig):
        option = "" if setting.option.absent else f"`{setting.flag}`"
        key = f"`{setting.key} = false`" if setting.option.turns_off else f"`{setting.key}`"
        default = setting.default_shown.replace("<", "&lt;")
        lines.append(f"| {option} | {key} | {default} | {_meaning(setting)} |")
    return "\n".join(lines)


def _meaning(setting: Setting) -> str:
    """What it means, and which values there are where the description does not say."""
    if all(choice in setting.help for choice in setting.choices):
        return setting.help
    return f"{setting.help.rstrip('.')}: {', '.join(setting.choices)}."


if __name__ == "__main__":
    print(settings_table())
