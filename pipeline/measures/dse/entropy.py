"""Entropies of an embedding, in bits: of its diffusion spectrum, and of its values in bins."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, namespace, to_host
from ..core.checks import as_count, as_embedding, as_seed, as_sigma, as_time, as_tolerance
from ..core.distances import gaussian_kernel, squared_distances
from ..core.estimate import (
    TOLERANCE,
    Estimate,
    Method,
    Precision,
    as_method,
    as_precision,
    method_for,
    precision_for,
)
from .lanczos import spectral_entropy_by_lanczos
from .spectrum import diffusion_eigenvalues

_FEW_BINS = 8


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
    """Diffusion spectral entropy (DSE) of an embedding, in bits.

    The Shannon entropy of the absolute eigenvalues of the diffusion matrix, each raised to the power t and then divided
    by their sum. It lies between 0 (all points alike, as seen at the width sigma) and log2 n (every point alone).

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample; a tensor on a GPU is measured there.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time; a larger one gives small eigenvalues, noise above all, less weight.
    method
        ``exact`` takes all eigenvalues: time grows with n^3, memory with n^2 (about 24 n^2 bytes). ``lanczos``
        estimates their entropy in time n^2 and, if need be, without a matrix; up to 512 points it is exact all the
        same. ``auto`` is exact up to 8,192 points.
    precision
        Of the eigenvalues of the exact method. ``float32`` is two to three times as fast and good to 1e-5 bits; up to
        1,024 points, and for t below 1, float64 is used whatever it says.
    tolerance : float
        Standard error, in bits, at which ``lanczos`` stops.
    seed : int
        Seed of its random probes.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, sigma, t or tolerance is not a positive number, or another setting is
        none of its choices.

    References
    ----------
    Liao et al., "Assessing Neural Network Representations During Training Using Noise-Resilient Diffusion Spectral
    Entropy", arXiv 2312.04823.
    """
    return diffusion_spectral_entropy_estimate(
        Z, sigma=sigma, t=t, method=method, precision=precision, tolerance=tolerance, seed=seed
    ).value


def diffusion_spectral_entropy_estimate(
    Z: ArrayLike,
    *,
    sigma: float | None = None,
    t: float = 1,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Estimate:
    """Diffusion spectral entropy with the standard error of its computation, and the method that was used.

    Parameters and errors are those of `diffusion_spectral_entropy`.

    Returns
    -------
    Estimate
        Value and standard error in bits; method ``exact``, of standard error 0, or ``lanczos``.
    """
    embedding = as_embedding(Z)
    n, d = embedding.shape
    sigma, t = as_sigma(sigma, d), as_time(t)
    method, precision = as_method(method), as_precision(precision)
    tolerance, seed = as_tolerance(tolerance), as_seed(seed)
    if method_for(method, n) == "lanczos":
        return spectral_entropy_by_lanczos(embedding, sigma, t, tolerance, seed)
    kernel = gaussian_kernel(squared_distances(embedding), sigma)
    eigenvalues = diffusion_eigenvalues(kernel, precision=precision_for(precision, n, t))
    return Estimate(float(spectrum_entropy(eigenvalues, t)), 0.0, "exact")


def shannon_entropy(Z: ArrayLike, *, bins: int = 2) -> float:
    """Classic Shannon entropy (CSE) of an embedding in bins, in bits.

    Each dimension is cut into equal bins between its own smallest and largest value; the samples that share all their
    bins are one event. A constant dimension is one bin. With many dimensions nearly every sample is alone in its bin,
    and the entropy is log2 n whatever the embedding: the reason for the diffusion spectral entropy.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    bins : int
        Bins for each dimension.

    Returns
    -------
    float
        Bits, from 0 to log2 n.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, or bins is not a whole number above 0.

    References
    ----------
    The baseline of Liao et al., arXiv 2312.04823.
    """
    return binned_entropy(as_embedding(Z), as_count(bins, "bins"))


def spectrum_entropy(eigenvalues: Array, t: float) -> Array:
    """Entropies, in bits, of the absolute eigenvalues [..., n] to the power t, normalised to sum 1: float64 [...]."""
    xp = namespace(eigenvalues)
    with np.errstate(under="ignore"):
        weights = xp.abs(eigenvalues) ** t
    return probability_entropy(weights / xp.sum(weights, axis=-1, keepdims=True))


def binned_entropy(Z: Array, bins: int) -> float:
    """Entropy, in bits, of the rows of a validated embedding [n, d] in bins."""
    return float(stacked_binned_entropies(Z[None, :, :], bins)[0])


def stacked_binned_entropies(stack: Array, bins: int) -> NDArray[np.float64]:
    """Entropies, in bits, of embeddings [m, k, d] in bins, each its own: float64 [m]."""
    xp = namespace(stack)
    lowest = xp.min(stack, axis=1, keepdims=True)
    span = xp.max(stack, axis=1, keepdims=True) - lowest
    # Of a constant dimension all scaled values are 0, so all fall in the first bin.
    span[span == 0] = 1.0
    scaled = (stack - lowest) / span
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if bins <= _FEW_BINS:  # comparing with every edge is faster than searching among them
        # A bit for each edge that a value reaches: rows in the same bins have the same bytes.
        above = [np.packbits(to_host(scaled >= edge), axis=2) for edge in edges.tolist()]
        # With a single bin there is no edge, and yet something must stand there.
        no_edges = np.zeros((*stack.shape[:2], 1), dtype=np.uint8)
        cells = np.concatenate([no_edges, *above], axis=2)
    else:
        cells = np.digitize(to_host(scaled), edges).astype(np.min_scalar_type(bins))
    return np.array([_entropy_of_repeats(rows) for rows in cells])


def _entropy_of_repeats(rows: NDArray[Any]) -> float:
    """Entropy of the distinct rows among [k, c], in bits; they are counted by their bytes."""
    counts = Counter(row.tobytes() for row in rows)
    return float(probability_entropy(np.array(list(counts.values())) / len(rows)))


def probability_entropy(probabilities: Array) -> Array:
    """Shannon entropies, in bits, of probabilities [..., n]; float64's epsilon is added to each, so that none is 0."""
    xp = namespace(probabilities)
    raised = probabilities + float(np.finfo(np.float64).eps)
    return -xp.sum(raised * xp.log2(raised), axis=-1)
