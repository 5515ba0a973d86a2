"""The entropy of an embedding's diffusion spectrum, in bits."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import as_points, gaussian_kernel, squared_distances
from ..core.exact_or_estimated import (
    TOLERANCE,
    Estimate,
    Method,
    Precision,
    method_for,
    precision_for,
)
from ..core.registry import column, score
from ..core.settings import checked_settings
from ..core.threads import computed_once
from .lanczos import spectral_entropy_by_lanczos
from .spectrum import kernel_entropy
from .subsets import spectral_entropies

SATURATION = 0.1
"""An entropy this close, in bits, to 0 or to log2 n does not describe the embedding."""


def diffusion_spectral_entropy(
    Z: ArrayLike,
    *,
    sigma: float | None = None,
    t: float = 1,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> float:
    """Return the diffusion spectral entropy (DSE) of an embedding, in bits.

    It is the Shannon entropy of the absolute eigenvalues of the diffusion matrix, each raised to the power t and then
    divided by their sum, between 0 (all points alike at the width sigma) and log2 n (every point alone).

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample; a tensor on a GPU is measured there.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time; a larger one gives less weight to small eigenvalues, which are mostly noise.
    method
        ``exact`` computes all eigenvalues: time grows with n^3, memory with n^2 (about 24 n^2 bytes). ``lanczos``
        estimates their entropy in time n^2 and, if need be, without a matrix; up to 512 points it is exact too.
        ``auto`` is exact up to 8,192 points.
    precision
        Arithmetic of the exact method's eigenvalues. ``float32`` is up to twice as fast and accurate to about 1e-6
        bits; up to 1,024 points, and for t below 1, float64 is used in any case.
    tolerance : float
        Standard error, in bits, at which ``lanczos`` stops.
    seed : int
        Seed of the random probes of ``lanczos``.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, or a setting is out of range.

    References
    ----------
    Liao et al., "Assessing Neural Network Representations During Training Using Noise-Resilient Diffusion Spectral
    Entropy", arXiv 2312.04823.
    """
    return diffusion_spectral_entropy_estimate(
        Z, sigma=sigma, t=t, method=method, precision=precision, tolerance=tolerance, seed=seed
    ).value


def diffusion_spectral_entropy_estimate(Z: ArrayLike, **settings: Any) -> Estimate:
    """Return the diffusion spectral entropy with the standard error of its computation, and the method used.

    Settings and errors are those of `diffusion_spectral_entropy`.

    Returns
    -------
    Estimate
        Value and standard error in bits; method ``exact``, with standard error 0, or ``lanczos``.
    """
    checked = checked_settings(
        {"precision": "float64"} | settings, "diffusion_spectral_entropy_estimate"
    )
    points = as_points(Z)
    n, d = points.values.shape
    sigma, t = checked.sigma_for(d), checked.t
    if method_for(checked.method, n) == "lanczos":
        return spectral_entropy_by_lanczos(points.values, sigma, t, checked.tolerance, checked.seed)
    kernel = gaussian_kernel(squared_distances(points.values), sigma)
    precision = precision_for(checked.precision, n, t)
    return Estimate(kernel_entropy(kernel, t, precision=precision), 0.0, "exact")


def _check_error(context: MeasureContext) -> None:
    """Raise UndefinedScore near a bound of the entropy, where its spread falls too slowly with the number of images."""
    if saturated(context):
        raise UndefinedScore(
            "the entropy is within 0.1 bit of a bound, where halves state too small an error"
        )


@score("dse_z", task="entropy", check_error=_check_error)
@computed_once
def entropy_of_all(context: MeasureContext) -> float:
    """Return the diffusion spectral entropy of all points, in bits."""
    return spectral_entropies(context).of([np.arange(context.n)])[0].value


@column("saturated", task="entropy")
def saturated(context: MeasureContext) -> bool:
    """Return whether the entropy is so close to a bound that sigma must be wrong for the embedding's scale."""
    most = float(np.log2(context.n))
    entropy = entropy_of_all(context)
    return bool(entropy <= SATURATION or entropy >= most - SATURATION)


@column("median_distance_over_sigma", task="spectrum")
def median_distance_over_sigma(context: MeasureContext) -> float:
    """Return the median distance between two points, in units of sigma; undefined for a single point."""
    if context.n == 1:
        raise UndefinedScore("a single row has no distance to another")
    return context.points.median_distance(context.settings.seed) / context.sigma
