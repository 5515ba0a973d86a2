"""LiDAR: the number of directions that separate images better than repeats of one image."""

import numpy as np

from ..core.arrays import as_array_like, group_means, namespace, rows_of, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

DELTA = 1e-4  # the paper's, in squared units of the embedding
EPSILON = 1e-7  # the paper's, added to each share
ROUNDING = float(np.finfo(np.float64).eps)
GREATEST = 1e100  # of DELTA in units of the scaled embedding: beyond this, DELTA alone decides


@score("lidar", task="decomposition")
def lidar(context: MeasureContext) -> float:
    """Return LiDAR, the smooth rank of a linear discriminant analysis in which each image is a class.

    It is exp of the entropy of p = l / sum(l) + 1e-7, with the d eigenvalues l of S_w^-1/2 S_b S_w^-1/2. S_b is the
    covariance of the images' means, S_w that of the rows about the mean of their image, averaged over images, plus
    1e-4 on the diagonal. So it depends on the embedding's scale, unless repeats differ by far more than 0.01. The
    paper takes 50 repeats of 1,000 images; with three, S_w is poorly known. About 1 to min(images - 1, d).

    Labels are not used, but image ids are given only with labels. Undefined unless each image has two rows or more.

    References
    ----------
    Thilak et al., LiDAR: sensing linear probing performance in joint embedding SSL architectures, ICLR 2024
    (arXiv 2312.04000).
    """
    images, decomposition = context.images, context.decomposition
    repeats = np.bincount(images)
    single = int((repeats == 1).sum())
    if single:
        raise UndefinedScore(f"{single} of {len(repeats)} images have one row, not repeats")
    decomposition.require_variance()
    points = decomposition.components
    xp = namespace(points)
    means = group_means(points, images)
    weights = as_array_like(np.sqrt(1 / repeats)[images][:, None], points)
    deviations = weights * (points - rows_of(means, images))
    within, axes = xp.linalg.eigh(deviations.T @ deviations / len(repeats))
    variance = float(xp.sum(points * points)) / context.n
    within = xp.clip(within, 0, None) + max(_delta(context.exponent), ROUNDING * variance)
    centres = (means - xp.mean(means, axis=0)) @ axes
    if float(xp.sum(centres * centres)) <= ROUNDING * variance * len(repeats):
        raise UndefinedScore("the means of all images coincide")
    white = centres / xp.sqrt(within)
    gram = white @ white.T if white.shape[0] <= white.shape[1] else white.T @ white
    found = np.clip(to_host(xp.linalg.eigvalsh(gram)), 0, None)
    eigenvalues = np.zeros(context.d)
    eigenvalues[: min(len(found), context.d)] = found[::-1][: context.d]
    shares = eigenvalues / eigenvalues.sum() + EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _delta(exponent: int) -> float:
    """Return ``DELTA`` in units of the embedding divided by 2 to the power of the exponent."""
    with np.errstate(over="ignore", under="ignore"):
        return min(float(np.ldexp(DELTA, -2 * exponent)), GREATEST)
