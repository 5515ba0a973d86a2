"""CLID: whether the clusters of an embedding are easy to learn, and how many dimensions it fills."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cosine import directions
from .decomposition import scaled
from .dimension import FEWEST_POINTS, two_nn_dimension_of_squares
from .inputs import as_embedding, as_seed
from .spectrum import squared_distances
from .undefined import UndefinedScore

DIGITS = 9  # to which equal directions agree


def clid(Z: ArrayLike, *, seed: int = 0) -> float:
    """CLID: cluster learnability times intrinsic dimension.

    Learnability is the share of right guesses when the points come one after the other, in random order, and each is
    taken to be of the cluster of the nearest before it. The clusters are those of k-means, the square root of the
    number of points many; distances are those of the points' directions, that is by the cosine. The dimension is
    ``two_nn_dimension``. The authors add the two after each has been standardised over the models that are compared,
    which one model by itself does not have: the product needs no such units, for a ranking by it is one by
    ln learnability + ln dimension, whichever models are there.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row an image: crops of one image are neighbours, and would be learnt from each other.
    seed : int
        Seed of k-means and of the order.

    Returns
    -------
    float
        A plain number above 0. Of equal rows one is kept.

    Raises
    ------
    UndefinedScore
        For fewer than 10 different points, a row of zeros, or fewer different directions than clusters.
    ValueError
        As the other measures.

    References
    ----------
    Lu et al., Using representation expressiveness and learnability to evaluate self-supervised learning methods, TMLR
    2023 (arXiv 2206.01251); Facco et al., Scientific Reports 7 (2017).
    """
    values = scaled(as_embedding(Z))[0]
    return clid_of_images(values, two_nn_dimension_of_squares(squared_distances(values)), as_seed(seed))


def clid_of_images(values: NDArray[np.float64], dimension: float, seed: int) -> float:
    """``clid`` from the rows of the images [m, d], scaled so that no square overflows, and their TwoNN dimension."""
    return float(learnt_points(values, seed).mean()) * dimension


def learnt_points(values: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    """Whether the cluster of each different point but the first was guessed right, bool [m - 1], in random order."""
    from sklearn.cluster import KMeans  # imported here: it takes a second

    _, first = np.unique(values, axis=0, return_index=True)
    if len(first) < FEWEST_POINTS:
        raise UndefinedScore(f"{len(first)} different points, fewer than {FEWEST_POINTS}")
    unit = directions(values[np.sort(first)])
    clusters = int(np.sqrt(len(unit)))
    different = len(np.unique(unit.round(DIGITS), axis=0))
    if different < clusters:
        raise UndefinedScore(f"{different} different directions, fewer than {clusters} clusters")
    found = KMeans(clusters, n_init=1, random_state=seed).fit_predict(unit)
    order = np.random.default_rng(seed).permutation(len(unit))
    found, unit = found[order], unit[order]
    squares = squared_distances(unit)
    squares[np.triu_indices(len(unit))] = np.inf  # what comes later is not known yet
    nearest = squares[1:].argmin(axis=1)
    guessed: NDArray[np.bool_] = found[nearest] == found[1:]
    return guessed
