"""How many dimensions an embedding fills: by its covariance's eigenvalues, and by the distances of its points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decomposition import centred, decomposed, scaled
from .inputs import as_embedding, as_seed
from .spectrum import squared_distances
from .undefined import UndefinedScore

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
        The embedding, one row a sample.

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
        The embedding, one row a sample.

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
        The embedding, one row an image: crops of one image are neighbours, and what they fill is not what images fill.

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
    return two_nn_dimension_of_squares(squared_distances(scaled(as_embedding(Z))[0]))


def mst_dimension(Z: ArrayLike, *, seed: int = 0) -> float:
    """The intrinsic dimension by how the minimal spanning tree grows with the number of points.

    The tree of n points of a d-dimensional set has a length of about n^((d - 1) / d). The exponent m is the slope of
    ln length on ln n over random subsets of a quarter to all of the points, three of each of five sizes;
    d = 1 / (1 - m).

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row an image.
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
    return mst_dimension_of_squares(squared_distances(scaled(as_embedding(Z))[0]), as_seed(seed))


def alpha_req_of_squares(squares: NDArray[np.float64]) -> float:
    """``alpha_req`` from the squared singular values above rounding of the centred embedding, ascending, [r]."""
    last = min(LAST_EIGENVALUE, len(squares) - LEFT_TAIL)
    if last - FIRST_EIGENVALUE + 1 < FEWEST_EIGENVALUES:
        fewest = FIRST_EIGENVALUE - 1 + FEWEST_EIGENVALUES + LEFT_TAIL
        raise UndefinedScore(f"the covariance has {len(squares)} eigenvalues above rounding, fewer than {fewest}")
    place = np.arange(FIRST_EIGENVALUE, last + 1)
    eigenvalues = squares[::-1][place - 1]
    # polyfit's weights are those of the residuals, not of their squares.
    slope = np.polyfit(np.log(place), np.log(eigenvalues), 1, w=np.sqrt(1 / place))[0]
    return float(-slope)


def participation_ratio_of_squares(squares: NDArray[np.float64]) -> float:
    """``participation_ratio`` from the squared singular values of the centred embedding, [r]."""
    if not len(squares):
        raise UndefinedScore("all rows are the same")
    return float(squares.sum() ** 2 / (squares**2).sum())


def two_nn_dimension_of_squares(squares: NDArray[np.float64]) -> float:
    """``two_nn_dimension`` from the squared distances of all pairs, [n, n]."""
    squares = _of_different_points(squares, FEWEST_POINTS)
    others = squares + np.diag(np.full(len(squares), np.inf))
    nearest = np.partition(others, 1, axis=1)[:, :2]
    log_ratios = np.sort(np.log(nearest[:, 1] / nearest[:, 0]) / 2)
    n = len(log_ratios)
    kept = int(n * (1 - TWO_NN_DISCARDED))
    x, y = log_ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    if not x.any():
        raise UndefinedScore("the two nearest neighbours of nearly all points are equally far")
    return float((x @ y) / (x @ x))


def mst_dimension_of_squares(squares: NDArray[np.float64], seed: int) -> float:
    """``mst_dimension`` from the squared distances of all pairs, [n, n]."""
    distances = np.sqrt(_of_different_points(squares, 4 * FEWEST_POINTS))
    n = len(distances)
    generator = np.random.default_rng(seed)
    sizes, lengths = [], []
    for size in np.rint(MST_SHARES * n).astype(int):
        # There is but one subset of all points.
        for _ in range(MST_SUBSETS if size < n else 1):
            chosen = generator.permutation(n)[:size]
            sizes.append(size)
            lengths.append(_tree_length(distances[np.ix_(chosen, chosen)]))
    exponent = np.polyfit(np.log(sizes), np.log(lengths), 1)[0]
    if exponent >= 1:
        raise UndefinedScore("the minimal spanning tree grows as fast as the number of points")
    return float(1 / (1 - exponent))


def _tree_length(distances: NDArray[np.float64]) -> float:
    """Length of the minimal spanning tree: single linkage joins clusters along its edges."""
    from scipy.cluster.hierarchy import linkage  # imported here: it takes half a second
    from scipy.spatial.distance import squareform

    return float(linkage(squareform(distances, checks=False), "single")[:, 2].sum())


def _of_different_points(squares: NDArray[np.float64], fewest: int) -> NDArray[np.float64]:
    """The squared distances [m, m] of the points that differ from all before them."""
    alike = squares <= ALIKE * squares.mean()
    first = alike.argmax(axis=1)
    different = first == np.arange(len(squares))
    if different.sum() < fewest:
        raise UndefinedScore(f"{different.sum()} different points, fewer than {fewest}")
    return squares[np.ix_(different, different)]
