"""Dimensions of an embedding: from its covariance's eigenvalues, and from the distances of its points.

Distances are those of one row per image, because crops of one image are neighbours, and their dimension is not that of
the images. Equal rows count once.
"""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, namespace, set_diagonal, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import Points
from ..core.registry import score
from ..core.threads import computed_once

FIRST_EIGENVALUE, LAST_EIGENVALUE = 11, 100
LEFT_TAIL = 10  # eigenvalues before the last, whose decay is due to the sample's size
MIN_EIGENVALUES = 10

TWO_NN_DISCARDED = 0.1  # share of the points, those with the greatest ratios
MIN_POINTS = 10

MST_SHARES = np.linspace(0.25, 1, 5)
MST_SUBSETS = 3  # of each size
MST_MORE_SUBSETS = 30  # of each size, if three give an exponent of 1 or more


@score("alpha_req", task="decomposition")
def alpha_req(context: MeasureContext) -> float:
    """Return the exponent of the power law that the covariance's eigenvalues follow, l_i ~ i^-alpha.

    It is fitted by least squares of ln l_i on ln i with the weight 1 / i, over the 11th to the 100th eigenvalue, or up
    to ten before the last one if there are fewer. Good embeddings were found near 1; far below 1 they are rough, far
    above it low-dimensional. Undefined for fewer than 30 eigenvalues above rounding.

    References
    ----------
    Agrawal et al., alpha-ReQ, NeurIPS 2022; the fit is that of Stringer et al., Nature 571 (2019).
    """
    squares = to_host(context.decomposition.squares)
    last = min(LAST_EIGENVALUE, len(squares) - LEFT_TAIL)
    if last - FIRST_EIGENVALUE + 1 < MIN_EIGENVALUES:
        fewest = FIRST_EIGENVALUE - 1 + MIN_EIGENVALUES + LEFT_TAIL
        raise UndefinedScore(
            f"the covariance has {len(squares)} eigenvalues above rounding, fewer than {fewest}"
        )
    place = np.arange(FIRST_EIGENVALUE, last + 1)
    eigenvalues = squares[::-1][place - 1]
    # polyfit's weights are those of the residuals, not of their squares.
    weights = np.sqrt(1 / place)
    slope, _ = np.polyfit(np.log(place), np.log(eigenvalues), 1, w=weights)
    return float(-slope)


@score("participation_ratio", task="decomposition")
def participation_ratio(context: MeasureContext) -> float:
    """Return the participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2.

    1 (all variance in one direction) to min(n - 1, d) (the same in each); undefined for a constant embedding.

    References
    ----------
    Gao et al., A theory of multineuronal dimensionality, dynamics and measurement (2017).
    """
    context.decomposition.require_variance()
    squares = context.decomposition.squares
    xp = namespace(squares)
    return float(xp.sum(squares) ** 2 / xp.sum(squares * squares))


def _two_nn_error(context: MeasureContext) -> float:
    """Return the standard error of a maximum-likelihood estimate of the exponent from the same number of points."""
    return two_nn_dimension(context) / float(np.sqrt(len(context.different_image_points)))


@score("two_nn_dimension", task="distances", error=_two_nn_error)
@computed_once
def two_nn_dimension(context: MeasureContext) -> float:
    """Return the intrinsic dimension by each point's two nearest neighbours (TwoNN).

    The ratio of their distances, r = r2 / r1, has the distribution F = 1 - r^-d: d is the slope of -ln(1 - F) on ln r,
    a line through the origin, without the tenth of the points whose ratios are greatest. Undefined for fewer than 10
    different points.

    References
    ----------
    Facco et al., Estimating the intrinsic dimension of datasets by a minimal neighborhood information, Scientific
    Reports 7 (2017).
    """
    points = context.different_image_points
    require_points(points)
    xp = namespace(points.squares)
    others = xp.asarray(points.squares, copy=True)
    set_diagonal(others, float("inf"))
    nearest = xp.min(others, axis=1)
    numbers = as_array_like(np.arange(others.shape[0])[None, :], others)
    others[numbers == xp.argmin(others, axis=1)[:, None]] = float("inf")
    second = xp.min(others, axis=1)
    log_ratios = np.sort(np.log(to_host(second / nearest)) / 2)
    n = len(log_ratios)
    kept = int(n * (1 - TWO_NN_DISCARDED))
    x, y = log_ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    if not x.any():
        raise UndefinedScore("the two nearest neighbours of nearly all points are equally far")
    return float((x @ y) / (x @ x))


@score("mst_dimension", task="distances")
def mst_dimension(context: MeasureContext) -> float:
    """Return the intrinsic dimension by how the minimal spanning tree grows with the number of points.

    The tree of n points of a d-dimensional set has a length of about n^((d - 1) / d). The exponent m is the slope of
    ln length on ln n over random subsets of a quarter to all of the points, three of each of five sizes;
    d = 1 / (1 - m). In many dimensions m is near 1, and three subsets may put it above by chance; then 30 of each size
    are taken. Undefined for fewer than 40 different points, or an exponent of 1 or more with 30 subsets, too.

    References
    ----------
    Steele, Annals of Probability 16 (1988), for the growth; Costa and Hero, IEEE Transactions on Signal Processing 52
    (2004), for the estimate; Birdal et al., NeurIPS 2021, who write it as a persistent-homology dimension.
    """
    points = context.different_image_points
    require_points(points, 4 * MIN_POINTS)
    distances = namespace(points.squares).sqrt(points.squares)
    for subsets in (MST_SUBSETS, MST_MORE_SUBSETS):
        exponent = _tree_exponent(distances, subsets, context.settings.seed)
        if exponent < 1:
            return 1 / (1 - exponent)
    raise UndefinedScore("the minimal spanning tree grows as fast as the number of points")


def _tree_exponent(distances: Array, subsets: int, seed: int) -> float:
    """Return the slope of ln length on ln n of the trees of random subsets, ``subsets`` of each size."""
    n = distances.shape[0]
    generator = np.random.default_rng(seed)
    sizes: list[int] = []
    for size in np.rint(MST_SHARES * n).astype(int):
        sizes += [size] * (subsets if size < n else 1)
    members = np.zeros((len(sizes), n), dtype=bool)
    for subset, size in zip(members, sizes, strict=True):
        subset[generator.permutation(n)[:size]] = True
    lengths = _tree_lengths(distances, members[::-1])[::-1]
    return float(np.polyfit(np.log(sizes), np.log(lengths), 1)[0])


def _tree_lengths(distances: Array, members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the lengths of the minimal spanning trees of subsets of points, largest subset first, float64 [subsets].

    By Prim's algorithm, one step for all subsets at once: each tree takes the nearest point outside it.

    Parameters
    ----------
    distances : float64 [n, n]
    members : bool [subsets, n]
    """
    xp = namespace(distances)
    numbers = as_array_like(np.arange(members.shape[1])[None, :], distances)
    sizes = members.sum(axis=1)
    outside = as_array_like(members, distances)
    # Each tree starts at the first member of its subset.
    joining = as_array_like(members.argmax(axis=1), distances)
    from_tree = xp.take(distances, joining, axis=0)
    lengths = xp.zeros_like(from_tree[:, 0])
    for size_of_trees in range(1, sizes.max()):
        growing = int((sizes > size_of_trees).sum())
        outside = outside[:growing, :] & (numbers != joining[:growing, None])
        from_tree = from_tree[:growing, :]
        within_reach = xp.where(outside, from_tree, xp.inf)
        joining = xp.argmin(within_reach, axis=1)
        lengths[:growing] += xp.min(within_reach, axis=1)
        from_tree = xp.minimum(from_tree, xp.take(distances, joining, axis=0))
    return to_host(lengths)


def require_points(points: Points, fewest: int = MIN_POINTS) -> None:
    """Raise UndefinedScore for too few points."""
    if len(points) < fewest:
        raise UndefinedScore(f"{len(points)} different points, fewer than {fewest}")
