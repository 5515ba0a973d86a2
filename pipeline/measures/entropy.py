"""Entropies of an embedding, in bits: of its diffusion spectrum, and of its values in bins."""

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.measures.inputs import as_count, as_embedding, as_sigma, as_time
from pipeline.measures.spectrum import diffusion_eigenvalues, gaussian_kernel, squared_distances


def diffusion_spectral_entropy(Z: ArrayLike, *, sigma: float | None = None, t: float = 1) -> float:
    """Diffusion spectral entropy (DSE) of an embedding, in bits.

    The Shannon entropy of the eigenvalues of the diffusion matrix, raised to the power t and normalised to sum 1. It
    lies between 0 (all points alike, as seen at the width sigma) and log2 n (every point alone).

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time; a larger one gives small eigenvalues, noise above all, less weight.

    Returns
    -------
    float
        Bits. Time grows with n^3, memory with n^2 (about 24 n^2 bytes).

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, or sigma or t is not a positive number.

    References
    ----------
    Liao et al., "Assessing Neural Network Representations During Training Using Noise-Resilient Diffusion Spectral
    Entropy", arXiv 2312.04823.
    """
    Z = as_embedding(Z)
    sigma, t = as_sigma(sigma, Z.shape[1]), as_time(t)
    return spectrum_entropy(diffusion_eigenvalues(gaussian_kernel(squared_distances(Z), sigma)), t)


def shannon_entropy(Z: ArrayLike, *, bins: int = 2) -> float:
    """Classic Shannon entropy (CSE) of an embedding in bins, in bits.

    Each dimension is cut into equal bins between its own smallest and largest value; the samples that share all their
    bins are one event. A constant dimension is one bin. With many dimensions nearly every sample is alone in its bin,
    and the entropy is log2 n whatever the embedding: the reason for the diffusion spectral entropy.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
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


def spectrum_entropy(eigenvalues: NDArray[np.float64], t: float) -> float:
    """Entropy, in bits, of the absolute eigenvalues [n] to the power t, normalised to sum 1."""
    with np.errstate(under="ignore"):
        weights = np.abs(eigenvalues) ** t
    return probability_entropy(weights / weights.sum())


def binned_entropy(Z: NDArray[np.float64], bins: int) -> float:
    """Entropy, in bits, of the rows of a validated embedding [n, d] in bins."""
    low = Z.min(axis=0)
    span = Z.max(axis=0) - low
    span[span == 0] = 1  # a constant dimension: all its scaled values are 0, so all fall in the first bin
    edges = np.linspace(0, 1, bins + 1)[:-1]
    cells = np.digitize((Z - low) / span, edges).astype(np.min_scalar_type(bins))
    counts = Counter(row.tobytes() for row in cells)
    return probability_entropy(np.array(list(counts.values())) / len(Z))


def probability_entropy(probabilities: NDArray[np.float64]) -> float:
    """Shannon entropy, in bits, of probabilities [n]; each is raised by float64's epsilon, so that none is zero."""
    raised = probabilities + np.finfo(np.float64).eps
    return float(-np.sum(raised * np.log2(raised)))
