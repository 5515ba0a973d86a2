"""Options of the command line, made from the fields of the settings."""

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
from dsmi_zoo.pipeline.config.run import RunConfig, as_named, nested, resolve_config

Command = Callable[..., Any]


class PathType(click.Path):
    """A path of one printable line, because tables, pages and batch scripts can hold no other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a word of the command line to a path."""
        if not is_printable(os.fsdecode(value)):
            self.fail(f"{NOT_PRINTABLE}, not {shown(os.fsdecode(value))}", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path)
# The settings that choose where a run is computed.
CLUSTER = (
    "compute.cluster",
    "compute.profile",
    "compute.workers",
    "compute.start_method",
    "compute.per_gpu",
    "compute.worker_memory",
    "compute.model_timeout",
    "compute.workers_within",
)


class SettingType(click.ParamType):
    """The value of a setting, validated by its field as in a file."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a word of the command line to a value of the setting."""
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
        """Offer choices or files."""
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
        """Parse a time as `run` does: 90s, 45m, 1h30m."""
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
        Its description and its default, as the help shows them.
    """

    def __init__(
        self, names: Sequence[str], setting: Setting, help: str, default_shown: str
    ) -> None:
        self.setting = setting
        if setting.repeated and not setting.metavar.endswith("..."):
            help = f"{help.rstrip('.')}; may be repeated."
        if default_shown:
            help = f"{help}  [default: {default_shown}]"
        if setting.is_switch:
            super().__init__(names, help=help, is_flag=True)
        else:
            super().__init__(
                names,
                help=help,
                type=SettingType(setting),
                metavar=setting.metavar,
                multiple=setting.repeated,
            )


FIRST = (
    *("catalog", "models", "subset.dataset", "subset.data_root", "subset.images_per_class", "out"),
    *("compute.workers", "compute.budget", "compute.max_download", "only_plan"),
)
"""The options that ``--help`` shows, for a first run: keys of settings, and the command's own options."""

GROUPS = {
    "catalog": "Models",
    "models": "Models",
    "filters": "Models",
    "subset": "Images",
    "protocol": "Networks",
    "precision": "Networks",
    "pool": "Networks",
    "random_weights": "Networks",
    "measures": "Measures",
    **dict.fromkeys(CLUSTER, "Workers"),
    **dict.fromkeys(("compute.share", "compute.batch_size", "compute.compile"), "Workers"),
}
"""The group of each setting, by its key or the key's first part; all others belong to ``REST``."""

REST = "Run"


class GroupedHelp(click.Command):
    """A command with many options: ``--help`` shows those in ``FIRST``, ``--help-all`` all of them by group."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        every = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=self._show_all,
            help="Show every option, by group.",
        )
        self.params.append(every)

    @staticmethod
    def _show_all(context: click.Context, option: click.Parameter, given: bool) -> None:
        if given and not context.resilient_parsing:
            context.meta["help-all"] = True
            click.echo(context.get_help())
            context.exit()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: those of all groups, or only those of a first run."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            lines = option.get_help_record(ctx)
            if lines is None or not isinstance(option, click.Option):
                continue
            if ctx.meta.get("help-all"):
                groups.setdefault(_group_of(option), []).append(lines)
            elif _key_of(option) in FIRST or option.is_eager:
                groups.setdefault("Options", []).append(lines)
        # The options of the command itself are last.
        for title, of_group in sorted(groups.items(), key=lambda item: item[0] == REST):
            with formatter.section(title):
                formatter.write_dl(of_group)


def _key_of(option: click.Parameter) -> str:
    return option.setting.key if isinstance(option, SettingOption) else option.name or ""


def _group_of(option: click.Parameter) -> str:
    key = _key_of(option)
    return GROUPS.get(key) or GROUPS.get(key.partition(".")[0]) or REST


def options(*keys: str, help: str = "", default_shown: str = "") -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of settings.

    Parameters
    ----------
    keys
        Settings as in a file, ``subset.seed``, or groups of them, ``subset``.
    help, default_shown
        Override the fields' descriptions and defaults in the help.
    """
    settings = []
    for key in keys:
        found = [s for s in options_of(RunConfig) if s.key == key or s.key.startswith(f"{key}.")]
        if not found:
            raise KeyError(key)
        settings += found

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


def catalog_options(command: Command) -> Command:
    """Add the options that choose models; further globs after --models arrive as arguments."""
    command = click.argument("more_models", nargs=-1, metavar="")(command)
    return options("catalog", "models")(command)


def out_option(command: Command) -> Command:
    """Add ``--out``, the run's directory, to a command that works on a finished or interrupted run."""
    return click.option("--out", required=True, type=PATH, help="The run's directory.")(command)


def given_settings(context: click.Context) -> dict[str, Any]:
    """Return the settings given on the command line, nested as in a file.

    Raises
    ------
    click.UsageError
        For an argument that follows no --models.
    """
    given = {}
    for option in context.command.params:
        if isinstance(option, SettingOption):
            name = option.setting.keyword
            # A given value counts even if it equals the default.
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                given[name] = context.params[name]
    more = context.params.get("more_models", ())
    if more and "models" not in given:
        raise click.UsageError(
            f"unexpected argument {more[0]!r}: models are named after --models", context
        )
    if more:
        given["models"] = (*given["models"], *more)
    return nested(given)


def chosen_settings(context: click.Context) -> RunConfig:
    """Return the default settings, overridden by those given."""
    return as_named(RunConfig, given_settings(context), flags_of(RunConfig))


def run_settings(context: click.Context, file: Path | None) -> RunConfig:
    """Return the settings of a run: those given override the TOML file's, which override the defaults."""
    return resolve_config(given_settings(context), file)
