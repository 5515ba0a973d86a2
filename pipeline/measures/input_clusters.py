"""Clusters of the input images, in place of classes."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core.checks import as_array, as_count, as_embedding_on_host, as_seed

_NEIGHBOURS = 10  # scikit-learn's default, which the paper's clusters of inputs were made with


def cluster_inputs(X: ArrayLike, n_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Cluster the inputs, so that their information in an embedding can be measured like that of labels.

    Vectors are clustered spectrally, on the graph of their nearest neighbours; a single column is cut into bins of
    equal width between its smallest and largest value, some of which may be empty.

    Parameters
    ----------
    X : real [n, p] or [n]
        The inputs, one row per sample; flatten images first.
    n_clusters : int
        Number of clusters, at most the number of different inputs (for a single column, any number of bins).
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
    X = as_embedding_on_host(array[:, None] if array.ndim == 1 else array, "X")
    n_clusters, seed = as_count(n_clusters, "n_clusters"), as_seed(seed)
    if n_clusters == 1:
        return np.zeros(len(X), dtype=np.int64)
    low, high = X.min(axis=0), X.max(axis=0)
    if (low == high).all():
        raise ValueError(
            f"all {len(X)} inputs are the same, so there is nothing to cluster; pass different inputs"
        )
    if X.shape[1] == 1:
        edges = np.linspace(0, 1, n_clusters + 1)[:-1]
        between_0_and_1 = (X[:, 0] - low) / (high - low)
        return np.digitize(between_0_and_1, edges).astype(np.int64) - 1
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
    # -0.0 is 0.
    return np.array(
        [numbers.setdefault((row + 0.0).tobytes(), len(numbers)) for row in X], dtype=np.int64
    )


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
        # A warning of a graph in several pieces, which well separated inputs give.
        warnings.simplefilter("ignore")
        return clustering.fit(X).labels_.astype(np.int64)
