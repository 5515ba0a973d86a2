"""Pairwise annotation representation comparison (PARC)."""

import numpy as np

from ..core.arrays import Array, as_array_like, namespace, rows_of, to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import directions
from ..core.registry import score


@score("parc", task="values")
def parc(context: MeasureContext) -> float:
    """Return 100 times Spearman's correlation, over pairs of images, of how unlike their rows and their labels are.

    Rows are unlike by 1 minus Pearson's correlation of their columns, and so are one-hot labels: by 0 within a class
    and one number between classes. Only the first row of each image is used, and at most 4,096 images, chosen at
    random. The embedding is not reduced, as in the authors' code by default; their paper also reduces it to 32
    components. Undefined if a row is constant.

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
    pairs = np.flatnonzero(np.triu(np.ones((len(first), len(first)), bool), k=1))
    same = (classes[first][:, None] == classes[first]).reshape(-1)[pairs]
    if not same.any():
        raise UndefinedScore("no two images share a class")
    cosines = xp.round((unit @ unit.T) * 2.0**40)  # so that rounding does not order equal ones
    alike = xp.take(xp.reshape(cosines, (-1,)), as_array_like(pairs, values))
    ordered = xp.sort(alike)
    # Ranks run from 1/2, equal numbers share their mean rank, and the mean of all is half their number.
    spread = _spread_of_ranks(ordered)
    if spread == 0:
        raise UndefinedScore("all pairs of rows are equally unlike")
    # Sorted, because a search would jump through memory otherwise: a tenth of the time.
    of_same = xp.sort(alike[as_array_like(np.flatnonzero(same), alike)])
    below = xp.searchsorted(ordered, of_same, side="left")
    up_to = xp.searchsorted(ordered, of_same, side="right")
    mean_rank = float(xp.mean(xp.astype(below + up_to, xp.float64))) / 2
    share = float(same.mean())
    # Pearson's correlation of ranks with a flag.
    return 100 * (mean_rank - len(pairs) / 2) / spread * float(np.sqrt(share / (1 - share)))


def _spread_of_ranks(ordered: Array) -> float:
    """Return the standard deviation of the ranks of ascending numbers [m]; equal numbers share their mean rank.

    The variance of m different ranks is (m^2 - 1) / 12; t equal numbers reduce it by (t^3 - t) / 12m.
    """
    m = ordered.shape[0]
    ends = np.flatnonzero(to_host(ordered[1:] != ordered[:-1])) + 1
    ties = np.diff(ends, prepend=0, append=m).astype(float)
    return float(np.sqrt(max(m**2 - 1 - np.sum(ties**3 - ties) / m, 0) / 12))
