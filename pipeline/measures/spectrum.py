"""The spectrum of an embedding's diffusion matrix (Liao et al., arXiv 2312.04823).

An embedding's distances are computed once; the diffusion matrix of any subset then follows from their kernel by index.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

# Rounding of |a|^2 + |b|^2 - 2ab relative to the distance: below this share of |a|^2 + |b|^2 it passes about 1e-9.
_NEAR = 1e-6
_SMALL = 512  # rows of a matrix up to which threads wait for each other longer than they compute
_BLOCK = 2**22  # numbers in a block of differences: 32 MiB


def squared_distances(Z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared Euclidean distances of all pairs of rows.

    They come from the Gram matrix of the centred rows; pairs that lie so near each other, compared with their distance
    from the centre, that rounding would show are computed anew from their difference. So duplicates are at distance 0
    exactly, and neither a large offset nor an outlier costs accuracy.

    Parameters
    ----------
    Z : float64 [n, d]
        A validated embedding.

    Returns
    -------
    float64 [n, n], symmetric, its diagonal zero.
    """
    centred = Z - Z[0]  # first, so that equal rows become exactly zero
    centred -= centred.mean(axis=0)
    squared_norms = np.einsum("ij,ij->i", centred, centred)
    squares = np.add.outer(squared_norms, squared_norms)
    squares -= 2 * (centred @ centred.T)
    near = squares < _NEAR * squared_norms[:, None]
    near |= near.T
    first, second = np.nonzero(np.triu(near, 1))
    step = max(1, _BLOCK // Z.shape[1])
    for start in range(0, len(first), step):
        i, j = first[start : start + step], second[start : start + step]
        difference = Z[i] - Z[j]
        squares[i, j] = squares[j, i] = np.einsum("ij,ij->i", difference, difference)
    np.fill_diagonal(squares, 0)
    return squares


def gaussian_kernel(squares: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return G = exp(-D^2 / (2 sigma^2)), float64 [n, n], for the squared distances D^2."""
    with np.errstate(over="ignore", under="ignore"):  # far apart, in units of sigma: 0, as it should be
        kernel = squares / (-2 * sigma**2)
        return np.exp(kernel, out=kernel)


def diffusion_eigenvalues(kernel: NDArray[np.float64], indices: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return the eigenvalues of the diffusion matrix of all points or of a subset, ascending.

    With q the row sums of the kernel G among these points, they are the eigenvalues of G_ij / sqrt(q_i q_j), a
    symmetric matrix with the spectrum of the Markov matrix G_ij / q_i; the largest is 1.

    Parameters
    ----------
    kernel : float64 [n, n]
        Gaussian kernel of all points.
    indices : int64 [k], optional
        The subset's points; all by default.

    Returns
    -------
    float64 [k]
    """
    matrix = kernel.copy() if indices is None else kernel[np.ix_(indices, indices)]
    roots = np.sqrt(matrix.sum(axis=1))
    matrix /= roots[:, None]
    matrix /= roots
    with _blas().limit(limits=1 if len(matrix) <= _SMALL else None, user_api="blas"):
        return np.asarray(np.linalg.eigvalsh(matrix), dtype=np.float64)


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    return ThreadpoolController()
