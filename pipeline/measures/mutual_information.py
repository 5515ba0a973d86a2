"""Mutual information of an embedding and classes, in bits, from the entropies of its subsets."""

import math
import random
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.measures.entropy import binned_entropy, spectrum_entropy
from pipeline.measures.inputs import as_array, as_classes, as_count, as_embedding, as_seed, as_sigma, as_time
from pipeline.measures.spectrum import diffusion_eigenvalues, gaussian_kernel, squared_distances

EntropyOf = Callable[[NDArray[np.int64]], float]
"""The entropy, in bits, of the points with these indices, int64 [k]."""

_NEIGHBOURS = 10  # scikit-learn's default, which the paper's clusters of inputs were made with


def diffusion_spectral_mutual_information(
    Z: ArrayLike, labels: ArrayLike, *, sigma: float | None = None, t: float = 1, repetitions: int = 5, seed: int = 0
) -> float:
    """Diffusion spectral mutual information (DSMI) of an embedding and labels, in bits.

    The sum over classes c of p(c) times the difference between the diffusion spectral entropy of random points, as
    many as the class has, and that of the class. It is not Shannon's: it depends on the number of points in a class
    and on the number of classes, so compare only what was measured on the same labels.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    labels : [n] or [n, 1]
        The class of each sample; for the information about inputs, their clusters from `cluster_inputs`.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets. Each class starts afresh from it; global random states are neither read nor set.

    Returns
    -------
    float
        Bits; slightly negative values are possible, for the subsets are random.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, there is not one label for each row, the labels are continuous or make
        fewer than two classes, or a setting is out of range.

    References
    ----------
    Liao et al., arXiv 2312.04823.
    """
    Z = as_embedding(Z)
    classes = as_classes(labels, len(Z))
    sigma, t = as_sigma(sigma, Z.shape[1]), as_time(t)
    entropy_of = spectral_entropies(gaussian_kernel(squared_distances(Z), sigma), t)
    return mutual_information(classes, entropy_of, random_subset_entropies(entropy_of, len(Z), repetitions, seed))


def shannon_mutual_information(
    Z: ArrayLike, labels: ArrayLike, *, bins: int = 2, repetitions: int = 5, seed: int = 0
) -> float:
    """Mutual information (CSMI) of an embedding and labels, in bits, from the classic entropy in bins.

    As `diffusion_spectral_mutual_information`, with `shannon_entropy` in place of the diffusion spectral entropy.
    Each subset is binned between its own smallest and largest values.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    labels : [n] or [n, 1]
        The class of each sample.
    bins : int
        Bins for each dimension.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    ValueError
        As `diffusion_spectral_mutual_information`.

    References
    ----------
    The baseline of Liao et al., arXiv 2312.04823.
    """
    Z = as_embedding(Z)
    classes = as_classes(labels, len(Z))
    entropy_of = binned_entropies(Z, as_count(bins, "bins"))
    return mutual_information(classes, entropy_of, random_subset_entropies(entropy_of, len(Z), repetitions, seed))


def cluster_inputs(X: ArrayLike, n_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Cluster the inputs, so that their information in an embedding can be measured as that of labels.

    Vectors are clustered spectrally, on the graph of their nearest neighbours; a single column is cut into bins of
    equal width between its smallest and largest value, of which some may be empty.

    Parameters
    ----------
    X : real [n, p] or [n]
        The inputs, one row a sample; flatten images first.
    n_clusters : int
        Number of clusters, at most the number of different inputs (for a single column: of bins, any number).
    seed : int
        Seed of the spectral decomposition's start.

    Returns
    -------
    int64 [n]
        Clusters, from 0 to n_clusters - 1.

    Raises
    ------
    ValueError
        If X is not a finite numeric matrix, all inputs are the same, or there are fewer different inputs than clusters.

    References
    ----------
    Liao et al., arXiv 2312.04823; Damle et al., "Simple, direct and efficient multi-way spectral
    clustering", 2019 (cluster_qr).
    """
    array = as_array(X, "X")
    X = as_embedding(array[:, None] if array.ndim == 1 else array, "X")
    n_clusters, seed = as_count(n_clusters, "n_clusters"), as_seed(seed)
    if n_clusters == 1:
        return np.zeros(len(X), dtype=np.int64)
    low, high = X.min(axis=0), X.max(axis=0)
    if (low == high).all():
        raise ValueError(f"all {len(X)} inputs are the same, so there is nothing to cluster; pass different inputs")
    if X.shape[1] == 1:
        edges = np.linspace(0, 1, n_clusters + 1)[:-1]
        return np.digitize((X[:, 0] - low) / (high - low), edges).astype(np.int64) - 1
    alike = _equal_rows(X)
    different = int(alike.max()) + 1
    if different < n_clusters:
        raise ValueError(
            f"{different} different inputs cannot make {n_clusters} clusters; set n_clusters to {different} at most"
        )
    if different == n_clusters:
        return alike
    return _spectral_clusters(X, n_clusters, seed)


def _equal_rows(X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the distinct rows of [n, p] by their first appearance, int64 [n]; hashing beats sorting long rows."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault((row + 0.0).tobytes(), len(numbers)) for row in X], dtype=np.int64)  # -0.0 is 0


def _spectral_clusters(X: NDArray[np.float64], n_clusters: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import SpectralClustering  # imported here: it takes a second

    clustering = SpectralClustering(
        n_clusters,
        affinity="nearest_neighbors",
        n_neighbors=min(_NEIGHBOURS, len(X)),
        assign_labels="cluster_qr",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph in several pieces is what well separated inputs give
        return clustering.fit(X).labels_.astype(np.int64)


def spectral_entropies(kernel: NDArray[np.float64], t: float) -> EntropyOf:
    """Return the function that gives the diffusion spectral entropy of any subset, from the kernel [n, n] of all."""
    return lambda indices: spectrum_entropy(diffusion_eigenvalues(kernel, indices), t)


def binned_entropies(Z: NDArray[np.float64], bins: int) -> EntropyOf:
    """Return the function that gives the classic entropy of any subset of the embedding [n, d]."""
    return lambda indices: binned_entropy(Z[indices], bins)


def random_subset_entropies(entropy_of: EntropyOf, n: int, repetitions: int, seed: int) -> Callable[[int], float]:
    """Return the function that gives the mean entropy, in bits, of random subsets of k of the n points.

    Every call draws from a fresh generator, so the subsets depend on k only: classes of one size share theirs, and
    the values are kept, which makes the null and a second labelling of the same points cheap.
    """
    repetitions, seed = as_count(repetitions, "repetitions"), as_seed(seed)

    @cache
    def mean_entropy(k: int) -> float:
        generator = random.Random(seed)
        subsets = [np.array(generator.sample(range(n), k)) for _ in range(repetitions)]
        return float(np.mean([entropy_of(subset) for subset in subsets]))

    return mean_entropy


def mutual_information(
    classes: NDArray[np.int64], entropy_of: EntropyOf, random_entropy: Callable[[int], float]
) -> float:
    """Sum over classes of p(c) (entropy of random points, as many as the class has, minus entropy of the class).

    Parameters
    ----------
    classes : int64 [n]
        Classes, numbered from 0.
    entropy_of : callable
        Entropy of the points with given indices, in bits.
    random_entropy : callable
        Mean entropy of random subsets of a given size, in bits.

    Returns
    -------
    float
        Bits. The sum is exact before its last rounding, so that the order of the classes does not matter.
    """
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
    return math.fsum(len(m) / len(classes) * (random_entropy(len(m)) - entropy_of(m)) for m in members)
