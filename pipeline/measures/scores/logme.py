"""LogME: the evidence of a Bayesian linear regression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import as_array_like, to_host
from ..core.context import MeasureContext
from ..core.registry import COMPUTATIONS, score
from ..core.threads import computed_once

RATIOS = np.logspace(-9, 9, 19)  # alpha / beta, in units of the mean squared singular value
TOLERANCE = 1e-6  # of the logarithm of alpha / beta, at whose optimum the evidence is flat


@dataclass(frozen=True)
class _Regression:
    """The regressions of all classes at their greatest evidence.

    ``evidence``, nats per sample, ``ratios`` of alpha to beta, and ``misfits``, n / beta, are float64 [classes].
    """

    evidence: NDArray[np.float64]
    ratios: NDArray[np.float64]
    misfits: NDArray[np.float64]


def _error(context: MeasureContext) -> float:
    """Return the standard error over images, from the density of each image's label given all others.

    Leaving out an image lowers the log evidence by that density, in closed form at the same alpha and beta, where it is
    flat, so the delete-one jackknife needs no further regression. For images of several rows, halves are used instead,
    and for all images with ``--scores all``, as in the rows of earlier versions, which stay valid.
    """
    context.require_halves()
    if context.settings.scores == "all" or len(np.unique(context.images)) < context.n:
        return COMPUTATIONS["logme"].error_over_halves(context)
    densities = _densities_without(context)
    classes = context.classes
    sizes = np.bincount(classes)
    means = np.bincount(classes, densities) / sizes
    squares = np.bincount(classes, (densities - means[classes]) ** 2)
    # Other samples of images have as many images of each class.
    of_classes = squares * sizes / np.maximum(sizes - 1, 1)
    return float(np.sqrt(of_classes.sum()) / context.n)


def _densities_without(context: MeasureContext) -> NDArray[np.float64]:
    """Return the log density of each sample's targets given all other samples, the mean over classes, float64 [n]."""
    regression, decomposition = _regression(context), context.uncentred_decomposition
    classes, n = context.classes, context.n
    targets = (classes[:, None] == np.arange(len(regression.ratios))).astype(np.float64)
    leverage, fitted = np.zeros_like(targets), np.zeros_like(targets)
    if decomposition.squares.shape[0]:
        U = decomposition.left_vectors
        kept = to_host(decomposition.squares)[:, None]
        kept = kept / (kept + regression.ratios)  # [rank, classes]
        projected = to_host(decomposition.class_sums(classes)).T
        fitted = to_host(U @ as_array_like(kept * projected, U))
        leverage = to_host((U * U) @ as_array_like(kept, U))
    precision = n / regression.misfits
    left = np.maximum(1 - leverage, np.finfo(np.float64).eps)
    squared = precision * (targets - fitted) ** 2 / left
    logarithms = np.log(precision * left / (2 * np.pi))
    densities: NDArray[np.float64] = ((logarithms - squared) / 2).mean(axis=1)
    return densities


@score("logme", task="decomposition", error=_error)
def logme(context: MeasureContext) -> float:
    """Return the maximised log evidence of Bayesian linear regression on the embedding, the mean over classes.

    For the one-hot column y of a class, weights w ~ N(0, 1 / alpha) and y ~ N(Z w, 1 / beta), so that
    y ~ N(0, 1 / beta + Z Z^T / alpha); without an intercept, features as they are. MacKay's fixed point, which depends
    on alpha / beta alone, is found by bisection around the best ratio of a grid, to avoid a local maximum.

    The unit is nats per sample, of a density: any sign. An embedding of rank below n that fits a column exactly has no
    greatest evidence: alpha / beta stays above 1e-9 times the mean squared singular value.

    References
    ----------
    You et al., LogME, ICML 2021 (arXiv 2102.11005); You et al., JMLR 23 (2022), for the convergence.
    """
    return float(_regression(context).evidence.mean())


@computed_once
def _regression(context: MeasureContext) -> _Regression:
    """Return the regressions of all classes."""
    classes, decomposition = context.classes, context.uncentred_decomposition
    squares, n = to_host(decomposition.squares), len(classes)
    sizes = np.bincount(classes).astype(np.float64)  # |y|^2 of the one-hot columns
    rank = len(squares)
    if rank == 0:
        return _Regression(-(np.log(2 * np.pi * sizes / n) + 1) / 2, np.ones_like(sizes), sizes)
    projected = to_host(decomposition.class_sums(classes)) ** 2  # [classes, rank]
    outside = np.maximum(sizes - projected.sum(axis=1), 0)

    # The evidence per sample at the ratio alpha / beta, with the best beta = n / misfit for that ratio.
    def evidence(ratio: NDArray[np.float64], misfit: NDArray[np.float64]) -> NDArray[np.float64]:
        volume = np.log1p(squares / ratio[:, None]).sum(axis=1)
        return -(np.log(2 * np.pi * misfit / n) + 1 + volume / n) / 2

    def wants_more(ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether MacKay's step from each class's ratio leads to a greater one, bool [classes]."""
        kept = squares / (squares + ratios[:, None])
        lost = ratios[:, None] / (squares + ratios[:, None])
        gamma = kept.sum(axis=1)
        free = n - rank + lost.sum(axis=1)  # n - gamma, without cancellation
        squared_weights = (projected * kept * lost).sum(axis=1) / ratios  # |w|^2
        residual = outside + (projected * lost**2).sum(axis=1)
        wants: NDArray[np.bool_] = gamma * residual > ratios * squared_weights * free
        return wants

    starts = squares.mean() * RATIOS
    misfits = (
        outside + (starts[:, None] / (starts[:, None] + squares)) @ projected.T
    )  # [starts, classes]
    best = np.stack([evidence(starts, misfit) for misfit in misfits.T]).argmax(axis=1)
    low = np.log(starts[np.maximum(best - 1, 0)])
    high = np.log(starts[np.minimum(best + 1, len(starts) - 1)])
    while (high - low).max() > TOLERANCE:
        middle = (low + high) / 2
        more = wants_more(np.exp(middle))
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    ratios = np.exp((low + high) / 2)
    misfit = outside + (projected * (ratios[:, None] / (squares + ratios[:, None]))).sum(axis=1)
    return _Regression(evidence(ratios, misfit), ratios, misfit)
