"""Neural collapse: variance within classes over variance between them."""

import numpy as np

from ..core.arrays import as_array_like, group_means, namespace, rows_of
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

ROUNDING = float(np.finfo(np.float64).eps)


@score("within_over_between", task="values", grows_with_images=True)
def within_over_between(context: MeasureContext) -> float:
    """Return tr(S_W) / tr(S_B), the variance within classes over the variance between them: lower is better.

    Neural collapse drives it to 0. It is NC1 in its trace form; the paper's is tr(S_W S_B^+) / classes. S_B weights a
    class by its size, so that tr(S_W) + tr(S_B) is the variance. Undefined where all class means coincide.

    References
    ----------
    Papyan, Han and Donoho, PNAS 117 (2020), NC1.
    """
    values, classes = context.centred_values, context.classes
    xp = namespace(values)
    sizes = np.bincount(classes).astype(np.float64)
    means = group_means(values, classes)
    deviations = values - rows_of(means, classes)
    within = float(xp.sum(deviations * deviations))
    between = float(xp.sum(as_array_like(sizes, means) * xp.vecdot(means, means)))
    if between <= ROUNDING * (within + between):
        raise UndefinedScore("the means of all classes coincide")
    return within / between
