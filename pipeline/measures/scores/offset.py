"""Scale and offset of an embedding."""

import numpy as np

from ..core.arrays import namespace
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import column, score


@column("embedding_rms", task="values")
def embedding_rms(context: MeasureContext) -> float:
    """Return the root mean square of the embedding's values."""
    values, exponent = context.scaled_values
    return float(np.ldexp(np.sqrt(float(namespace(values).mean(values * values))), exponent))


@score("offset_share", task="values")
def offset_share(context: MeasureContext) -> float:
    """Return the mean's share of the mean squared length of the rows, |mean z|^2 / mean |z|^2.

    0 (centred) to 1 (all rows the same); undefined for an embedding of zeros.
    """
    values, _ = context.scaled_values
    xp = namespace(values)
    length = float(xp.sum(xp.vecdot(values, values))) / values.shape[0]
    if length == 0:
        raise UndefinedScore("all rows are zero")
    mean = xp.mean(values, axis=0)
    return min(float(mean @ mean) / length, 1.0)
