"""PACTran-Gauss: a PAC-Bayesian bound on the loss of a linear classifier on the embedding."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.hits import first_rows
from ..core.registry import score
from ..core.threads import computed_once

# The authors' code tries six pairs. With these, lambda = D n / 10 and sigma_0^2 = 100 / D.
STRENGTH = 10.0  # lambda sigma_0^2 / n
VARIANCE = 100.0  # D sigma_0^2

# For the largest partial derivative, after scaling, relative to the loss, which is tiny where classes are separate. The
# score's relative error is a fifth of it or less.
TOLERANCE = 1e-4
TOLERANCE_OF_PARTS = 3e-4  # moves the standard error by a few percent, and halves its time
ROUNDS, STEPS = 20, 500  # of L-BFGS
PARTS = 10  # of the images, each left out once for the standard error

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


def _error(context: MeasureContext) -> float:
    """Return the standard error over images: a jackknife that leaves out a tenth of each class.

    Random halves would give 0.1 to 4 times the true error, because the score depends on the number of images.
    """
    classes, images = context.classes, context.images
    of_image = classes[first_rows(images)]
    if np.bincount(of_image).min() < 2:
        raise UndefinedScore("a class has one image, which cannot be left out")
    _, weights = _bound_of_all(context)
    points = _points(context)
    shuffled = np.random.default_rng([context.settings.seed, 7]).permutation(len(of_image))
    by_class = shuffled[np.argsort(of_image[shuffled], kind="stable")]
    part = np.full(len(of_image), -1)
    part[by_class] = np.arange(len(by_class)) % PARTS
    found = []
    for number in np.unique(part):
        rows = np.flatnonzero(part[images] != number)
        mean = points[rows].mean(axis=0)
        start = weights.copy()
        start[-1] += mean @ weights[:-1]
        bound, _ = _bound(points[rows] - mean, classes[rows], context.d, start, TOLERANCE_OF_PARTS)
        found.append(bound)
    values = np.array(found)
    if np.ptp(values) < TOLERANCE_OF_PARTS / 10 * np.max(values):
        raise UndefinedScore("it is the same whichever tenth is left out, so its error is open")
    return float(np.sqrt((1 - 1 / len(values)) * np.sum((values - np.mean(values)) ** 2)))


@score("pactran_gauss", task="values", error=_error)
def pactran_gauss(context: MeasureContext) -> float:
    """Return PACTran-Gauss, in nats; lower is better.

    It is L + K D / (2 lambda) ln(1 + lambda sigma_0^2 / (K D) tr H), for K classes and D columns. L is the least mean
    cross-entropy of a linear classifier plus its squared weights over 2 lambda sigma_0^2, H the Hessian of the
    cross-entropy there; intercepts are free. The embedding is centred and not rescaled, as in the authors' code, so the
    score depends on its scale. Their code sums H over the samples; here it is that of the mean, as in the bound.

    It is computed in the span of the centred rows, along their principal axes: neither the penalty nor the trace
    depends on the basis.

    Undefined if all rows are the same, or if the optimisation does not converge.

    References
    ----------
    Ding, Chen, Levinboim, Changpinyo and Soricut, PACTran: PAC-Bayesian metrics for estimating the transferability of
    pretrained models to classification tasks, ECCV 2022 (arXiv 2203.05126), and google-research/pactran_metrics.
    """
    return _bound_of_all(context)[0]


@computed_once
def _points(context: MeasureContext) -> Array:
    context.decomposition.require_variance()
    return np.ldexp(to_host(context.decomposition.components), context.exponent)


@computed_once
def _bound_of_all(context: MeasureContext) -> tuple[float, Array]:
    points, classes = _points(context), context.classes
    start = np.zeros((points.shape[1] + 1, int(classes.max()) + 1))
    return _bound(points, classes, context.d, start)


def _bound(
    points: Array, classes: Numbers, columns: int, start: Array, tolerance: float = TOLERANCE
) -> tuple[float, Array]:
    """Return the bound, and the weights and intercepts there, float64 [d + 1, K].

    Parameters
    ----------
    points : float64 [n, d]
        Centred points, along about their principal axes.
    classes : int64 [n]
    columns : int
        Columns of the embedding, which may be more than d.
    start : float64 [d + 1, K]
        Weights and intercepts to begin with.
    tolerance
        Limit of the largest partial derivative, relative to the loss.
    """
    n, count = len(points), start.shape[1]
    least, weights, probabilities = _regression(
        points, classes, 1 / (STRENGTH * n), start, tolerance
    )
    curvature = np.sum(probabilities * (1 - probabilities), axis=1)
    trace = float(np.mean(curvature * (np.sum(points**2, axis=1) + 1)))
    total = count * columns
    per_weight = VARIANCE / columns / (2 * STRENGTH * n)  # 1 / (2 lambda)
    return least + total * per_weight * float(np.log1p(STRENGTH * n / total * trace)), weights


def _regression(
    points: Array, classes: Numbers, penalty: float, start: Array, tolerance: float
) -> tuple[float, Array, Array]:
    """Return the least penalised mean cross-entropy, the weights there, and the probabilities, float64 [n, K].

    Weights are scaled by about the root of the loss's curvature along each column; otherwise L-BFGS would take hundreds
    more steps.
    """
    from scipy.optimize import minimize  # here, because it takes time to import

    n, count = len(points), start.shape[1]
    steps = 1 / np.sqrt(np.mean(points**2, axis=0) / count + penalty)
    scaled = points * steps
    ridge = penalty * steps[:, None] ** 2
    rows = np.arange(n)

    def with_losses(weights: Array) -> tuple[Array, Array]:
        logits = scaled @ weights[:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        right = logits[rows, classes]
        probabilities = np.exp(logits, out=logits)
        total = probabilities.sum(axis=1, keepdims=True)
        probabilities /= total
        return probabilities, np.log(total[:, 0]) - right

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(start.shape)
        residuals, losses = with_losses(weights)
        residuals[rows, classes] -= 1
        residuals /= n
        slope = np.empty_like(weights)
        slope[:-1] = scaled.T @ residuals + ridge * weights[:-1]
        slope[-1] = residuals.sum(axis=0)
        squares = float(np.sum(ridge * weights[:-1] ** 2))
        return float(losses.mean()) + squares / 2, slope.reshape(-1)

    scales = np.append(steps, 1.0)[:, None]
    flat = (start / scales).reshape(-1)
    least = loss(flat)[0]
    for _ in range(ROUNDS):
        options = {"maxiter": STEPS, "maxcor": 20, "gtol": tolerance * least / 2, "ftol": 0.0}
        found = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options)
        flat, least = found.x, float(found.fun)
        if np.abs(found.jac).max() <= tolerance * least:
            weights = flat.reshape(start.shape)
            return least, weights * scales, with_losses(weights)[0]
    raise UndefinedScore("logistic regression has not converged")
