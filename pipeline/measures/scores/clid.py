"""CLID: whether the clusters of an embedding are easy to learn, and how many dimensions it fills."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, beside, namespace, to_host
from ..core.checks import UndefinedScore, as_embedding, as_seed
from ..core.decomposition import scaled
from ..core.directions import direction_points
from ..core.points import Points
from .dimension import FEWEST_POINTS, different_points, two_nn_dimension_of_squares


def clid(Z: ArrayLike, *, seed: int = 0) -> float:
    """CLID: cluster learnability times intrinsic dimension.

    Learnability is the share of right guesses when the points come one after the other, in random order, and each is
    taken to be of the cluster of the nearest before it. The clusters are those of k-means, the square root of the
    number of points many; distances are those of the points' directions, that is by the cosine. The dimension is
    ``two_nn_dimension``. The authors add the two after each has been standardised over the models that are compared,
    which one model by itself does not have: the product needs no such units, because a ranking by it is one by
    ln learnability + ln dimension, whichever models are there.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per image: crops of one image are neighbours, and would be learnt from each other.
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
    points = Points(scaled(as_embedding(Z))[0])
    different = points.part(different_points(points.squares))
    dimension = two_nn_dimension_of_squares(different.squares)
    return clid_of_directions(direction_points(different), dimension, as_seed(seed))


def clid_of_directions(directions: Points, dimension: float, seed: int) -> float:
    """``clid`` from the directions of the different points, and the TwoNN dimension of these."""
    return float(learnt_points(directions, seed).mean()) * dimension


def learnt_points(directions: Points, seed: int) -> NDArray[np.bool_]:
    """Whether the cluster of each point but the first was guessed right, bool [m - 1], in random order."""
    from sklearn.cluster import KMeans  # imported here: it takes a second

    count = len(directions)
    if count < FEWEST_POINTS:
        raise UndefinedScore(f"{count} different points, fewer than {FEWEST_POINTS}")
    clusters = int(np.sqrt(count))
    different = len(different_points(directions.squares))
    if different < clusters:
        raise UndefinedScore(f"{different} different directions, fewer than {clusters} clusters")
    cluster_of = KMeans(clusters, n_init=1, random_state=seed).fit_predict(
        to_host(directions.values)
    )
    order = np.random.default_rng(seed).permutation(count)
    nearest = _nearest_before(directions.squares, order)
    guessed: NDArray[np.bool_] = (cluster_of[nearest] == cluster_of)[order[1:]]
    return guessed


def _nearest_before(squares: Array, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each point the nearest of those before it in an order, int64 [m], from the squared distances [m, m].

    Of the first one it says nothing.
    """
    place = np.argsort(order)
    comes_later = beside(place[None, :] >= place[:, None], squares)
    xp = namespace(squares)
    return to_host(xp.argmin(xp.where(comes_later, xp.inf, squares), axis=1))
