"""SFDA: how well Fisher's discriminant separates the classes once the task has been made harder."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import (
    Array,
    as_array_like,
    group_means,
    largest_eigenvalue,
    namespace,
    rows_of,
    to_host,
)
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.hits import error_of_share
from ..core.registry import score
from ..core.threads import computed_once

DECAY = 5  # of the shrinkage with the largest eigenvalue of the scatter
LEAST_SHRINKAGE = 1e-10
ROUNDING = 1e-12  # of the variance


def _error(context: MeasureContext) -> float:
    """Return the standard error of the mean over images, for the discriminant that was fitted.

    It stays above 0 for a mean near 1: no doubtful image here does not mean none among other images.
    """
    images = context.images
    of_images = np.bincount(images, probabilities(context)) / np.bincount(images)
    return error_of_share(of_images)


@score("sfda", task="decomposition", error=_error)
def sfda(context: MeasureContext) -> float:
    """Return the mean probability of the true class by self-challenging Fisher discriminant analysis, 0 to 1.

    A linear discriminant gives each sample x of class c its probabilities p; x is then moved towards the mean of the
    other classes' means, to q x + (1 - q) m, where q is the entry of c in softmax(p). A second discriminant is fitted
    to the moved samples; the score is the mean probability that it gives to the true classes. The scatter within
    classes S (divided by n) is shrunk to (1 - s) S + s tr(S) / d, where s = exp(-5 l), but at least 1e-10, with the
    largest eigenvalue l of the first S. So the score depends on the embedding's scale, like the authors' own; they
    estimate l by three rounds of power iteration, and it is exact here. Like theirs, it leaves out LEEP's logarithm.

    Undefined if a class has a single sample, or the samples of each class are all the same.

    References
    ----------
    Shao et al., Not all models are equal: predicting model transferability in a self-challenging Fisher space,
    ECCV 2022 (arXiv 2207.03036), and the authors' code, TencentARC/SFDA.
    """
    return float(probabilities(context).mean())


@computed_once
def probabilities(context: MeasureContext) -> NDArray[np.float64]:
    """Return the probability of each sample's class by the second discriminant, float64 [n].

    It is computed in the span of the centred rows: outside, the shrunk scatter treats all directions alike.
    """
    classes, d = context.classes, context.d
    sizes = np.bincount(classes)
    context.decomposition.require_variance()
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no scatter")
    points = context.decomposition.components
    scatter = _within_scatter(points, classes)
    shrinkage = _shrinkage(scatter, context.exponent)
    samples = np.arange(context.n)
    first = _softmax(_probabilities(points, classes, scatter, shrinkage, d))
    confidence = first[samples, classes, None]
    means = group_means(points, classes)
    means_of_others = (namespace(means).sum(means, axis=0) - means) / (len(sizes) - 1)
    towards = rows_of(means_of_others, classes)
    mixed = (
        as_array_like(confidence, points) * points + as_array_like(1 - confidence, points) * towards
    )
    second = _probabilities(mixed, classes, _within_scatter(mixed, classes), shrinkage, d)
    return second[samples, classes]


def _within_scatter(points: Array, classes: NDArray[np.int64]) -> Array:
    """Return the covariance [r, r] within classes."""
    xp = namespace(points)
    within = points - rows_of(group_means(points, classes), classes)
    scatter = within.T @ within / points.shape[0]
    variance = float(xp.sum(xp.vecdot(points, points))) / points.shape[0]
    if float(xp.linalg.trace(scatter)) <= ROUNDING * variance:
        raise UndefinedScore("the samples of each class are all the same")
    return scatter


def _shrinkage(scatter: Array, exponent: int) -> float:
    """Return exp(-5 l), at least 1e-10, with the largest eigenvalue l of the scatter times 4^exponent."""
    xp = namespace(scatter)

    def shrinkage(eigenvalue: float) -> float:
        with np.errstate(over="ignore"):  # a large scatter is not shrunk
            return max(float(np.exp(-DECAY * np.ldexp(eigenvalue, 2 * exponent))), LEAST_SHRINKAGE)

    # No diagonal entry exceeds l: a large one makes computing l unnecessary.
    at_most = shrinkage(float(xp.max(xp.linalg.diagonal(scatter))))
    return at_most if at_most == LEAST_SHRINKAGE else shrinkage(largest_eigenvalue(scatter))


def _probabilities(
    points: Array, classes: NDArray[np.int64], scatter: Array, shrinkage: float, d: int
) -> NDArray[np.float64]:
    """Return the probability of each class for each point by linear discriminant analysis, float64 [n, classes]."""
    xp, sizes = namespace(points), np.bincount(classes)
    shrunk = (1 - shrinkage) * scatter
    shrunk += (
        shrinkage * xp.linalg.trace(scatter) / d * as_array_like(np.eye(scatter.shape[0]), scatter)
    )
    means = group_means(points, classes)
    directions = xp.linalg.solve(shrunk, means.T)  # [r, classes]
    priors = as_array_like(np.log(sizes / len(classes)), points)
    scores = points @ directions - xp.vecdot(means, directions.T) / 2 + priors
    return _softmax(to_host(scores))


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import softmax  # imported here: it takes a fifth of a second

    probabilities: NDArray[np.float64] = softmax(scores, axis=1)
    return probabilities
