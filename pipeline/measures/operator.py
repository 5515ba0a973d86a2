"""Products with an embedding's diffusion matrix, which need not fit into memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .estimate import Precision
from .spectrum import blas_threads, centred_rows, distances_between, in_threads

Values = NDArray[np.float64]

HELD_BYTES = 2**31
"""Bytes up to which the kernel is held in memory; beyond, every product computes it anew, tile by tile."""

_TILE = 2048  # points a side: 16 MiB of float32
_FLOAT32_BLIND = 1e-10
_FLOAT32_REACH = 16.0  # squared distance from the centre, in units of 2 sigma^2, up to which float32 is good to 1e-6


class DiffusionOperator:
    """G_ij / sqrt(q_i q_j) of an embedding, with q the row sums of the Gaussian kernel G, for products with blocks.

    Only the kernel's tiles on and above the diagonal are computed, in the given precision; in float32 from distances
    in float32 where these are good to about 1e-6 of 2 sigma^2, else in float64.

    Parameters
    ----------
    Z : float64 [n, d]
        A validated embedding.
    sigma : float
        Width of the kernel.
    precision
        Of the kernel and of products with it.
    held_bytes : int
        Bytes of kernel up to which it is held in memory.
    """

    def __init__(self, Z: Values, sigma: float, precision: Precision, held_bytes: int = HELD_BYTES) -> None:
        self.n = len(Z)
        self._Z = Z
        self._sigma = sigma
        self._dtype = np.dtype(precision)
        points = centred_rows(Z)
        with np.errstate(over="ignore", under="ignore"):
            reach = float(np.einsum("ij,ij->i", points, points).max() / (2 * sigma**2))
        self._narrow = precision == "float32" and reach <= _FLOAT32_REACH
        if self._narrow:
            # Below what the kernel's digits show, the points are one; tiny numbers would only cost time.
            points = np.zeros((self.n, 1)) if reach < _FLOAT32_BLIND else points / sigma
            points = points.astype(np.float32)
            self._norms = np.einsum("ij,ij->i", points, points) / 2
        self._points = points
        self._starts = range(0, self.n, _TILE)
        self._held = self._whole() if self._dtype.itemsize * self.n**2 <= held_bytes else None
        self._roots, self._top, self._squared_norm = np.ones(self.n), np.zeros(self.n), float("nan")

    def normalise(self, sketch: Values) -> Values:
        """Fix the row sums; returns an orthonormal basis of ones and of the matrix times a sketch [n, k]: [n, 1 + k].

        Its first column is the eigenvector of the eigenvalue 1, which all that follows leaves out: the others may be a
        millionth of it, and would drown in its rounding.
        """
        product, _ = self._kernel_times(np.column_stack([np.ones(self.n), sketch]))
        self._roots = np.sqrt(product[:, 0])
        self._top = self._roots / np.linalg.norm(self._roots)
        basis, _ = np.linalg.qr(np.column_stack([self._top, product[:, 1:] / self._roots[:, None]]))
        return basis

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues but the largest: the kernel's diagonal is 1."""
        return float(np.sum(1 / self._roots**2)) - 1

    @property
    def squared_norm(self) -> float:
        """The sum of the squared eigenvalues but the largest; known once there was a product."""
        return self._squared_norm

    def times(self, X: Values) -> Values:
        """The product with a block of vectors, float64 [n, k], of the matrix without its largest eigenvalue."""
        first = np.isnan(self._squared_norm)
        product, squares = self._kernel_times(X / self._roots[:, None], first)
        if first:
            self._squared_norm = squares
        product /= self._roots[:, None]
        product -= self._top[:, None] * (self._top @ product)
        return product

    def _kernel_times(self, X: Values, squares: bool = False) -> tuple[Values, float]:
        """The kernel's product with X, and if wanted the squared norm of the matrix without its largest eigenvalue."""
        X, inverse = X.astype(self._dtype), (1 / self._roots).astype(self._dtype)

        def squared(kernel: NDArray[Any], rows: slice, columns: slice) -> float:
            block = kernel * inverse[rows, None]
            block *= inverse[columns]
            block -= top[rows, None] * top[columns]
            return float(np.vdot(block, block))

        top = self._top.astype(self._dtype)
        if self._held is not None:
            every, blocks = slice(None), [slice(i, i + _TILE) for i in self._starts]
            found = [squared(self._held[rows], rows, every) for rows in blocks] if squares else []
            return (self._held @ X).astype(np.float64), sum(found)
        threads = blas_threads()

        def share(number: int) -> tuple[Values, float]:
            total, norm = np.zeros(X.shape), 0.0
            for i in self._starts[number::threads]:
                rows = slice(i, i + _TILE)
                for j in self._starts[i // _TILE :]:
                    columns, tile = slice(j, j + _TILE), self._tile(i, j)
                    total[rows] += tile @ X[columns]
                    if i != j:
                        total[columns] += tile.T @ X[rows]
                    if squares:
                        norm += (1 if i == j else 2) * squared(tile, rows, columns)
            return total, norm

        totals, norms = zip(*in_threads(share, range(threads)), strict=True)
        return np.sum(totals, axis=0), sum(norms)

    def _whole(self) -> NDArray[Any]:
        kernel = np.empty((self.n, self.n), dtype=self._dtype)

        def fill(i: int) -> None:
            for j in self._starts[i // _TILE :]:
                kernel[i : i + _TILE, j : j + _TILE] = tile = self._tile(i, j)
                kernel[j : j + _TILE, i : i + _TILE] = tile.T

        in_threads(fill, self._starts)
        return kernel

    def _tile(self, i: int, j: int) -> NDArray[Any]:
        """The kernel between the points from i and those from j."""
        rows, columns = slice(i, i + _TILE), slice(j, j + _TILE)
        if self._narrow:
            tile = self._points[rows] @ self._points[columns].T
            tile -= self._norms[rows, None]
            tile -= self._norms[columns]
        else:
            tile = distances_between(self._points[rows], self._points[columns], self._Z[rows], self._Z[columns])
            with np.errstate(over="ignore"):
                tile /= -2 * self._sigma**2
        np.minimum(tile, 0, out=tile)
        if i == j:
            np.fill_diagonal(tile, 0)
        with np.errstate(under="ignore"):
            return np.exp(tile, out=tile).astype(self._dtype, copy=False)
