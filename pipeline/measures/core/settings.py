"""Validated settings of the measures of an embedding."""

import math
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import (
    ONLY_IN_FILE,
    SEVERAL,
    OnCommandLine,
    Settings,
    rule_of,
    settings_of,
)

from .exact_or_estimated import TOLERANCE, Method, Precision

# Far beyond any network's values; squares, sums and quotients of numbers between them stay within float64.
MIN_VALUE, MAX_VALUE = 1e-100, 1e100
MAX_COUNT = 1_000_000  # repetitions, bins, permutations: hours of work; more is surely a typo
MAX_SEED = 2**32 - 1  # what Python's, NumPy's and scikit-learn's generators all take


def _as_number(value: Any, info: ValidationInfo) -> Any:
    """Convert a NumPy number to Python's; text is accepted from the command line only."""
    if isinstance(value, bool) or (isinstance(value, str) and info.mode == "python"):
        raise ValueError("must be a number")
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


def _as_whole_number(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and info.mode == "python"):
        raise ValueError("must be a whole number")
    return int(value) if isinstance(value, Integral) else value


def _within_reach(value: float) -> float:
    if not MIN_VALUE <= value <= MAX_VALUE:
        raise ValueError(f"must be between {MIN_VALUE:g} and {MAX_VALUE:g}")
    return value


def _paper_sigma(value: Any) -> Any:
    return None if isinstance(value, str) and value == "sqrt(d)" else value


PositiveNumber = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    AfterValidator(_within_reach),
    BeforeValidator(_as_number),
]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), BeforeValidator(_as_whole_number)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(_as_whole_number)]


_NOT_OF_A_CALL = ("scores", "own")


class MeasureSettings(Settings):
    """Settings of the measures of an embedding; a ``sigma`` of None means sqrt(d), the paper's choice.

    ``method``, ``precision`` and ``tolerance`` (bits) apply to the eigenvalues, not to the forward pass.
    """

    sigma: Annotated[
        PositiveNumber | None,
        BeforeValidator(_paper_sigma),
        OnCommandLine(metavar="NUMBER|sqrt(d)", default="sqrt(d)", text=True),
    ] = Field(default=None, description="Width of the Gaussian kernel.")
    t: PositiveNumber = Field(
        default=1.0, description="Diffusion time, the power of the eigenvalues."
    )
    repetitions: Count = Field(default=5, description="Random subsets for each class.")
    seed: Seed = Field(default=0, description="Seed of random subsets and null.")
    bins: Count = Field(default=2, description="Bins of the classic entropy.")
    null_permutations: Count = Field(default=10, description="Label permutations of the null.")
    method: Annotated[Method, ONLY_IN_FILE] = Field(
        default="auto",
        description="Eigenvalues: exact, or lanczos, an estimate; auto estimates for more than 8,192 points.",
    )
    precision: Annotated[Precision, ONLY_IN_FILE] = Field(
        default="float32", description="Arithmetic of the eigenvalues: float32 or float64."
    )
    tolerance: Annotated[PositiveNumber, ONLY_IN_FILE] = Field(
        default=TOLERANCE, description="Standard error, in bits, at which an estimate stops."
    )
    scores: Literal["default", "all"] = Field(
        default="default",
        description="default: no costly scores that rank no better; all: these too, and every standard error.",
    )
    own: Annotated[tuple[str, ...], SEVERAL, OnCommandLine("measure", "MODULE:FUNCTION")] = Field(
        default=(), description="A measure of your own, f(Z, labels) -> number."
    )

    def arguments(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of `measure`, except ``scores``."""
        return self.model_dump(exclude={*_NOT_OF_A_CALL})

    def identity(self) -> dict[str, Any]:
        """Return the settings as they enter identities.

        The key ``scores`` is left out for all scores, so that rows of versions without it keep their identity.
        """
        settings = self.model_dump(mode="json")
        if self.scores == "all":
            del settings["scores"]
        return settings

    def sigma_for(self, d: int) -> float:
        """Return the width of the kernel for an embedding of d columns."""
        return math.sqrt(d) if self.sigma is None else self.sigma


SETTINGS = tuple(
    setting for setting in settings_of(MeasureSettings) if setting.key not in _NOT_OF_A_CALL
)
"""The settings that `measure` takes in addition to ``scores``; callers can call an own measure's function directly."""


def checked_settings(settings: dict[str, Any], function: str = "measure") -> MeasureSettings:
    """Return the settings of a call; raise a one-line InputError for a wrong one."""
    try:
        return MeasureSettings.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(setting.key for setting in SETTINGS)
        raise InputError(
            f"{function} has no setting {name!r}; beside its own arguments there are {known}"
        )
    rule = rule_of(problem)
    raise InputError(f"{name} is {problem['input']!r}; {rule[0].lower()}{rule[1:]}")
