"""SFDA: how well Fisher's discriminant tells the classes apart after it has been given a harder task."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from .decomposition import Decomposition, centred, decomposed, group_sums
from .inputs import as_classes, as_embedding
from .undefined import UndefinedScore

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
        The embedding, one row a sample.
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
    if not len(decomposition.squares):
        raise UndefinedScore("all rows are the same")
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no scatter")
    points = decomposition.vectors * np.sqrt(decomposition.squares)
    samples = np.arange(len(points))
    scatter = _within_scatter(points, classes, sizes)
    with np.errstate(over="ignore"):  # a large scatter is not shrunk
        largest = np.ldexp(scatter[0][-1], 2 * exponent)
    shrinkage = max(float(np.exp(-DECAY * largest)), LEAST_SHRINKAGE)
    confidence = softmax(_probabilities(points, classes, sizes, scatter, shrinkage, d), axis=1)[samples, classes, None]
    means = group_sums(points, classes) / sizes[:, None]
    means_of_others = (means.sum(axis=0) - means) / (len(sizes) - 1)
    mixed = confidence * points + (1 - confidence) * means_of_others[classes]
    second_scatter = _within_scatter(mixed, classes, sizes)
    return _probabilities(mixed, classes, sizes, second_scatter, shrinkage, d)[samples, classes]


def _within_scatter(
    points: NDArray[np.float64], classes: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [r], ascending, and eigenvectors [r, r] of the covariance within classes."""
    within = points - (group_sums(points, classes) / sizes[:, None])[classes]
    eigenvalues, vectors = np.linalg.eigh(within.T @ within / len(points))
    if eigenvalues.sum() <= ROUNDING * (points**2).sum() / len(points):
        raise UndefinedScore("the samples of each class are all the same")
    return np.maximum(eigenvalues, 0), vectors


def _probabilities(
    points: NDArray[np.float64],
    classes: NDArray[np.int64],
    sizes: NDArray[np.int64],
    scatter: tuple[NDArray[np.float64], NDArray[np.float64]],
    shrinkage: float,
    d: int,
) -> NDArray[np.float64]:
    """The probability of each class for each point by linear discriminant analysis, float64 [n, classes]."""
    eigenvalues, vectors = scatter
    shrunk = (1 - shrinkage) * eigenvalues + shrinkage * eigenvalues.sum() / d
    white = points @ (vectors / np.sqrt(shrunk))
    means = group_sums(white, classes) / sizes[:, None]
    scores = white @ means.T - (means**2).sum(axis=1) / 2 + np.log(sizes / len(points))
    probabilities: NDArray[np.float64] = softmax(scores, axis=1)
    return probabilities
