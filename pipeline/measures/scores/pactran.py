"""PACTran-Gauss: a PAC-Bayesian bound on the loss of a linear classifier on the embedding."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

# The authors' code tries six pairs. With these, lambda = D n / 10 and sigma_0^2 = 100 / D.
STRENGTH = 10.0  # lambda sigma_0^2 / n
VARIANCE = 100.0  # D sigma_0^2

# Of the largest partial derivative, after scaling, relative to the loss, which is tiny where classes are apart.
TOLERANCE = 1e-5
ROUNDS, STEPS = 20, 500  # of L-BFGS

Array = NDArray[np.float64]


@score("pactran_gauss", task="values")
def pactran_gauss(context: MeasureContext) -> float:
    """Return PACTran-Gauss, in nats; lower is better.

    L + K D / (2 lambda) ln(1 + lambda sigma_0^2 / (K D) tr H), for K classes and D columns. L is the least mean
    cross-entropy of a linear classifier plus its squared weights over 2 lambda sigma_0^2, H the Hessian of the
    cross-entropy there; intercepts are free. The embedding is centred and not rescaled, as in the authors' code, so the
    score depends on its scale. Their code sums H over the samples; here it is that of the mean, as in the bound.

    All happens in the span of the centred rows, along their principal axes: neither the penalty nor the trace depends
    on the basis.

    Undefined if all rows are the same, or if the optimisation does not converge.

    References
    ----------
    Ding, Chen, Levinboim, Changpinyo and Soricut, PACTran: PAC-Bayesian metrics for estimating the transferability of
    pretrained models to classification tasks, ECCV 2022 (arXiv 2203.05126), and google-research/pactran_metrics.
    """
    classes, n = context.classes, context.n
    count = int(classes.max()) + 1
    context.decomposition.require_variance()
    points = np.ldexp(to_host(context.decomposition.components), context.exponent)
    least, probabilities = _regression(points, classes, penalty=1 / (STRENGTH * n))
    curvature = np.sum(probabilities * (1 - probabilities), axis=1)
    trace = float(np.mean(curvature * (np.sum(points**2, axis=1) + 1)))
    weights = count * context.d
    per_weight = VARIANCE / context.d / (2 * STRENGTH * n)  # 1 / (2 lambda)
    return least + weights * per_weight * float(np.log1p(STRENGTH * n / weights * trace))


def _regression(points: Array, classes: NDArray[np.int64], penalty: float) -> tuple[float, Array]:
    """Return the least penalised mean cross-entropy, and the probabilities there, float64 [n, K].

    Weights are scaled by about the root of the loss's curvature along each column, which are orthogonal: without,
    L-BFGS would take hundreds of steps more.
    """
    from scipy.optimize import minimize  # here, because it takes time to import

    n, d = points.shape
    count = int(classes.max()) + 1
    steps = 1 / np.sqrt(np.mean(points**2, axis=0) / count + penalty)
    scaled = points * steps
    ridge = penalty * steps[:, None] ** 2
    rows = np.arange(n)

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(d + 1, count)
        logits = scaled @ weights[:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        right = logits[rows, classes]
        probabilities = np.exp(logits, out=logits)
        total = probabilities.sum(axis=1, keepdims=True)
        probabilities /= total
        value = float(np.mean(np.log(total[:, 0]) - right))
        value += float(np.sum(ridge * weights[:-1] ** 2)) / 2
        probabilities[rows, classes] -= 1
        probabilities /= n
        slope = np.empty_like(weights)
        slope[:-1] = scaled.T @ probabilities + ridge * weights[:-1]
        slope[-1] = probabilities.sum(axis=0)
        return value, slope.reshape(-1)

    flat, least = np.zeros((d + 1) * count), float(np.log(count))
    for _ in range(ROUNDS):
        options = {"maxiter": STEPS, "maxcor": 20, "gtol": TOLERANCE * least / 2, "ftol": 0.0}
        found = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options)
        flat, least = found.x, float(found.fun)
        if np.abs(found.jac).max() <= TOLERANCE * least:
            break
    else:
        raise UndefinedScore("logistic regression has not converged")
    weights = flat.reshape(d + 1, count)
    logits = scaled @ weights[:-1] + weights[-1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return least, powers / powers.sum(axis=1, keepdims=True)
