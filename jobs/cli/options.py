"""The command line's options, made from the fields of the settings."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from pydantic import ValidationError

from dsmi_zoo._util.settings import NOT_PRINTABLE, Setting, flags_of, options_of, validation_line
from dsmi_zoo._util.text import in_seconds, is_printable, shown
from dsmi_zoo.pipeline.config.keywords import nested
from dsmi_zoo.pipeline.config.run import RunConfig, as_named, resolve_config

Command = Callable[..., Any]


class PathType(click.Path):
    """A path that is one printable line; tables, pages and batch scripts can hold no other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Make the word a path."""
        if not is_printable(os.fsdecode(value)):
            self.fail(f"{NOT_PRINTABLE}, not {shown(os.fsdecode(value))}", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path)
CLUSTER = tuple(
    f"compute.{name}"
    for name in (
        "cluster",
        "profile",
        "workers",
        "start_method",
        "per_gpu",
        "worker_memory",
        "model_timeout",
        "workers_within",
    )
)
"""The settings that say where it runs."""


class SettingType(click.ParamType):
    """What a setting takes: its field judges a word of the command line as it does a value in a file."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Make the word a value of the setting."""
        if not isinstance(value, str):
            return value
        if not is_printable(value):
            self.fail(f"{NOT_PRINTABLE}, not {shown(value)}", param, ctx)
        try:
            return self.setting.read(value)
        except ValidationError as error:
            self.fail(validation_line(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the choices, or files."""
        if self.setting.kind is Path:
            return [CompletionItem(incomplete, type="file")]
        return [
            CompletionItem(choice)
            for choice in self.setting.choices
            if choice.startswith(incomplete)
        ]


class TimeType(click.ParamType):
    """A time with its unit, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read what `run` reads: 90s, 45m, 1h30m."""
        try:
            return in_seconds(value)
        except ValueError as error:
            self.fail(f"{error}, not {shown(value)}", param, ctx)


class SettingOption(click.Option):
    """The option of a setting.

    Parameters
    ----------
    names
        The option, and the parameter that it fills.
    setting
        The field.
    help, default_shown
        What to tell of it and of its default.
    """

    def __init__(
        self, names: Sequence[str], setting: Setting, help: str, default_shown: str
    ) -> None:
        self.setting = setting
        if setting.repeated and not setting.metavar.endswith("..."):
            help = f"{help.rstrip('.')}; may be repeated."
        super().__init__(
            names,
            help=f"{help}  [default: {default_shown}]" if default_shown else help,
            is_flag=setting.is_switch or None,  # False would make the value optional
            type=None if setting.is_switch else SettingType(setting),
            metavar=None if setting.is_switch else setting.metavar,
            multiple=setting.repeated,
        )


def options(*keys: str, help: str = "", default_shown: str = "") -> Callable[[Command], Command]:
    """A decorator that gives a command the options of settings.

    Parameters
    ----------
    keys
        Settings as a file has them, ``subset.seed``, or groups of them, ``subset``.
    help, default_shown
        What this command tells of them instead of what the fields say.
    """
    settings = [setting for key in keys for setting in _settings_under(key)]

    def decorate(command: Command) -> Command:
        for setting in reversed(settings):
            option = click.option(
                setting.flag,
                setting.keyword,
                cls=SettingOption,
                setting=setting,
                help=help or setting.help,
                default_shown=default_shown or setting.default_shown,
            )
            command = option(command)
        return command

    return decorate


def _settings_under(key: str) -> list[Setting]:
    settings = [s for s in options_of(RunConfig) if s.key == key or s.key.startswith(f"{key}.")]
    if not settings:
        raise KeyError(key)
    return settings


def catalog_options(command: Command) -> Command:
    """Which models; further globs after --models arrive as arguments."""
    command = click.argument("more_models", nargs=-1, metavar="")(command)
    return options("catalog", "models")(command)


def out_option(command: Command) -> Command:
    """The run directory of a command that works on a finished or interrupted run."""
    return click.option("--out", required=True, type=PATH, help="The run's directory.")(command)


def given_settings(context: click.Context) -> dict[str, Any]:
    """What the options of settings were given, nested as in a file; nothing of those that were not.

    Raises
    ------
    click.UsageError
        For an argument where none belongs.
    """
    given = {
        option.setting.keyword: context.params[option.setting.keyword]
        for option in context.command.params
        if isinstance(option, SettingOption) and was_given(context, option.setting.keyword)
    }
    more = context.params.get("more_models", ())
    if more and "models" not in given:
        raise click.UsageError(
            f"unexpected argument {more[0]!r}: models are named after --models", context
        )
    if more:
        given["models"] = (*given["models"], *more)
    return nested(given)


def was_given(context: click.Context, name: str) -> bool:
    """Whether an option was given, even if it was given its default."""
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def chosen_settings(context: click.Context) -> RunConfig:
    """The settings that a command was given over the defaults."""
    return as_named(RunConfig, given_settings(context), flags_of(RunConfig))


def run_settings(context: click.Context, file: Path | None) -> RunConfig:
    """The settings of a run: what the command was given over the TOML file over the defaults."""
    return resolve_config(given_settings(context), file)
