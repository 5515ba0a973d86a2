"""The H-score: variance of the class means over the variance of the embedding."""

import numpy as np

from ..core.arrays import namespace, to_host
from ..core.context import MeasureContext
from ..core.registry import score

ROUNDING = float(np.finfo(np.float64).eps)


@score("h_score", task="decomposition")
def h_score(context: MeasureContext) -> float:
    """Return the regularised H-score, tr(S_a^-1 (1 - a) B): 0 to the number of classes minus one.

    B is the covariance of the samples' class means, S_a = (1 - a) S + a tr(S) / d the covariance of the embedding,
    shrunk by Ledoit and Wolf's coefficient a, without which it has no inverse where n < d. Both divide by n. The score
    of a constant embedding is 0.

    References
    ----------
    Bao et al., ICIP 2019; Ibrahim et al., arXiv 2110.06893, for the shrinkage; scikit-learn's ``LedoitWolf``.
    """
    classes, decomposition = context.classes, context.decomposition
    values, n, d = decomposition.matrix, context.n, context.d
    variances = to_host(decomposition.squares) / n
    if not len(variances):
        return 0.0
    mean = variances.sum() / d
    spread = (variances**2).sum() / d - mean**2
    square_norms = to_host(namespace(values).vecdot(values, values))
    mean_of_fourth_powers = (square_norms**2).sum() / n
    noise = (mean_of_fourth_powers - (variances**2).sum()) / (n * d)
    shrinkage = 0.0 if spread <= ROUNDING * mean**2 else float(np.clip(noise / spread, 0, 1))
    squared_sums = to_host(decomposition.class_sums(classes)) ** 2
    between = (squared_sums / np.bincount(classes)[:, None]).sum(axis=0)
    shrunk = (1 - shrinkage) * variances
    return float((shrunk * between / (shrunk + shrinkage * mean)).sum())
