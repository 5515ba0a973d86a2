"""DSMI with a sigma that follows the embedding's scale, chosen by a study on the digits zoo."""

import numpy as np
from numpy.typing import ArrayLike

from ..core.arrays import namespace
from ..core.decomposition import scaled
from ..core.estimate import TOLERANCE, Method, Precision
from ..core.points import SQUARES_FIT, Points, as_points
from .mutual_information import diffusion_spectral_mutual_information

SHARE = 0.5  # of the root mean square length of a row
TIME = 2


def scale_free_mutual_information(
    Z: ArrayLike | Points,
    labels: ArrayLike,
    *,
    repetitions: int = 5,
    seed: int = 0,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
) -> float:
    """Diffusion spectral mutual information at sigma = 1/2 sqrt(mean |z|^2) and t = 2, in bits.

    With the paper's sigma = sqrt(d), the embedding times a number is another embedding; here it is not, for sigma is
    half the root mean square length of a row: half the paper's where the embedding's root mean square is 1. It does
    depend on the origin: what all rows share makes them alike, as in their cosines.

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
        Bits; 0 for a constant embedding.

    Raises
    ------
    ValueError
        As ``diffusion_spectral_mutual_information``.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI; the choice of sigma and t is that of ``benchmarks/better_default.py``.
    """
    points = as_points(Z)
    values, exponent = scaled(points.values)
    if abs(exponent) > SQUARES_FIT:
        points, exponent = Points(values), 0
    sum_of_squares = float(namespace(values).sum(values * values))
    length = float(np.sqrt(sum_of_squares / values.shape[0]))
    return diffusion_spectral_mutual_information(
        points,
        labels,
        sigma=float(np.ldexp(SHARE * length, exponent)) or 1.0,  # of zeros: any
        t=TIME,
        repetitions=repetitions,
        seed=seed,
        method=method,
        precision=precision,
        tolerance=tolerance,
    )
