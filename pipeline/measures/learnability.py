"""Cluster learnability and intrinsic dimension (CLID): how well an embedding's own clusters can be learnt."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decomposition import scaled
from .dimension import two_nn_dimension_of_squares
from .inputs import as_embedding, as_seed
from .spectrum import squared_distances
from .undefined import UndefinedScore

FEWEST_IMAGES = 16


def clid(Z: ArrayLike, *, seed: int = 0) -> float:
    """CLID: cluster learnability times intrinsic dimension; no labels.

    K-means cuts the n images into about sqrt(n) clusters. The images then come one after the other, in random order,
    and each cluster is predicted by the nearest image before: the share of right predictions is the learnability. The
    dimension is ``two_nn_dimension``. The paper adds the two after standardising each over the models compared; one
    row knows no other model, and a product needs no units.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row an image.
    seed : int
        Seed of the clusters' start and of the order.

    Returns
    -------
    float
        A plain number; neither scale nor offset matters.

    Raises
    ------
    UndefinedScore
        For fewer than 16 images, or as ``two_nn_dimension``.
    ValueError
        As the other measures.

    References
    ----------
    Lu et al., Using representation expressiveness and learnability to evaluate self-supervised learning methods, TMLR
    2023 (arXiv 2206.01251); scikit-learn's ``KMeans``.
    """
    values = scaled(as_embedding(Z))[0]
    return clid_of_images(values, squared_distances(values), as_seed(seed))


def clid_of_images(values: NDArray[np.float64], squares: NDArray[np.float64], seed: int) -> float:
    """``clid`` from images [n, d] and the squared distances of all pairs [n, n]."""
    dimension = two_nn_dimension_of_squares(squares)
    return learnability(values, squares, seed) * dimension


def learnability(values: NDArray[np.float64], squares: NDArray[np.float64], seed: int) -> float:
    """The share of images whose cluster is that of the nearest image before them in a random order, 0 to 1."""
    n = len(values)
    if n < FEWEST_IMAGES:
        raise UndefinedScore(f"{n} images, fewer than {FEWEST_IMAGES}")
    order = np.random.default_rng(seed).permutation(n)
    clusters = _clusters(values, round(np.sqrt(n)), seed)[order]
    earlier = np.tri(n, k=-1, dtype=bool)
    nearest = np.where(earlier, squares[np.ix_(order, order)], np.inf).argmin(axis=1)
    return float((clusters[nearest[1:]] == clusters[1:]).mean())


def _clusters(values: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different images than clusters
        found: NDArray[np.int64] = KMeans(count, n_init=1, random_state=seed).fit_predict(values).astype(np.int64)
    return found
