"""Pairwise annotation representation comparison (PARC)."""

import numpy as np

from ..core.arrays import Array, beside, namespace, rows_of
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import directions
from ..core.registry import score


@score("parc", task="values")
def parc(context: MeasureContext) -> float:
    """Return 100 times Spearman's correlation, over pairs of images, of how unlike their rows and their labels are.

    Rows are unlike by 1 minus Pearson's correlation of their columns, one-hot labels by the same: 0 within a class and
    one number between classes. The first row of each image counts; of more than 4,096 images, so many at random. The
    embedding is not reduced, as in the authors' code by default; their paper also reduces it to 32 components.
    Undefined if a row is constant.

    References
    ----------
    Bolya, Mittapalli and Hoffman, Scalable diverse model selection for accessible transfer learning, NeurIPS 2021
    (arXiv 2111.06977).
    """
    classes = context.classes
    first = context.some_first_rows
    values = rows_of(context.scaled_values[0], first)
    xp = namespace(values)
    if values.shape[1] == 1:
        raise UndefinedScore("a row of one column has no correlation with another")
    unit = directions(values - xp.mean(values, axis=1, keepdims=True), "rows less their own mean")
    pairs = np.triu_indices(len(first), k=1)
    different = classes[first][pairs[0]] != classes[first][pairs[1]]
    if different.all():
        raise UndefinedScore("no two images share a class")
    flat = beside(pairs[0] * len(first) + pairs[1], values)
    cosines = xp.round((unit @ unit.T) * 2.0**40)  # so that rounding does not order equal ones
    unlike = -xp.take(xp.reshape(cosines, (-1,)), flat)
    ranks = _ranks(unlike)
    between = float(xp.mean(ranks[beside(different, ranks)]))
    spread = float(xp.std(ranks))
    if spread == 0:
        raise UndefinedScore("all pairs of rows are equally unlike")
    share = float(different.mean())
    mean = float(xp.mean(ranks))
    # Pearson's correlation of numbers with a flag.
    return 100 * (between - mean) / spread * float(np.sqrt(share / (1 - share)))


def _ranks(numbers: Array) -> Array:
    """Return the rank of each number, float64 [m]; equal ones share their mean rank."""
    xp = namespace(numbers)
    ordered = xp.sort(numbers)
    below = xp.searchsorted(ordered, numbers, side="left")
    up_to = xp.searchsorted(ordered, numbers, side="right")
    return xp.astype(below + up_to, xp.float64) / 2
