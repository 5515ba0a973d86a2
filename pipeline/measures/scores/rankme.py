"""RankMe: a smooth rank."""

import numpy as np

from ..core.arrays import to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score

EPSILON = 1e-7  # the paper's, added to each share


@score("rankme", task="decomposition")
def rankme(context: MeasureContext) -> float:
    """Return exp of the entropy of the shares p = s / sum(s) + 1e-7 of the uncentred embedding's singular values s.

    About 1 to min(n, d); undefined for an embedding of zeros.

    References
    ----------
    Garrido et al., RankMe, ICML 2023 (arXiv 2210.02885).
    """
    squares = to_host(context.uncentred_decomposition.squares)
    singular = np.zeros(min(context.n, context.d))
    singular[: len(squares)] = np.sqrt(squares)
    if not singular.any():
        raise UndefinedScore("all rows are zero")
    shares = singular / singular.sum() + EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))
