"""How many dimensions an embedding fills: by its covariance's eigenvalues, and by the distances of its points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, beside, block_of, namespace, set_diagonal, to_host
from ..core.checks import UndefinedScore, as_embedding, as_seed
from ..core.decomposition import centred, decomposed, scaled
from ..core.distances import squared_distances

FIRST_EIGENVALUE, LAST_EIGENVALUE = 11, 100
LEFT_TAIL = 10  # eigenvalues before the last, whose fall is that of the sample's size
FEWEST_EIGENVALUES = 10

TWO_NN_DISCARDED = 0.1  # share of the points, those of the greatest ratios
FEWEST_POINTS = 10
ALIKE = 1e-12  # squared distances below, in units of their mean, are rounding

MST_SHARES = np.linspace(0.25, 1, 5)
MST_SUBSETS = 3  # of each size


def alpha_req(Z: ArrayLike) -> float:
    """The exponent of the power law that the covariance's eigenvalues follow, l_i ~ i^-alpha.

    Least squares of ln l_i on ln i with the weight 1 / i, over the 11th to the 100th eigenvalue, or up to ten before
    the last one if there are fewer.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.

    Returns
    -------
    float
        A plain number. Good embeddings were found near 1; far below, they are rough, far above, low-dimensional.

    Raises
    ------
    UndefinedScore
        For fewer than 30 eigenvalues above rounding.
    ValueError
        As the other measures.

    References
    ----------
    Agrawal et al., alpha-ReQ, NeurIPS 2022; the fit is that of Stringer et al., Nature 571 (2019).
    """
    return alpha_req_of_squares(decomposed(centred(as_embedding(Z))[0]).squares)


def participation_ratio(Z: ArrayLike) -> float:
    """The participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.

    Returns
    -------
    float
        1 (all variance in one direction) to min(n - 1, d) (equally much in each).

    Raises
    ------
    UndefinedScore
        For a constant embedding.
    ValueError
        As the other measures.

    References
    ----------
    Gao et al., A theory of multineuronal dimensionality, dynamics and measurement (2017).
    """
    return participation_ratio_of_squares(decomposed(centred(as_embedding(Z))[0]).squares)


def two_nn_dimension(Z: ArrayLike) -> float:
    """The intrinsic dimension by each point's two nearest neighbours (TwoNN).

    The ratio of their distances, r = r2 / r1, has the distribution F = 1 - r^-d: d is the slope of -ln(1 - F) on ln r,
    a line through the origin, without the tenth of the points whose ratios are greatest.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per image: crops of one image are neighbours, and what they fill is not what images fill.

    Returns
    -------
    float
        A plain number above 0. Of equal rows one is kept.

    Raises
    ------
    UndefinedScore
        For fewer than 10 different points.
    ValueError
        As the other measures.

    References
    ----------
    Facco et al., Estimating the intrinsic dimension of datasets by a minimal neighborhood information, Scientific
    Reports 7 (2017).
    """
    return two_nn_dimension_of_squares(of_different(squared_distances(scaled(as_embedding(Z))[0])))


def mst_dimension(Z: ArrayLike, *, seed: int = 0) -> float:
    """The intrinsic dimension by how the minimal spanning tree grows with the number of points.

    The tree of n points of a d-dimensional set has a length of about n^((d - 1) / d). The exponent m is the slope of
    ln length on ln n over random subsets of a quarter to all of the points, three of each of five sizes;
    d = 1 / (1 - m).

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per image.
    seed : int
        Seed of the subsets.

    Returns
    -------
    float
        A plain number above 0. Of equal rows one is kept.

    Raises
    ------
    UndefinedScore
        For fewer than 40 different points, or a tree that grows as fast as the number of points or faster.
    ValueError
        As the other measures.

    References
    ----------
    Steele, Annals of Probability 16 (1988), for the growth; Costa and Hero, IEEE Transactions on Signal Processing 52
    (2004), for the estimate; Birdal et al., NeurIPS 2021, who write it as a persistent-homology dimension.
    """
    return mst_dimension_of_squares(
        of_different(squared_distances(scaled(as_embedding(Z))[0])), as_seed(seed)
    )


def alpha_req_of_squares(squares: Array) -> float:
    """``alpha_req`` from the squared singular values above rounding of the centred embedding, ascending, [r]."""
    last = min(LAST_EIGENVALUE, squares.shape[0] - LEFT_TAIL)
    if last - FIRST_EIGENVALUE + 1 < FEWEST_EIGENVALUES:
        fewest = FIRST_EIGENVALUE - 1 + FEWEST_EIGENVALUES + LEFT_TAIL
        raise UndefinedScore(
            f"the covariance has {squares.shape[0]} eigenvalues above rounding, fewer than {fewest}"
        )
    place = np.arange(FIRST_EIGENVALUE, last + 1)
    eigenvalues = to_host(squares)[::-1][place - 1]
    # polyfit's weights are those of the residuals, not of their squares.
    weights = np.sqrt(1 / place)
    slope, _ = np.polyfit(np.log(place), np.log(eigenvalues), 1, w=weights)
    return float(-slope)


def participation_ratio_of_squares(squares: Array) -> float:
    """``participation_ratio`` from the squared singular values of the centred embedding, [r]."""
    if not squares.shape[0]:
        raise UndefinedScore("all rows are the same")
    xp = namespace(squares)
    return float(xp.sum(squares) ** 2 / xp.sum(squares * squares))


def two_nn_dimension_of_squares(squares: Array) -> float:
    """``two_nn_dimension`` from the squared distances [n, n] of all pairs of different points (`of_different`)."""
    _require(FEWEST_POINTS, squares)
    xp = namespace(squares)
    others = xp.asarray(squares, copy=True)
    set_diagonal(others, float("inf"))
    nearest = xp.min(others, axis=1)
    numbers = beside(np.arange(others.shape[0])[None, :], others)
    others[numbers == xp.argmin(others, axis=1)[:, None]] = float("inf")
    second = xp.min(others, axis=1)
    log_ratios = np.sort(np.log(to_host(second / nearest)) / 2)
    n = len(log_ratios)
    kept = int(n * (1 - TWO_NN_DISCARDED))
    x, y = log_ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    if not x.any():
        raise UndefinedScore("the two nearest neighbours of nearly all points are equally far")
    return float((x @ y) / (x @ x))


def mst_dimension_of_squares(squares: Array, seed: int) -> float:
    """``mst_dimension`` from the squared distances [n, n] of all pairs of different points (`of_different`)."""
    n = squares.shape[0]
    _require(4 * FEWEST_POINTS, squares)
    generator = np.random.default_rng(seed)
    sizes = [
        size
        for size in np.rint(MST_SHARES * n).astype(int)
        for _ in range(MST_SUBSETS if size < n else 1)
    ]
    members = np.zeros((len(sizes), n), dtype=bool)
    for subset, size in zip(members, sizes, strict=True):
        subset[generator.permutation(n)[:size]] = True
    lengths = _tree_lengths(namespace(squares).sqrt(squares), members[::-1])[::-1]
    exponent = np.polyfit(np.log(sizes), np.log(lengths), 1)[0]
    if exponent >= 1:
        raise UndefinedScore("the minimal spanning tree grows as fast as the number of points")
    return float(1 / (1 - exponent))


def _tree_lengths(distances: Array, members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Lengths of the minimal spanning trees of subsets of points, the largest subset first, float64 [subsets].

    By Prim's algorithm, each step of it for all subsets at once: a tree takes the nearest point that it has not.

    Parameters
    ----------
    distances : float64 [n, n]
    members : bool [subsets, n]
    """
    xp = namespace(distances)
    numbers = beside(np.arange(members.shape[1])[None, :], distances)
    sizes = members.sum(axis=1)
    outside = beside(members, distances)
    # The first member of each subset begins its tree.
    joining = beside(members.argmax(axis=1), distances)
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


def different_points(squares: Array) -> NDArray[np.int64]:
    """The points that differ from all before them, int64 [m], by the squared distances [n, n] of all."""
    xp = namespace(squares)
    alike = squares <= ALIKE * float(xp.mean(squares))
    first = to_host(xp.argmax(xp.astype(alike, xp.uint8), axis=1))
    return np.flatnonzero(first == np.arange(len(first)))


def of_different(squares: Array) -> Array:
    """The squared distances [m, m] of the points that differ from all before them, of those [n, n] of all points."""
    different = different_points(squares)
    return squares if len(different) == squares.shape[0] else block_of(squares, different)


def _require(fewest: int, squares: Array) -> None:
    if squares.shape[0] < fewest:
        raise UndefinedScore(f"{squares.shape[0]} different points, fewer than {fewest}")
