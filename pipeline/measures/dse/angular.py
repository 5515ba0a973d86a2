"""DSMI of the directions in which an embedding's rows lie from their mean."""

from numpy.typing import ArrayLike

from ..core.arrays import times_power_of_two
from ..core.decomposition import centred
from ..core.directions import directions, squares_of_directions
from ..core.estimate import TOLERANCE, Method, Precision
from ..core.points import SQUARES_FIT, Points, as_points
from .mutual_information import diffusion_spectral_mutual_information

SHARE = 0.5  # of the median distance
TIME = 2


def angular_mutual_information(
    Z: ArrayLike | Points,
    labels: ArrayLike,
    *,
    repetitions: int = 5,
    seed: int = 0,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
) -> float:
    """Diffusion spectral mutual information of the centred embedding's cosine geometry, in bits.

    Each row less the mean of all is scaled to length 1; sigma is half the median distance of two such points, t is 2.
    Neither the embedding's scale nor its offset matters. Sigma, t and preparation were chosen on the digits zoo of
    seed 0 and on one zoo of photographs; ``docs/score-study.md`` tells what became of it elsewhere.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.
    repetitions, seed, method, precision, tolerance
        As for ``diffusion_spectral_mutual_information``.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    UndefinedScore
        If a row is the mean itself, and so has no direction.
    ValueError
        As ``diffusion_spectral_mutual_information``.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI.
    """
    unit = _directions_from_mean(as_points(Z))
    return diffusion_spectral_mutual_information(
        unit,
        labels,
        sigma=SHARE * unit.median_distance(seed),
        t=TIME,
        repetitions=repetitions,
        seed=seed,
        method=method,
        precision=precision,
        tolerance=tolerance,
    )


def _directions_from_mean(points: Points) -> Points:
    values, exponent = centred(points.values)
    unit = directions(values)
    if not points.few or abs(exponent) > SQUARES_FIT:
        return Points(unit)
    return Points(
        unit,
        lambda: squares_of_directions(points.squares, times_power_of_two(values, exponent), unit),
    )
