"""Products with an embedding's diffusion matrix, which need not fit into memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .estimate import Precision
from .spectrum import blas_threads, centred_rows, distances_between, gaussian_kernel, in_threads

Values = NDArray[np.float64]

Summed = Callable[[NDArray[Any], slice, slice], NDArray[Any]]
"""What is summed of a part of the kernel, given that part, its rows and its columns."""

HELD_BYTES = 2**31
"""Bytes up to which the kernel is held in memory; beyond, every product computes it anew, tile by tile."""

_TILE = 2048  # points a side: 16 MiB of float32
_FLOAT32_BLIND = 1e-10
_FLOAT32_REACH = 16.0  # squared distance from the centre, in units of 2 sigma^2, up to which float32 is good to 1e-6
# A float64 product may agree with its check to the last bit, yet both are rounded: up to some ten units where like
# terms are added, as of many equal points.
_FLOAT64_NOISE = 16 * np.finfo(np.float64).eps
_ROWS = 128  # of a held kernel that are summed at a time
_CHECKED = 64  # rows that are computed once more in float64, to see how far the products are off


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
        self._checked = np.linspace(0, self.n - 1, min(self.n, _CHECKED)).astype(np.int64)
        self._exact, self._trace_error = np.zeros((len(self._checked), self.n)), float("nan")

    def normalise(self, sketch: Values) -> Values:
        """Fix the row sums; returns an orthonormal basis of ones and of the matrix times a sketch [n, k]: [n, 1 + k].

        Its first column is the eigenvector of the eigenvalue 1, which all that follows leaves out: the others may be a
        millionth of it, and would drown in its rounding.
        """
        # The sums are float64: in float32, 0.999999 added to 1,000 is 1 each time, an error in one direction.
        product, sums = self._kernel_times(sketch, lambda kernel, rows, columns: kernel)
        self._roots = np.sqrt(sums)
        self._top = self._roots / np.linalg.norm(self._roots)
        self._check()
        basis, _ = np.linalg.qr(np.column_stack([self._top, product / self._roots[:, None]]))
        return basis

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues but the largest: the kernel's diagonal is 1."""
        return float(np.sum(1 / self._roots**2)) - 1

    @property
    def squared_norm(self) -> float:
        """The sum of the squared eigenvalues but the largest; known once there was a product."""
        return self._squared_norm

    @property
    def trace_error(self) -> float:
        """How far the trace may be off."""
        return self._trace_error

    def squared_norm_error(self, noise: float) -> float:
        """How far the squared norm may be off, given the noise of vectors of random directions.

        A matrix that is off by E turns a unit vector of random direction into one that is off by |E| / sqrt n, so |E|
        is at most sqrt n times the noise. In addition each entry is rounded when the largest eigenvalue is taken out.
        """
        norm = np.sqrt(self._squared_norm)
        off = np.sqrt(self.n) * noise + np.finfo(self._dtype).eps * (1 + norm)
        return float(2 * norm * off + off**2)

    def times(self, X: Values) -> Values:
        """The product with a block of vectors, float64 [n, k], of the matrix without its largest eigenvalue."""
        first = np.isnan(self._squared_norm)
        product, squares = self._kernel_times(X / self._roots[:, None], self._squares() if first else None)
        product /= self._roots[:, None]
        product -= self._top[:, None] * (self._top @ product)
        if first:
            self._squared_norm = float(squares.sum())
        return product

    def _squares(self) -> Summed:
        """The squared entries of the matrix without its largest eigenvalue."""
        inverse, top = (1 / self._roots).astype(self._dtype), self._top.astype(self._dtype)

        def squared(kernel: NDArray[Any], rows: slice, columns: slice) -> NDArray[Any]:
            block = kernel * inverse[rows, None]
            block *= inverse[columns]
            block -= top[rows, None] * top[columns]
            with np.errstate(under="ignore"):
                block *= block
            return block

        return squared

    def noise(self, X: Values, product: Values) -> Values:
        """How far a product is off for each of its vectors [n, k], as a share of the vector's length: [k].

        Some rows, in float64, tell whatever rounding there is: of distances, the kernel, the vectors, and their
        products. Vectors on which the matrix does much come off worst, above all where many points are one, for like
        terms round alike.
        """
        deviations = product[self._checked] - self._exact @ X
        shares_of_square = np.mean(deviations**2, axis=0) / np.mean(X**2, axis=0)
        return np.maximum(np.sqrt(shares_of_square), _FLOAT64_NOISE)

    def _check(self) -> None:
        """Find some rows of the matrix in float64, and how far the trace is off, going by their sums."""
        some, centred = self._checked, centred_rows(self._Z)
        kernel = gaussian_kernel(distances_between(centred[some], centred, self._Z[some], self._Z), self._sigma)
        deviations = 1 / kernel.sum(axis=1) - 1 / self._roots[some] ** 2
        # As if all were in one direction, for rounding of like terms may be.
        self._trace_error = float(self.n * np.sqrt(np.mean(deviations**2)))
        self._exact = kernel / self._roots[some, None] / self._roots

    def _kernel_times(self, X: Values, summed: Summed | None = None) -> tuple[Values, Values]:
        """The kernel's product with X, and if wanted the float64 row sums of a symmetric function of the kernel."""
        X = X.astype(self._dtype)
        if self._held is not None:
            return (self._held @ X).astype(np.float64), self._held_sums(self._held, summed)
        threads = blas_threads()

        def share(number: int) -> tuple[Values, Values]:
            total, sums = np.zeros(X.shape), np.zeros(self.n)
            for i in self._starts[number::threads]:
                rows = slice(i, i + _TILE)
                for j in self._starts[i // _TILE :]:
                    columns, tile = slice(j, j + _TILE), self._tile(i, j)
                    total[rows] += tile @ X[columns]
                    if i != j:
                        total[columns] += tile.T @ X[rows]
                    if summed is None:
                        continue
                    part = summed(tile, rows, columns)
                    sums[rows] += part.sum(axis=1, dtype=np.float64)
                    if i != j:
                        sums[columns] += part.sum(axis=0, dtype=np.float64)
            return total, sums

        totals, sums = zip(*in_threads(share, range(threads)), strict=True)
        return np.sum(totals, axis=0), np.sum(sums, axis=0)

    def _held_sums(self, kernel: NDArray[Any], summed: Summed | None) -> Values:
        sums = np.zeros(self.n)

        if summed is None:
            return sums

        def add(i: int) -> None:
            rows = slice(i, i + _ROWS)
            sums[rows] = summed(kernel[rows], rows, slice(None)).sum(axis=1, dtype=np.float64)

        in_threads(add, range(0, self.n, _ROWS))
        return sums

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
