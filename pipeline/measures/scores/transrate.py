"""TransRate: the coding rate of the embedding minus that of its classes."""

import numpy as np

from ..core.arrays import Array, namespace, rows_of, times_power_of_two
from ..core.context import MeasureContext
from ..core.registry import score

EPSILON = 1e-4  # the paper's distortion, in squared units of the embedding


@score("transrate", task="decomposition")
def transrate(context: MeasureContext) -> float:
    """Return the coding rate of the embedding minus the mean rate of its classes, R(Z) - sum n_c / n R(Z_c), in nats.

    R(Z) = 1/2 log det(1 + Z^T Z / (n 1e-4)), Z centred once over all samples. The paper's listing gives all classes the
    same weight; here they are weighted by size, so that it is never negative. It depends on the embedding's scale.

    References
    ----------
    Huang et al., Frustratingly easy transferability estimation, ICML 2022 (arXiv 2106.09362).
    """
    values, classes = context.centred_values, context.classes
    xp = namespace(values)

    def rate(squares: Array, n: int) -> float:
        in_units = times_power_of_two(
            xp.clip(squares, 0, None) / (n * EPSILON), 2 * context.exponent
        )
        return float(xp.sum(xp.log1p(in_units))) / 2

    conditional = 0.0
    for of_class in range(int(classes.max()) + 1):
        rows = rows_of(values, np.flatnonzero(classes == of_class))
        size = rows.shape[0]
        gram = rows @ rows.T if size <= rows.shape[1] else rows.T @ rows
        conditional += size / context.n * rate(xp.linalg.eigvalsh(gram), size)
    return rate(context.decomposition.squares, context.n) - conditional
