"""Settings: pydantic fields that also define options, keyword arguments and keys of a TOML file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from .text import is_printable, shortened, shown

KeyPath = tuple[str, ...]
NOT_PRINTABLE = "must be one line of UTF-8 without control characters"
Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(BaseModel):
    """A group of settings; unknown names and unprintable text are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and not is_printable(str(text)):
                raise ValueError(NOT_PRINTABLE)
        return value


def _as_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("must be text, or a list of texts")
    return value


SEVERAL = BeforeValidator(_as_tuple)
"""Marks a tuple field that accepts a single string, too."""


@dataclass(frozen=True)
class OnCommandLine:
    """Properties of a field's option that do not follow from its name, type, default and description.

    Parameters
    ----------
    flag
        The option without its dashes; by default the field's name.
    metavar
        The name of the value in the help.
    default
        The default in the help, where it is computed.
    text
        Whether Python functions accept text such as ``1h30m`` for this number.
    turns_off
        Whether the option sets the field to False; its default is True.
    absent
        Whether the option is missing, so that only a file can set the field.
    """

    flag: str = ""
    metavar: str = ""
    default: str = ""
    text: bool = False
    turns_off: bool = False
    absent: bool = False


ONLY_IN_FILE = OnCommandLine(absent=True)


class Setting:
    """A field of the settings, with its option and its keyword.

    Attributes
    ----------
    path
        The names of its groups and its own: ``("subset", "seed")``.
    key
        Its key in a TOML file: ``subset.seed``.
    flag, keyword
        Its option, ``--subset-seed``, and its Python argument, ``subset_seed``.
    repeated
        Whether it takes several values.
    kind
        The type of one value, without bounds and None.
    is_switch
        Whether its option takes no value.
    choices
        The allowed values of a Literal.
    default
        The field's default; None if it is computed.
    """

    def __init__(self, path: KeyPath, field: FieldInfo) -> None:
        marks = [mark for mark in field.metadata if isinstance(mark, OnCommandLine)]
        self.option = marks[0] if marks else OnCommandLine()
        self.path = path
        self.key = ".".join(path)
        name = self.option.flag or path[-1].replace("_", "-")
        self.flag = f"--{name}"
        self.keyword = name.replace("-", "_")
        self.help = field.description or ""
        self.repeated = get_origin(field.annotation) is tuple
        self._annotation: Any = field.annotation
        if self.repeated:
            self._annotation = get_args(field.annotation)[0]
        elif field.metadata:
            self._annotation = Annotated[(field.annotation, *field.metadata)]
        self.kind = _bare(self._annotation)
        self.is_switch = self.kind is bool
        self.choices: tuple[str, ...] = (
            get_args(self.kind) if get_origin(self.kind) is Literal else ()
        )
        self.default = field.default if field.default_factory is None else None

    @property
    def metavar(self) -> str:
        """The name of a value in the help."""
        if self.choices:
            return f"[{'|'.join(self.choices)}]"
        by_type = {int: "INTEGER", float: "NUMBER"}.get(self.kind)
        return self.option.metavar or by_type or getattr(self.kind, "__name__", "").upper()

    @property
    def default_shown(self) -> str:
        """The default as text; empty if the help shows none."""
        if self.option.default:
            return self.option.default
        if self.default is None or self.default == () or self.is_switch:
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def read(self, text: str) -> Any:
        """Parse a word of the command line; raise ``pydantic.ValidationError`` if the field refuses it."""
        return TypeAdapter(self._annotation).validate_strings(text)

    def stored(self, value: Any) -> Any:
        """Return the field's value for a value of the option."""
        return not value if self.option.turns_off else value

    def parameter(self) -> Parameter:
        """Return the keyword argument of a Python function."""
        default = None if self.repeated else self.stored(self.default)
        annotation = str if self.choices else self.kind
        if self.option.text or self.kind is Path:
            annotation |= str
        if self.repeated:
            annotation |= Sequence[str]
        if default is None:
            annotation |= None
        return Parameter(
            self.keyword, Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )


def _bare(annotation: Any) -> Any:
    """Return a type without its bounds and None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not NoneType))
    return annotation


@cache
def settings_of(model: type[BaseModel], under: KeyPath = ()) -> tuple[Setting, ...]:
    """Return all settings of a model and its groups, in order."""
    settings: list[Setting] = []
    for name, field in model.model_fields.items():
        path = (*under, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            settings += settings_of(field.annotation, path)
        else:
            settings.append(Setting(path, field))
    return tuple(settings)


def options_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """Return the settings that have an option."""
    return tuple(setting for setting in settings_of(model) if not setting.option.absent)


def flags_of(model: type[BaseModel]) -> Mapping[KeyPath, str]:
    """Return each option's flag by the path of its setting."""
    return {setting.path: setting.flag for setting in options_of(model)}


def signature_with(settings: Iterable[Setting]) -> Callable[[Function], Function]:
    """Decorate a function of ``**settings`` so that help and completion list each keyword."""

    def decorate(function: Function) -> Function:
        declared = signature(function)
        named = [
            one for one in declared.parameters.values() if one.kind is not Parameter.VAR_KEYWORD
        ]
        taken = {one.name for one in named}
        others = [setting.parameter() for setting in settings if setting.keyword not in taken]
        function.__signature__ = declared.replace(parameters=[*named, *others])  # type: ignore[attr-defined]
        return function

    return decorate


class Clash(ValueError):
    """Raised by a model's validator for settings that exclude each other.

    Parameters
    ----------
    reason
        Why, and what to do.
    keys
        The settings, relative to that model: ``subset.repeats``.
    """

    def __init__(self, reason: str, *keys: str) -> None:
        super().__init__(reason)
        self.keys = keys


def validation_line(
    error: ValidationError,
    names: Mapping[KeyPath, str] | None = None,
    known: Iterable[KeyPath] = (),
) -> str:
    """Describe the first problem that pydantic found, in one line.

    Parameters
    ----------
    error
        The exception from pydantic.
    names
        The names of the settings for the reader; by default their keys.
    known
        The existing settings, to suggest one for an unknown name.
    """
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Clash):
        clashing = [_name_of((*where, *key.split(".")), names) for key in cause.keys]
        return f"{' with '.join(clashing)}: {cause}"
    name = _name_of(where, names)
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such setting{_suggestion(where, known)}"
    problem = rule_of(first)
    given = first["input"]
    if first["type"] != "missing" and not isinstance(given, dict):
        problem += f", not {shown(str(given) if isinstance(given, Path) else given)}"
    return f"{name}: {problem}" if where else problem


def rule_of(problem: Mapping[str, Any]) -> str:
    """Return pydantic's message without the 'Value error, ' prefix."""
    rule: str = problem["msg"]
    return rule.removeprefix("Value error, ")


def _suggestion(where: KeyPath, known: Iterable[KeyPath]) -> str:
    """Suggest the setting, or group of settings, with the most similar name."""
    places: dict[str, KeyPath] = {}
    for path in known:
        for depth, name in enumerate(path, start=1):
            places[name] = path[:depth]
    near = get_close_matches(where[-1], places, n=1)
    return f"; did you mean {dotted(places[near[0]])}?" if near else ""


def _name_of(where: KeyPath, names: Mapping[KeyPath, str] | None) -> str:
    """Return the reader's name of a setting; ``where`` may end in the index of one of its values."""
    for end in range(len(where), 0, -1):
        if names and where[:end] in names:
            return names[where[:end]]
    return dotted(where)


def dotted(where: Iterable[str | int]) -> str:
    """Join keys with dots, ``entries.3.model``, in one printable line."""
    names = [
        shortened(str(part), 60) if str(part).isprintable() else shown(str(part), 60)
        for part in where
    ]
    return shortened(".".join(names), 200)
