"""DSMI with a sigma that follows the embedding's scale; t, sigma and preparation were chosen by studies."""

import numpy as np

from ..core.arrays import namespace, times_power_of_two
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.decomposition import scaled
from ..core.directions import directions, squares_of_directions
from ..core.points import SQUARES_FIT, Points
from ..core.registry import score
from .subsets import SpectralEntropies

SHARE = 0.5  # of the root mean square length of a row, or of the median distance
TIME = 2
ROUNDING = 1e-14  # of directions, whose length is 1


@score("dsmi_z_y_scale_free", task="spectrum")
def dsmi_z_y_scale_free(context: MeasureContext) -> float:
    """Return DSMI at sigma = 1/2 sqrt(mean |z|^2) and t = 2, in bits; 0 for a constant embedding.

    With the paper's sigma = sqrt(d), the embedding times a number has another DSMI; here it has the same, because sigma
    is half the root mean square length of a row: half the paper's where the embedding's root mean square is 1. It does
    depend on the origin: an offset that all rows share makes them alike, as in their cosines.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI; sigma and t were chosen by ``benchmarks/better_default.py``.
    """
    points = context.points
    values, exponent = scaled(points.values)
    if abs(exponent) > SQUARES_FIT:
        points, exponent = Points(values), 0
    sum_of_squares = float(namespace(values).sum(values * values))
    length = float(np.sqrt(sum_of_squares / values.shape[0]))
    sigma = float(np.ldexp(SHARE * length, exponent)) or 1.0  # for zeros, any sigma will do
    return _information(context, points, sigma)


@score("dsmi_z_y_angular", task="spectrum")
def dsmi_z_y_angular(context: MeasureContext) -> float:
    """Return DSMI of the centred embedding's cosine geometry, in bits.

    Each row minus the mean is scaled to length 1; sigma is half the median distance of two such points, t is 2. Neither
    the embedding's scale nor its offset matters. The choices were made on the digits zoo of seed 0 and on one zoo of
    photographs; ``docs/score-study.md`` has the results elsewhere. Undefined if a row is the mean itself, and so has no
    direction, or if the median distance is 0: most pairs of rows have one direction.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI.
    """
    points, values, exponent = context.points, context.centred_values, context.exponent
    unit = directions(values, "rows less their mean")
    if points.few and abs(exponent) <= SQUARES_FIT:
        in_units = times_power_of_two(values, exponent)
        known = Points(unit, lambda: squares_of_directions(points.squares, in_units, unit))
    else:
        known = Points(unit)
    median = known.median_distance(context.settings.seed)
    if median <= ROUNDING:
        raise UndefinedScore("the median distance of the directions is 0")
    return _information(context, known, SHARE * median)


def _information(context: MeasureContext, points: Points, sigma: float) -> float:
    settings = context.settings.model_copy(update={"t": float(TIME)})
    return SpectralEntropies(points, sigma, settings).information(context.classes).value
