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
        """Make the word a path."""
        if not is_printable(os.fsdecode(value)):
            self.fail(f"{NOT_PRINTABLE}, not {shown(os.fsdecode(value))}", param, ctx)
        return super().convert(value, param, ctx)


PATH = PathType(path_type=Path)
# The settings of where a run is computed.
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
    """Add the run directory of a command that works on a finished or interrupted run."""
    return click.option("--out", required=True, type=PATH, help="The run's directory.")(command)


def given_settings(context: click.Context) -> dict[str, Any]:
    """Return the values of the settings' options that were given, nested as in a file.

    Raises
    ------
    click.UsageError
        For an argument that follows no --models.
    """
    given = {}
    for option in context.command.params:
        if isinstance(option, SettingOption):
            name = option.setting.keyword
            # An option may be given its default.
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
    """Return the given settings over the defaults."""
    return as_named(RunConfig, given_settings(context), flags_of(RunConfig))


def run_settings(context: click.Context, file: Path | None) -> RunConfig:
    """Return the settings of a run: the given ones over the TOML file's over the defaults."""
    return resolve_config(given_settings(context), file)
