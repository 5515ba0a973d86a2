"""CDNV: the variance within classes over the distance between their means, by pairs."""

import numpy as np

from ..core.arrays import group_means, namespace, rows_of, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import squared_distances
from ..core.registry import score

ROUNDING = float(np.finfo(np.float64).eps)


@score("cdnv", task="values", grows_with_images=True)
def cdnv(context: MeasureContext) -> float:
    """Return the class-distance normalised variance, the mean over pairs of classes: lower is better.

    For classes a and b it is (v_a + v_b) / (2 |m_a - m_b|^2), with the mean m of a class and the mean squared distance
    v of its samples from m. Neural collapse drives it to 0. Pairs with near means dominate, because it is a mean of
    ratios; ``within_over_between`` is a ratio of means. Undefined if the means of two classes coincide, or a class has
    a single sample.

    References
    ----------
    Galanti, Gyorgy and Hutter, On the role of neural collapse in transfer learning, ICLR 2022 (arXiv 2112.15121).
    """
    values, classes = context.centred_values, context.classes
    xp, sizes = namespace(values), np.bincount(classes)
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no variance")
    means = group_means(values, classes)
    deviations = values - rows_of(means, classes)
    squared = to_host(xp.vecdot(deviations, deviations))
    variances = np.bincount(classes, weights=squared) / sizes
    a, b = np.triu_indices(len(sizes), 1)
    apart = to_host(squared_distances(means))[a, b]
    if apart.min() <= ROUNDING * float(xp.sum(values * values)) / context.n:
        raise UndefinedScore("the means of two classes coincide")
    return float(np.mean((variances[a] + variances[b]) / (2 * apart)))
