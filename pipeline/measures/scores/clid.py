"""CLID: the learnability of an embedding's clusters times its intrinsic dimension."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, namespace, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import Points, direction_points
from ..core.registry import score
from .dimension import require_points, two_nn_dimension


@score("clid", task="distances")
def clid(context: MeasureContext) -> float:
    """Return cluster learnability times intrinsic dimension.

    Learnability is the share of right guesses when the points arrive in random order, and the guess for each is the
    cluster of the nearest earlier point. Clusters are those of k-means, as many as the square root of the number of
    points; distances are those of the points' directions, that is by cosine. The dimension is ``two_nn_dimension``. The
    authors add the two after standardising each over the compared models. A single model cannot be standardised, and
    the product need not be: it ranks models as ln learnability + ln dimension does, whichever models are compared.

    Only one row per image is used, because crops of one image would be learnt from each other; equal rows count once.
    Undefined for fewer than 10 different points, a row of zeros, or fewer different directions than clusters.

    References
    ----------
    Lu et al., Using representation expressiveness and learnability to evaluate self-supervised learning methods, TMLR
    2023 (arXiv 2206.01251); Facco et al., Scientific Reports 7 (2017).
    """
    points = context.different_image_points
    is_all = points is context.points_in_range
    directions = context.direction_points if is_all else direction_points(points)
    dimension = two_nn_dimension(context)
    return float(_guessed(directions, context.settings.seed).mean()) * dimension


def _guessed(directions: Points, seed: int) -> NDArray[np.bool_]:
    """Return whether the cluster of each point except the first is guessed right, bool [m - 1], in random order."""
    from sklearn.cluster import KMeans  # imported here: it takes a second

    count = len(directions)
    require_points(directions)
    clusters = int(np.sqrt(count))
    different = len(directions.different())
    if different < clusters:
        raise UndefinedScore(f"{different} different directions, fewer than {clusters} clusters")
    k_means = KMeans(clusters, n_init=1, random_state=seed)
    cluster_of = k_means.fit_predict(to_host(directions.values))
    order = np.random.default_rng(seed).permutation(count)
    nearest = _nearest_before(directions.squares, order)
    guessed: NDArray[np.bool_] = (cluster_of[nearest] == cluster_of)[order[1:]]
    return guessed


def _nearest_before(squares: Array, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each point the nearest of those before it in an order, int64 [m]; meaningless for the first."""
    place = np.argsort(order)
    comes_later = as_array_like(place[None, :] >= place[:, None], squares)
    xp = namespace(squares)
    return to_host(xp.argmin(xp.where(comes_later, xp.inf, squares), axis=1))
