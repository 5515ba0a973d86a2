"""What a setting is: a field of a pydantic model that says what file, command line and Python must know of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
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
    """A group of settings; an unknown name is refused, and text that a terminal would obey or no file can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and not is_printable(str(text)):
                raise ValueError(NOT_PRINTABLE)
        return value


def _as_several(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("must be text, or a list of texts")
    return value


SEVERAL = BeforeValidator(_as_several)
"""Of a field that holds a tuple: text stands for a single value."""


@dataclass(frozen=True)
class OnCommandLine:
    """What a field's option is, beyond the field's own name, type, default and description.

    Parameters
    ----------
    flag
        The option without its dashes, if it is not the field's name.
    metavar
        What the help calls the value.
    default
        What the help says where the default is computed.
    text
        A number that may also be written with its unit, or as a word.
    turns_off
        The option makes a field that is True by default False.
    absent
        There is no option: the setting is made in the file alone.
    """

    flag: str = ""
    metavar: str = ""
    default: str = ""
    text: bool = False
    turns_off: bool = False
    absent: bool = False


ONLY_IN_FILE = OnCommandLine(absent=True)
METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER"}


@dataclass(frozen=True, eq=False)
class Setting:
    """A field and the way to it: ``("subset", "seed")``."""

    path: KeyPath
    field: FieldInfo
    option: OnCommandLine

    @property
    def key(self) -> str:
        """The name in a TOML file: ``subset.seed``."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """The option: ``--subset-seed``."""
        return f"--{self.option.flag or self.path[-1].replace('_', '-')}"

    @property
    def keyword(self) -> str:
        """The argument of a Python function: ``subset_seed``."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def help(self) -> str:
        """The field's description."""
        return self.field.description or ""

    @property
    def repeated(self) -> bool:
        """Whether there may be several values."""
        return get_origin(self.field.annotation) is tuple

    @property
    def kind(self) -> Any:
        """The type of a single value, bare: ``float`` for a bounded number or None."""
        return _bare(self._single)

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value."""
        return self.kind is bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are to choose from, if they are few."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def metavar(self) -> str:
        """What the help calls a value."""
        if self.choices:
            return f"[{'|'.join(self.choices)}]"
        return (
            self.option.metavar
            or METAVARS.get(self.kind)
            or getattr(self.kind, "__name__", "").upper()
        )

    @property
    def default(self) -> Any:
        """The field's default; None where it is computed."""
        return self.field.default if self.field.default_factory is None else None

    @property
    def default_shown(self) -> str:
        """The default as people read it; nothing where there is none to speak of."""
        if self.option.default:
            return self.option.default
        if self.default is None or self.default == () or self.is_switch:
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def read(self, text: str) -> Any:
        """The value that a word of the command line stands for.

        Raises
        ------
        pydantic.ValidationError
            If the field does not take it.
        """
        return self._reader.validate_strings(text)

    def stored(self, value: Any) -> Any:
        """What the field holds for a value of the option."""
        return not value if self.option.turns_off else value

    @property
    def parameter(self) -> Parameter:
        """The argument of a Python function, with its default and its type."""
        default = None if self.repeated else self.stored(self.default)
        annotation = str if self.choices else self.kind
        if self.option.text or self.kind is Path:
            annotation |= str
        if self.repeated:
            annotation |= Sequence[str]
        if default is None or self.repeated:
            annotation |= None
        return Parameter(
            self.keyword, Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )

    @property
    def _single(self) -> Any:
        if self.repeated:
            return get_args(self.field.annotation)[0]
        return (
            Annotated[(self.field.annotation, *self.field.metadata)]
            if self.field.metadata
            else self.field.annotation
        )

    @cached_property
    def _reader(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._single)


def _bare(annotation: Any) -> Any:
    """The type itself, without bounds and None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not NoneType))
    return annotation


@cache
def settings_of(model: type[BaseModel], under: KeyPath = ()) -> tuple[Setting, ...]:
    """All settings of a model and of the groups in it, in their order."""
    settings: list[Setting] = []
    for name, field in model.model_fields.items():
        path = (*under, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            settings += settings_of(field.annotation, path)
        else:
            said = [mark for mark in field.metadata if isinstance(mark, OnCommandLine)]
            settings.append(Setting(path, field, said[0] if said else OnCommandLine()))
    return tuple(settings)


@cache
def options_of(model: type[BaseModel]) -> tuple[Setting, ...]:
    """The settings of a model that the command line can make."""
    return tuple(setting for setting in settings_of(model) if not setting.option.absent)


@cache
def flags_of(model: type[BaseModel]) -> Mapping[KeyPath, str]:
    """What the command line calls the settings of a model."""
    return {setting.path: setting.flag for setting in options_of(model)}


@cache
def keywords_of(model: type[BaseModel]) -> Mapping[KeyPath, str]:
    """What a Python function calls the settings of a model."""
    return {setting.path: setting.keyword for setting in options_of(model)}


def spells_out(settings: Iterable[Setting]) -> Callable[[Function], Function]:
    """A decorator for a function that takes ``**settings``: help and completion show a keyword for each of them.

    Those that the function names itself stay as they are.
    """

    def decorate(function: Function) -> Function:
        declared = signature(function)
        named = [
            one for one in declared.parameters.values() if one.kind is not Parameter.VAR_KEYWORD
        ]
        taken = {one.name for one in named}
        others = [setting.parameter for setting in settings if setting.keyword not in taken]
        function.__signature__ = declared.replace(parameters=[*named, *others])  # type: ignore[attr-defined]
        return function

    return decorate


class Clash(ValueError):
    """Values that do not go together.

    Parameters
    ----------
    reason
        Why, and what to do.
    keys
        The settings that clash, from the model that raises it on: ``subset.repeats``.
    """

    def __init__(self, reason: str, *keys: str) -> None:
        super().__init__(reason)
        self.keys = keys


def validation_line(
    error: ValidationError,
    names: Mapping[KeyPath, str] | None = None,
    known: Iterable[KeyPath] = (),
) -> str:
    """The first problem that pydantic found, in one line.

    Parameters
    ----------
    error
        What pydantic raised.
    names
        What the reader calls the settings; by default it is their keys.
    known
        The settings there are, of which one may be meant by a name that there is not.
    """
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Clash):
        clashing = [_spelled((*where, *key.split(".")), names) for key in cause.keys]
        return f"{' with '.join(clashing)}: {cause}"
    if first["type"] == "extra_forbidden":
        return f"{_spelled(where, names)}: there is no such setting{_meant(where, known)}"
    told = first["type"] == "missing" or isinstance(first["input"], dict)
    given = str(first["input"]) if isinstance(first["input"], Path) else first["input"]
    instead = "" if told else f", not {shown(given)}"
    message = rule_of(first)
    return f"{_spelled(where, names)}: {message}{instead}" if where else f"{message}{instead}"


def rule_of(problem: Mapping[str, Any]) -> str:
    """What pydantic says is wrong, without the word that it puts before what a validator of ours says."""
    rule: str = problem["msg"]
    return rule.removeprefix("Value error, ")


def _meant(where: KeyPath, known: Iterable[KeyPath]) -> str:
    """What else may be meant: a setting, or a group of them, whose own name is the same or nearly so."""
    places: dict[str, KeyPath] = {}
    for path in known:
        for depth, name in enumerate(path, start=1):
            places[name] = path[:depth]
    near = get_close_matches(where[-1], places, n=1)
    return f"; did you mean {dotted(places[near[0]])}?" if near else ""


def _spelled(where: KeyPath, names: Mapping[KeyPath, str] | None) -> str:
    """The name of a setting, also for one of its several values."""
    for end in range(len(where), 0, -1):
        if names and where[:end] in names:
            return names[where[:end]]
    return dotted(where)


def dotted(where: Iterable[str | int]) -> str:
    """The way to a value as one line: ``entries.3.model``; a name with a line break or the like is quoted."""
    names = [
        shortened(str(part), 60) if str(part).isprintable() else shown(str(part), 60)
        for part in where
    ]
    return shortened(".".join(names), 200)
