"""GBC: the overlap of the classes, seen as spherical Gaussians."""

import numpy as np

from ..core.arrays import group_means, namespace, rows_of, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

DIMENSIONS = 64
ROUNDING = 1e-12  # of the variance


@score("gbc", task="decomposition", grows_with_images=True)
def gbc(context: MeasureContext) -> float:
    """Return the Gaussian Bhattacharyya coefficient: minus the sum of exp(-D) over ordered pairs of classes.

    In the first 64 principal components, D = |m_a - m_b|^2 / (8 v) + k / 2 ln(v / sqrt(v_a v_b)), v = (v_a + v_b) / 2,
    with the mean m of a class, its variance v_c per dimension (divided by its size) and the number of components k. The
    authors' code counts the logarithm once rather than k times, and raises variances to 1e-4; here it is the distance
    of their equation, which does not depend on the embedding's scale.

    From minus the number of ordered pairs (classes that coincide) to 0 (no overlap). Undefined if a class has a single
    sample, or all its samples are the same.

    References
    ----------
    Pandy et al., Transferability estimation using Bhattacharyya class separability, CVPR 2022 (arXiv 2111.12780).
    """
    decomposition, classes = context.decomposition, context.classes
    decomposition.require_variance()
    xp = namespace(decomposition.matrix)
    components = decomposition.components
    points = components[:, max(0, components.shape[1] - DIMENSIONS) :]
    sizes = np.bincount(classes)
    if sizes.min() < 2:
        raise UndefinedScore("a class of one sample has no variance")
    k = points.shape[1]
    means = group_means(points, classes)
    deviations = points - rows_of(means, classes)
    squared = to_host(xp.vecdot(deviations, deviations))
    variances = np.bincount(classes, weights=squared) / (sizes * k)
    if variances.min() <= ROUNDING * float(xp.mean(points * points)):
        raise UndefinedScore("all samples of a class are the same")
    centres = to_host(means)
    a, b = np.triu_indices(len(sizes), 1)
    mean_variances = (variances[a] + variances[b]) / 2
    apart = ((centres[a] - centres[b]) ** 2).sum(axis=1) / (8 * mean_variances)
    unequal = k / 2 * np.log(mean_variances / np.sqrt(variances[a] * variances[b]))
    return 0.0 - 2 * float(np.exp(-apart - unequal).sum())
