"""Decorators that register a function of a `MeasureContext` as a column of a row.

``pipeline.measures.catalog`` describes each column: its title, unit, meaning and input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import isfinite
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .checks import UndefinedScore
from .context import MeasureContext, NotGiven
from .conversion import as_one_line
from .halves import error_over_halves
from .hits import Z95, percent, wilson_interval
from .threads import computed_once

Value = float | bool | str
Compute = Callable[[MeasureContext], Value]
Hits = NDArray[np.bool_]
SomeCompute = TypeVar("SomeCompute", bound=Compute)

Task = Literal["entropy", "spectrum", "distances", "decomposition", "values"]
"""The task of a column: columns of one task share work and run in sequence, different tasks run in parallel."""

ROUNDING = 1e-12  # of a score
SAME_IN_HALVES = "all random halves of the images give the same value, which leaves the error open"

COMPUTATIONS: dict[str, "Computation"] = {}
"""The computation of each column, by the column's name."""


@dataclass(frozen=True)
class Computation:
    """The computation of a column.

    ``compute`` raises UndefinedScore where the column has no value. A standard error that is estimated from halves of
    the images names its score in ``of_halves``; ``check_error`` raises UndefinedScore where such an error is wrong.
    """

    name: str
    compute: Compute
    task: Task
    grows_with_images: bool = False
    of_halves: "Computation | None" = None
    check_error: Callable[[MeasureContext], None] | None = None

    def result(self, context: MeasureContext) -> Value | UndefinedScore | None:
        """Return the value, or why it is undefined, or None if its input is missing; the context keeps the result."""
        if self.name not in context.results:
            context.results[self.name] = self._compute(context)
        kept: Value | UndefinedScore | None = context.results[self.name]
        return kept

    def _compute(self, context: MeasureContext) -> Value | UndefinedScore | None:
        try:
            value = self.compute(context)
        except NotGiven:
            return None
        except UndefinedScore as undefined:
            return undefined
        # From a library, such as NumPy's LinAlgError; the other scores are still computed.
        except (ValueError, ArithmeticError) as error:
            return UndefinedScore(
                f"its computation failed with {type(error).__name__} ({as_one_line(error, 200)})"
            )
        if isinstance(value, float) and not isfinite(value):
            return UndefinedScore(f"its value is {value}, which is not finite")
        return value

    def error_over_halves(self, context: MeasureContext) -> float:
        """Return the standard error estimated from random halves of the images.

        For a score that grows with the number of images, the relative error is estimated. Undefined if the score has no
        value for a half, or the same for all halves: it is at a bound, so its error is unknown.
        """
        context.require_halves()
        if self.check_error is not None:
            self.check_error(context)
        halves = context.halves
        values = np.array([_number_of_half(self.result(half)) for half in halves])
        if np.ptp(values) <= ROUNDING * np.abs(values).max():
            raise UndefinedScore(SAME_IN_HALVES)
        if not self.grows_with_images or (values == 0).any():
            return error_over_halves(values, halves[0].n, context.n)
        of_all = self.result(context)
        if of_all is None or isinstance(of_all, UndefinedScore):
            raise of_all or NotGiven
        relative = error_over_halves(np.log(np.abs(values)), halves[0].n, context.n)
        return abs(float(of_all)) * relative


def _number_of_half(result: Value | UndefinedScore | None) -> float:
    if result is None:
        raise UndefinedScore("a random half of the images holds one class or cluster only")
    if isinstance(result, UndefinedScore):
        raise UndefinedScore(f"in a random half of the images, {result}")
    return float(result)


def column(name: str, *, task: Task) -> Callable[[SomeCompute], SomeCompute]:
    """Register a function as a column without a standard error."""

    def register(compute: SomeCompute) -> SomeCompute:
        COMPUTATIONS[name] = Computation(name, compute, task)
        return compute

    return register


def score(
    name: str,
    *,
    task: Task,
    error: Compute | None = None,
    grows_with_images: bool = False,
    check_error: Callable[[MeasureContext], None] | None = None,
) -> Callable[[SomeCompute], SomeCompute]:
    """Register a function as a score, and its standard error over images as ``<name>_se``.

    Parameters
    ----------
    name : str
        The score's name in the catalog.
    task
        The task in which it is computed.
    error : callable, optional
        A closed form of the standard error; by default it is estimated from random halves of the images.
    grows_with_images : bool
        Whether more images of the same classes give a larger score, and a larger spread.
    check_error : callable, optional
        Raises UndefinedScore where an error from halves would be wrong.
    """

    def register(compute: SomeCompute) -> SomeCompute:
        of_score = Computation(name, compute, task, grows_with_images, check_error=check_error)
        if error is None:
            of_error = Computation(
                f"{name}_se", of_score.error_over_halves, task, of_halves=of_score
            )
        else:
            of_error = Computation(f"{name}_se", error, task)
        COMPUTATIONS[name], COMPUTATIONS[of_error.name] = of_score, of_error
        return compute

    return register


def accuracy(
    name: str, *, task: Task
) -> Callable[[Callable[[MeasureContext], Hits]], computed_once[Hits]]:
    """Register the accuracy of a classifier in percent, and its standard error, by Wilson's interval.

    The decorated function returns whether each image is classified correctly, bool [images]; it is called only if each
    class has two images. The error is above 0 even if all images are classified correctly, or none.
    """

    def register(function: Callable[[MeasureContext], Hits]) -> computed_once[Hits]:
        @computed_once
        @wraps(function)
        def hits(context: MeasureContext) -> Hits:
            context.require_image_pairs()
            return function(context)

        def error(context: MeasureContext) -> float:
            low, high = wilson_interval(int(hits(context).sum()), len(hits(context)))
            return (high - low) / (2 * Z95)

        @score(name, task=task, error=error)
        def share(context: MeasureContext) -> float:
            return percent(hits(context))

        return hits

    return register
