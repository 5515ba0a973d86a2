"""SFDA: how well Fisher's discriminant tells the classes apart after it has been given a harder task."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import (
    Array,
    beside,
    group_means,
    largest_eigenvalue,
    namespace,
    rows_of,
    to_host,
)
from ..core.checks import UndefinedScore, as_classes, as_embedding
from ..core.decomposition import Decomposition, centred, decomposed

DECAY = 5  # of the shrinkage with the largest eigenvalue of the scatter
LEAST_SHRINKAGE = 1e-10
ROUNDING = 1e-12  # of the variance


def sfda(Z: ArrayLike, labels: ArrayLike) -> float:
    """SFDA, self-challenging Fisher discriminant analysis: the mean probability of the right class.

    A linear discriminant gives each sample x of class c its probabilities p; x is then moved towards the mean of the
    other classes' means, to q x + (1 - q) m, where q is the entry of c in softmax(p); a second discriminant is fitted
    to what results, and the mean of the right classes' probabilities by it is the score. The scatter within classes S
    (divided by n) is shrunk to (1 - s) S + s tr(S) / d, where s = exp(-5 l), but at least 1e-10, with the largest
    eigenvalue l of the first S. So the score depends on the embedding's scale, as the authors' does; they come to l
    by three rounds of power iteration, and it is exact here. They leave out the logarithm of LEEP too.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    UndefinedScore
        If a class has a single sample, or no class has different samples.
    ValueError
        As the other measures.

    References
    ----------
    Shao et al., Not all models are equal: predicting model transferability in a self-challenging Fisher space,
    ECCV 2022 (arXiv 2207.03036), and the authors' code, TencentARC/SFDA.
    """
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    values, exponent = centred(embedding)
    decomposition = decomposed(values)
    return float(sfda_probabilities(decomposition, embedding.shape[1], classes, exponent).mean())


def sfda_probabilities(
    decomposition: Decomposition, d: int, classes: NDArray[np.int64], exponent: int
) -> NDArray[np.float64]:
    """The probability of each sample's class, float64 [n], whose mean is ``sfda``.

    From the decomposition of the centred embedding, which has been divided by 2 to the power of ``exponent``. All
    happens in the span of its rows: outside, the shrunk scatter treats all directions alike.
    """
    sizes = np.bincount(classes)
    if not decomposition.squares.shape[0]:
        raise UndefinedScore("all rows are the same")
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no scatter")
    points = decomposition.components
    scatter = _within_scatter(points, classes)
    shrinkage = _shrinkage(scatter, exponent)
    samples = np.arange(len(classes))
    confidence = _softmax(_probabilities(points, classes, scatter, shrinkage, d))[
        samples, classes, None
    ]
    means = group_means(points, classes)
    means_of_others = (namespace(means).sum(means, axis=0) - means) / (len(sizes) - 1)
    mixed = beside(confidence, points) * points + beside(1 - confidence, points) * rows_of(
        means_of_others, classes
    )
    return _probabilities(mixed, classes, _within_scatter(mixed, classes), shrinkage, d)[
        samples, classes
    ]


def _within_scatter(points: Array, classes: NDArray[np.int64]) -> Array:
    """The covariance [r, r] within classes."""
    xp = namespace(points)
    within = points - rows_of(group_means(points, classes), classes)
    scatter = within.T @ within / points.shape[0]
    if (
        float(xp.linalg.trace(scatter))
        <= ROUNDING * float(xp.sum(xp.vecdot(points, points))) / points.shape[0]
    ):
        raise UndefinedScore("the samples of each class are all the same")
    return scatter


def _shrinkage(scatter: Array, exponent: int) -> float:
    """exp(-5 l), at least 1e-10, with the largest eigenvalue l of the scatter times 4^exponent."""
    xp = namespace(scatter)

    def shrinkage(eigenvalue: float) -> float:
        with np.errstate(over="ignore"):  # a large scatter is not shrunk
            return max(float(np.exp(-DECAY * np.ldexp(eigenvalue, 2 * exponent))), LEAST_SHRINKAGE)

    # No entry of the diagonal is above l: one that is large enough saves looking for it.
    at_most = shrinkage(float(xp.max(xp.linalg.diagonal(scatter))))
    return at_most if at_most == LEAST_SHRINKAGE else shrinkage(largest_eigenvalue(scatter))


def _probabilities(
    points: Array, classes: NDArray[np.int64], scatter: Array, shrinkage: float, d: int
) -> NDArray[np.float64]:
    """The probability of each class for each point by linear discriminant analysis, float64 [n, classes]."""
    xp, sizes = namespace(points), np.bincount(classes)
    shrunk = (1 - shrinkage) * scatter
    shrunk += shrinkage * xp.linalg.trace(scatter) / d * beside(np.eye(scatter.shape[0]), scatter)
    means = group_means(points, classes)
    directions = xp.linalg.solve(shrunk, means.T)  # [r, classes]
    priors = beside(np.log(sizes / len(classes)), points)
    scores = points @ directions - xp.vecdot(means, directions.T) / 2 + priors
    return _softmax(to_host(scores))


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import softmax  # imported here: it takes a fifth of a second

    probabilities: NDArray[np.float64] = softmax(scores, axis=1)
    return probabilities
