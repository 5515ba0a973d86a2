"""Self-challenging Fisher discriminant analysis: how well a linear classifier tells classes that are drawn together."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.sparse.linalg import eigsh
from scipy.special import log_softmax, softmax

from .decomposition import group_sums
from .inputs import as_classes, as_embedding
from .undefined import UndefinedScore

STRENGTH = 5.0
LEAST_SHRINKAGE = 1e-10


def sfda(Z: ArrayLike, labels: ArrayLike) -> float:
    """SFDA: the mean probability that Fisher's discriminant gives to the true class of samples made hard to tell.

    The discriminant takes the covariance W within classes, shrunk towards its mean variance by
    max(exp(-5 l), 1e-10), l its largest eigenvalue. Its probabilities, once more through a softmax, say how sure it is
    of a sample, p; the sample then moves to p x + (1 - p) m, m the mean of the other classes' means, and the
    discriminant is fitted again, with the same shrinkage.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample; fewer samples than dimensions will do.
    labels : [n] or [n, 1]
        The class of each sample.

    Returns
    -------
    float
        Above 0, at most 1. It depends on the embedding's scale, by the shrinkage.

    Raises
    ------
    UndefinedScore
        If the rows of each class are all the same.
    ValueError
        As the other measures.

    References
    ----------
    Shao et al., Not all models are equal: predicting model transferability in a self-challenging Fisher space,
    ECCV 2022 (arXiv 2207.03036), and the authors' code, whose scores are those of this discriminant.
    """
    embedding = as_embedding(Z)
    return sfda_of_values(embedding, as_classes(labels, len(embedding)))


def sfda_of_values(values: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """``sfda`` of a validated embedding [n, d] and its classes [n]."""
    values = values - values.mean(axis=0)
    shrinkage = _shrinkage(_within(values, classes))
    sure = softmax(np.exp(_log_probabilities(values, classes, shrinkage)), axis=1)
    own = sure[np.arange(len(values)), classes][:, None]
    means = _means(values, classes)
    of_others = (means.sum(axis=0) - means) / (len(means) - 1)
    harder = own * values + (1 - own) * of_others[classes]
    log_probabilities = _log_probabilities(harder, classes, shrinkage)
    return float(np.exp(log_probabilities[np.arange(len(values)), classes]).mean())


def _log_probabilities(
    values: NDArray[np.float64], classes: NDArray[np.int64], shrinkage: float
) -> NDArray[np.float64]:
    """The log of each class's probability by Fisher's discriminant, float64 [n, classes]."""
    means, within = _means(values, classes), _within(values, classes)
    shrunk = (1 - shrinkage) * within
    shrunk[np.diag_indices_from(shrunk)] += shrinkage * np.trace(within) / len(within)
    weights = solve(shrunk, means.T, assume_a="pos")
    priors = np.bincount(classes) / len(classes)
    offsets = np.log(priors) - np.einsum("cd,dc->c", means, weights) / 2
    return np.asarray(log_softmax(values @ weights + offsets, axis=1))


def _shrinkage(within: NDArray[np.float64]) -> float:
    if not np.trace(within) > 0:
        raise UndefinedScore("the rows of each class are all the same")
    if len(within) == 1:
        largest = float(within[0, 0])
    else:
        largest = float(eigsh(within, k=1, v0=np.ones(len(within)), return_eigenvectors=False)[0])
    return max(float(np.exp(-STRENGTH * largest)), LEAST_SHRINKAGE)


def _within(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The covariance within classes, float64 [d, d]."""
    residuals = values - _means(values, classes)[classes]
    return np.asarray(residuals.T @ residuals / len(values))


def _means(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    return group_sums(values, classes) / np.bincount(classes)[:, None]
