"""Choose entries of a catalogue by kind, size, cost and license."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import SEVERAL, OnCommandLine, Settings

from .entry import CURRENT_NAMES, MAX_IMG_SIZE, ModelEntry
from .taxonomy import KINDS, NetworkKind


def _in_any_case(name: Any) -> Any:
    spelled = {kind.lower(): kind for kind in KINDS}
    return spelled.get(str(name).lower(), name)


class Filters(Settings):
    """Conditions on an entry. Entries with a missing value fail the condition on it."""

    kind: Annotated[tuple[Annotated[NetworkKind, BeforeValidator(_in_any_case)], ...], SEVERAL] = (
        Field(default=(), description="Only networks of this kind.")
    )
    max_params: Annotated[float | None, OnCommandLine(metavar="MILLIONS")] = Field(
        default=None, gt=0, allow_inf_nan=False, description="At most this many million parameters."
    )
    max_gmacs: Annotated[float | None, OnCommandLine(metavar="GMACS")] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="At most this many billion multiply-adds per image.",
    )
    img_size: Annotated[int | None, OnCommandLine(metavar="PIXELS")] = Field(
        default=None, gt=0, le=MAX_IMG_SIZE, description="Only this image size."
    )
    license: Annotated[tuple[str, ...], SEVERAL, OnCommandLine(metavar="LICENSE")] = Field(
        default=(), description="Only weights with this license."
    )
    limit: Annotated[int | None, OnCommandLine(metavar="N")] = Field(
        default=None, gt=0, lt=2**63, description="The first N of the remaining entries."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_former_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {CURRENT_NAMES.get(name, name): value for name, value in values.items()}


def apply_filters(entries: Sequence[ModelEntry], filters: Filters, where: str) -> list[ModelEntry]:
    """Return the entries that fulfil every condition, in their order.

    Raises
    ------
    InputError
        When no entry is left; the message names the condition that excluded the last ones, and the available values.
    """
    left = list(entries)
    for name, bound in filters:
        if name == "limit" or bound in (None, ()):
            continue
        kept = [entry for entry in left if _fulfils(_value(entry, name), name, bound)]
        if not kept:
            words = bound if isinstance(bound, tuple) else (f"{bound:g}",)
            option = f"--{name.replace('_', '-')} {' '.join(words)}"
            known = {_value(entry, name) for entry in left} - {None}
            raise InputError(f"no entry of {where} is left by {option}; {_available(known, name)}")
        left = kept
    return left[: filters.limit]


def _value(entry: ModelEntry, name: str) -> Any:
    """Return the value that a filter compares with its bound."""
    if name == "max_params":
        return entry.params_m
    if name == "max_gmacs":
        return entry.extras.get("gmacs")
    return getattr(entry, name)


def _fulfils(value: Any, name: str, bound: Any) -> bool:
    if value is None:
        return False
    if isinstance(bound, tuple):
        return value.lower() in {choice.lower() for choice in bound}
    return value <= bound if name.startswith("max") else value == bound


def _available(known: set[Any], name: str) -> str:
    if not known:
        return "it is unknown for all of them"
    if name.startswith("max"):
        return f"the smallest has {min(known):g}"
    values = [str(value) for value in sorted(known)]
    return f"there is: {', '.join(values)}"
