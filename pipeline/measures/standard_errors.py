"""How the standard error over images of each score is computed."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .context import MeasureContext
from .definition import Measure, Value
from .probe import Z95, wilson_interval
from .uncertainty import error_over_halves
from .undefined import UndefinedScore


def error_of_share(
    hits: Callable[[MeasureContext], NDArray[np.bool_]],
) -> Callable[[MeasureContext], float]:
    """The standard error of a share of hits, in percentage points: above 0 also where all are hits, or none."""

    def error(context: MeasureContext) -> float:
        low, high = wilson_interval(int(hits(context).sum()), len(hits(context)))
        return (high - low) / (2 * Z95)

    return error


def error_of_two_nn(context: MeasureContext) -> float:
    """That of the maximum-likelihood estimate of an exponent from so many points."""
    return context.two_nn_dimension / float(np.sqrt(len(context.different_image_points)))


def error_of_mean(
    of_rows: Callable[[MeasureContext], NDArray[np.float64]],
) -> Callable[[MeasureContext], float]:
    """The standard error of a mean over images, whose rows belong together, with the fitted model as it is."""

    def error(context: MeasureContext) -> float:
        of_images = np.bincount(context.images, of_rows(context)) / np.bincount(context.images)
        return float(np.std(of_images, ddof=1) / np.sqrt(len(of_images)))

    return error


def over_halves(score: Measure) -> Callable[[MeasureContext], float | None]:
    """The standard error of a score by its values on random halves of the images; None if one of them has none."""

    def error(context: MeasureContext) -> float | None:
        halves = context.halves
        results = [score.result(half) for half in halves]
        values = np.array([float(_defined(result)) for result in results if result is not None])
        if len(values) < len(halves) or not halves:
            return None
        if not score.grows_with_images or (values == 0).any():
            return error_over_halves(values, halves[0].n, context.n)
        of_all = score.result(context)
        if of_all is None:
            return None
        return abs(float(_defined(of_all))) * error_over_halves(
            np.log(np.abs(values)), halves[0].n, context.n
        )

    return error


def _defined(result: Value | UndefinedScore) -> Value:
    if isinstance(result, UndefinedScore):
        raise result
    return result
