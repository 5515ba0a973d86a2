"""Choose entries by what is known about them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.renamed import current_names
from dsmi_zoo._util.settings import SEVERAL, OnCommandLine, Settings

from .entry import LARGEST_IMG_SIZE, ModelEntry
from .taxonomy import KINDS, NetworkKind


def _in_any_case(name: Any) -> Any:
    spelled = {kind.lower(): kind for kind in KINDS}
    return spelled.get(str(name).lower(), name)


class Filters(Settings):
    """Bounds that an entry must keep. An entry of which the value is unknown does not keep a bound on it."""

    kind: Annotated[tuple[Annotated[NetworkKind, BeforeValidator(_in_any_case)], ...], SEVERAL] = (
        Field(default=(), description="Only networks of this kind.")
    )
    max_params: Annotated[float | None, OnCommandLine(metavar="MILLIONS")] = Field(
        default=None, gt=0, allow_inf_nan=False, description="At most so many million parameters."
    )
    max_gmacs: Annotated[float | None, OnCommandLine(metavar="GMACS")] = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="At most so many billion multiply-adds per image.",
    )
    img_size: Annotated[int | None, OnCommandLine(metavar="PIXELS")] = Field(
        default=None, gt=0, le=LARGEST_IMG_SIZE, description="Only this image size."
    )
    license: Annotated[tuple[str, ...], SEVERAL, OnCommandLine(metavar="LICENSE")] = Field(
        default=(), description="Only weights of this license."
    )
    limit: Annotated[int | None, OnCommandLine(metavar="N")] = Field(
        default=None, gt=0, lt=2**63, description="The first N of what is left."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_former_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return dict(zip(current_names(values), values.values(), strict=True))

    def tests(self) -> Iterator[tuple[str, Callable[[ModelEntry], bool]]]:
        """The bounds that were given, each by the option that gives it."""
        if self.kind:
            yield f"--kind {' '.join(self.kind)}", lambda e: e.kind in self.kind
        if self.max_params is not None:
            yield (
                f"--max-params {self.max_params:g}",
                lambda e: _within(e.params_m, self.max_params),
            )
        if self.max_gmacs is not None:
            yield (
                f"--max-gmacs {self.max_gmacs:g}",
                lambda e: _within(e.extras.get("gmacs"), self.max_gmacs),
            )
        if self.img_size is not None:
            yield f"--img-size {self.img_size}", lambda e: e.img_size == self.img_size
        if self.license:
            wanted = {name.lower() for name in self.license}
            yield (
                f"--license {' '.join(self.license)}",
                lambda e: (e.license or "").lower() in wanted,
            )


def apply_filters(entries: Sequence[ModelEntry], filters: Filters, where: str) -> list[ModelEntry]:
    """The entries that keep every bound, in their order.

    Raises
    ------
    InputError
        When none is left; it names the bound that took the last ones, and what there is to choose from.
    """
    left = list(entries)
    for option, holds in filters.tests():
        kept = [entry for entry in left if holds(entry)]
        if not kept:
            raise InputError(f"no entry of {where} is left by {option}; {_on_offer(left, option)}")
        left = kept
    return left[: filters.limit]


def _within(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound


def _on_offer(entries: Sequence[ModelEntry], option: str) -> str:
    """What the entries have of the thing that an option bounds."""
    name = option.split()[0]
    if name.startswith("--max"):
        sizes = [e.params_m if name == "--max-params" else e.extras.get("gmacs") for e in entries]
        known = [size for size in sizes if size is not None]
        return f"the smallest has {min(known):g}" if known else "it is unknown for all of them"
    field = {"--img-size": "img_size", "--kind": "kind", "--license": "license"}[name]
    known_values = {getattr(entry, field) for entry in entries} - {None}
    values = [str(value) for value in sorted(known_values)]
    return f"there is: {', '.join(values)}" if values else "it is unknown for all of them"
