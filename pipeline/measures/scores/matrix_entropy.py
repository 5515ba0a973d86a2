"""Matrix-based entropy: Renyi's, of the eigenvalues of the rows' Gram matrix."""

import numpy as np

from ..core.arrays import namespace
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.registry import score


@score("matrix_entropy", task="decomposition")
def matrix_entropy(context: MeasureContext) -> float:
    """Return the matrix-based Renyi entropy of order 2, -log2 sum p_i^2, in bits.

    p_i are the eigenvalues of the Gram matrix of the uncentred rows, divided by its trace. From 0 (one direction) to
    log2 min(n, d) bits. The paper mostly uses order 1. ``repitl``, which its authors use, divides by n^2 once more
    at order 2 and so adds 2 log n to a matrix of trace 1. Undefined for an embedding of zeros.

    References
    ----------
    Skean et al., Layer by layer: uncovering hidden representations in language models, ICML 2025 (arXiv 2502.02013);
    Sanchez Giraldo, Rao and Principe, IEEE Transactions on Information Theory 61 (2015).
    """
    squares = context.uncentred_decomposition.squares
    if not squares.shape[0]:
        raise UndefinedScore("all rows are zero")
    xp = namespace(squares)
    return float(np.log2(float(xp.sum(squares) ** 2 / xp.sum(squares * squares))))
