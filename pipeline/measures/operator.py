"""Products with an embedding's diffusion matrix, which need not fit into memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.estimate import Precision
from pipeline.measures.spectrum import blas_threads, centred_rows, distances_between, in_threads

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
            points = np.zeros((self.n, 1)) if reach < _FLOAT32_BLIND else points / (np.sqrt(2) * sigma)
            points = points.astype(np.float32)
            self._norms = np.einsum("ij,ij->i", points, points)
        self._points = points
        self._starts = range(0, self.n, _TILE)
        self._held = self._whole() if self._dtype.itemsize * self.n**2 <= held_bytes else None
        self._roots = np.ones(self.n)

    def normalise(self, sketch: Values) -> Values:
        """Fix the row sums; returns the unit eigenvector of eigenvalue 1, and the range seen by the sketch [n, k].

        The columns are an orthonormal basis, [n, 1 + k], of the eigenvector and of the matrix times random vectors.
        """
        product = self._kernel_times(np.column_stack([np.ones(self.n), sketch]))
        self._roots = np.sqrt(product[:, 0])
        basis, _ = np.linalg.qr(np.column_stack([self._roots, product[:, 1:] / self._roots[:, None]]))
        return basis

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues, exactly: the kernel's diagonal is 1."""
        return float(np.sum(1 / self._roots**2))

    def squared_norm(self) -> float:
        """The sum of the squared eigenvalues."""
        weights = 1 / self._roots**2
        return float(weights @ self._kernel_times(weights[:, None], squared=True)[:, 0])

    def times(self, X: Values) -> Values:
        """The product with a block of vectors, float64 [n, k]."""
        return self._kernel_times(X / self._roots[:, None]) / self._roots[:, None]

    def _kernel_times(self, X: Values, squared: bool = False) -> Values:
        X = X.astype(self._dtype)
        if self._held is not None:
            if squared:  # block by block, for a second matrix of this size may not fit
                return np.concatenate([self._held[i : i + _TILE] ** 2 @ X for i in self._starts]).astype(np.float64)
            return (self._held @ X).astype(np.float64)
        threads = blas_threads()

        def share(number: int) -> Values:
            total = np.zeros(X.shape, dtype=np.float64)
            for i in self._starts[number::threads]:
                for j in self._starts[i // _TILE :]:
                    tile = self._tile(i, j)
                    if squared:
                        tile *= tile
                    total[i : i + _TILE] += tile @ X[j : j + _TILE]
                    if i != j:
                        total[j : j + _TILE] += tile.T @ X[i : i + _TILE]
            return total

        return np.sum(in_threads(share, range(threads)), axis=0)

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
            tile *= 2
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
