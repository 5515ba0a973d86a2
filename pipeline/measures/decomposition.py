"""What the scores of an embedding share: its singular values and vectors, and sums over groups of its rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Decomposition:
    """A matrix's left singular vectors, float64 [n, r], and squared singular values, float64 [r], ascending.

    r is its numerical rank: a squared singular value below max(n, d) times the rounding of the largest is taken for 0.
    """

    vectors: NDArray[np.float64]
    squares: NDArray[np.float64]


def decomposed(values: NDArray[np.float64]) -> Decomposition:
    """Decompose a matrix [n, d] by the eigenvectors of its Gram matrix, n x n or d x d, whichever is smaller."""
    n, d = values.shape
    squares, vectors = np.linalg.eigh(values @ values.T if n <= d else values.T @ values)
    kept = squares > max(n, d) * np.finfo(np.float64).eps * squares[-1]
    squares, vectors = squares[kept], vectors[:, kept]
    if n > d:
        vectors = values @ (vectors / np.sqrt(squares))
    return Decomposition(vectors, squares)


def scaled(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Divide by 2^e, which changes no digit, so that the largest is 1/2 to 1 and no square or its square overflows.

    Returns
    -------
    (float64 as ``values``, e)
    """
    exponent = int(np.frexp(np.abs(values).max())[1])
    return np.ldexp(values, -exponent), exponent


def centred(Z: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """The rows of a validated embedding less their mean, divided by 2^e, float64 [n, d], and e."""
    values, exponent = scaled(Z - Z[0])  # first, so that equal rows become exactly zero
    return values - values.mean(axis=0), exponent


def group_sums(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the rows of ``values`` [n, d] by their group 0, 1, ..., none of them empty: float64 [groups, d]."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups))[:-1]])
    return np.add.reduceat(values[np.argsort(groups, kind="stable")], starts, axis=0)
