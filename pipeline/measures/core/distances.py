"""Distances between the rows of an embedding, and their Gaussian kernel."""

from typing import Any

import numpy as np

from .arrays import Array, is_on_host, namespace, set_diagonal
from .threads import in_threads

# Rounding of |a|^2 + |b|^2 - 2ab relative to the distance: below this share of |a|^2 + |b|^2 it passes about 1e-9.
_NEAR = 1e-6

_CACHED = 2**17  # numbers in a block that several steps pass over: 1 MiB
BLOCK_NUMBERS = 2**22  # numbers in a block of differences or a stack of matrices: 32 MiB


def squared_distances(Z: Array) -> Array:
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
    centred = centred_rows(Z)
    squares = distances_between(centred, centred, Z, Z)
    set_diagonal(squares, 0)
    return squares


def centred_rows(Z: Array) -> Array:
    """Return the rows less their mean; equal rows become exactly zero."""
    centred = Z - Z[:1, :]
    return centred - namespace(Z).mean(centred, axis=0)


def distances_between(rows: Array, columns: Array, Z_rows: Array, Z_columns: Array) -> Array:
    """Return the squared distances, float64 [a, b], from points [a, d] to points [b, d], centred and as they were."""
    xp = namespace(rows)
    squares = rows @ columns.T  # symmetric to the last bit for equal arguments
    of_rows, of_columns = xp.vecdot(rows, rows), xp.vecdot(columns, columns)

    def finish(some: slice) -> None:
        block = squares[some, :]
        block *= -2
        block += of_rows[some, None] + of_columns[None, :]
        near = block < _NEAR * of_rows[some, None]
        near |= block < _NEAR * of_columns[None, :]
        if xp.any(near):
            block[near] = differences(xp.nonzero(near), Z_rows[some, :], Z_columns)

    in_threads(finish, row_blocks(squares))
    return squares


def differences(pairs: tuple[Array, Array], Z_rows: Array, Z_columns: Array) -> Array:
    """The squared length of the difference of each pair of points, float64 [pairs]."""
    xp = namespace(Z_rows)
    step = max(1, BLOCK_NUMBERS // Z_rows.shape[1])
    parts = []
    count = pairs[0].shape[0]
    for start in range(0, count, step):
        first, second = (points[start : min(start + step, count)] for points in pairs)
        difference = xp.take(Z_rows, first, axis=0) - xp.take(Z_columns, second, axis=0)
        parts.append(xp.vecdot(difference, difference))
    return xp.concat(parts)


def gaussian_kernel(squares: Array, sigma: float) -> Array:
    """Return G = exp(-D^2 / (2 sigma^2)), float64 [..., n, n], for the squared distances D^2."""
    xp = namespace(squares)
    if squares.ndim > 2 or not is_on_host(squares):
        return _quiet_exp(xp, squares, sigma)
    kernel = np.empty_like(squares)

    def fill(some: slice) -> None:
        kernel[some] = _quiet_exp(xp, squares[some], sigma)

    in_threads(fill, row_blocks(squares))
    return kernel


def _quiet_exp(xp: Any, squares: Array, sigma: float) -> Array:
    # Far apart, in units of sigma: 0, as it should be.
    with np.errstate(over="ignore", under="ignore"):
        return xp.exp(squares / (-2 * sigma**2))


def row_blocks(matrix: Array) -> list[slice]:
    """Slices of the rows of a matrix that each fit into a core's cache; on a device, all rows."""
    rows, columns = matrix.shape
    step = max(1, _CACHED // columns) if is_on_host(matrix) else rows
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
