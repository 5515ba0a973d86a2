"""Products with an embedding's diffusion matrix, which need not fit into memory."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..core.arrays import (
    Array,
    as_float32,
    exponential_in_place,
    is_on_host,
    namespace,
    not_above_zero_in_place,
    rows_of,
    set_diagonal,
)
from ..core.distances import centred_rows, distances_between, gaussian_kernel
from ..core.exact_or_estimated import Precision
from ..core.threads import blas_threads, in_threads

Summed = Callable[[Array, slice, slice], Array]
"""A function of a part of the kernel, its rows and its columns, whose values are summed."""

HELD_BYTES = 2**30
"""Bytes of the kernel's tiles that are held in memory; every product recomputes the others."""

_TILE = 2048  # points a side: 16 MiB of float32
_COPIES = (
    6  # of a sketch, at the peak of memory: itself, the basis, and sums and products of two threads
)
_FLOAT32_BLIND = 1e-10
_FLOAT32_REACH = 16.0  # squared distance from the centre, in units of 2 sigma^2, up to which float32 is good to 1e-6
# A float64 product may agree with its check to the last bit, yet both are rounded: by up to some ten units where equal
# terms are added, as with many equal points.
FLOAT64_NOISE = 16 * float(np.finfo(np.float64).eps)
_ROWS = 128  # of a tile that are processed at a time: 1 MiB of float32
_CHECKED = 64  # rows that are recomputed in float64, to see how far the products are off


class Operator(Protocol):
    """A symmetric matrix with eigenvalues from 0 to 1; products leave out the largest, whose eigenvector is known."""

    n: int

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues except the largest."""

    @property
    def squared_norm(self) -> float:
        """The sum of the squares of all eigenvalues except the largest; known after the first product."""

    @property
    def trace_error(self) -> float:
        """The possible error of the trace."""

    def squared_norm_error(self, noise: float) -> float:
        """Return the possible error of the squared norm, given the noise of vectors of random directions."""

    def normalise(self, sketch: Array) -> Array:
        """Return an orthonormal basis of the largest eigenvalue's vector and of the product with a sketch [n, k]."""

    def times(self, X: Array) -> Array:
        """Return the product with a block of vectors [n, k], without the largest eigenvalue."""

    def noise(self, X: Array, product: Array) -> Array:
        """Return how far a product is off for each vector, as a share of its length, [k]."""


class DiffusionOperator:
    """An embedding's diffusion matrix G_ij / sqrt(q_i q_j), q the row sums of the Gaussian kernel G, for products.

    Only the kernel's tiles on and above the diagonal are computed, in the given precision; in float32 from distances
    in float32 where these are good to about 1e-6 of 2 sigma^2, else in float64.

    Parameters
    ----------
    Z : float64 [n, d]
        A validated embedding.
    sigma : float
        Width of the kernel.
    precision
        Precision of the kernel and of products with it.
    held_bytes : int
        Bytes of tiles, and of copies of a sketch, that are held in memory.
    """

    def __init__(
        self, Z: Array, sigma: float, precision: Precision, held_bytes: int = HELD_BYTES
    ) -> None:
        xp = self._xp = namespace(Z)
        self.n = Z.shape[0]
        self._Z = Z
        self._sigma = sigma
        self._is_narrow = precision == "float32"
        self._epsilon = float(np.finfo(precision).eps)
        points = centred_rows(Z)
        with np.errstate(over="ignore", under="ignore"):
            reach = float(xp.max(xp.vecdot(points, points))) / (2 * sigma**2)
        self._by_narrow_distances = self._is_narrow and reach <= _FLOAT32_REACH
        if self._by_narrow_distances:
            # Distances too small for the kernel's digits count as 0; tiny numbers would only cost time.
            points = xp.zeros_like(points[:, :1]) if reach < _FLOAT32_BLIND else points / sigma
            points = as_float32(points)
            norms, ones = -xp.vecdot(points, points)[:, None] / 2, xp.ones_like(points[:, :1])
            # So that x'y - |x|^2 / 2 - |y|^2 / 2 is one product.
            self._columns = xp.concat([points, ones, norms], axis=1)
            points = xp.concat([points, norms, ones], axis=1)
        self._points = points
        self._starts = range(0, self.n, _TILE)
        self._held: dict[tuple[int, int], Array] = {}
        self._held_bytes = held_bytes
        self._bytes_of_tile = np.dtype(precision).itemsize * min(self.n, _TILE) ** 2
        self._most_held = 0  # tiles; known in ``normalise``
        # Placeholders until ``normalise``.
        self._roots, self._top, self._squared_norm = (
            Z[:, 0],
            Z[:, 0],
            float("nan"),
        )
        self._checked = np.linspace(0, self.n - 1, min(self.n, _CHECKED)).astype(np.int64)
        self._exact, self._trace_error = Z, float("nan")

    def normalise(self, sketch: Array) -> Array:
        """Fix the row sums; return an orthonormal basis [n, 1 + k] of the top eigenvector and product with a sketch.

        Its first column is the eigenvector of the eigenvalue 1, which all further products leave out: the other
        eigenvalues may be a millionth of it, and would be lost in its rounding.
        """
        xp = self._xp
        of_vectors = _COPIES * 8 * sketch.shape[0] * sketch.shape[1]
        self._most_held = max(0, (self._held_bytes - of_vectors) // self._bytes_of_tile)
        # The sums are float64: in float32, 0.999999 added to 1,000 is 1 each time, an error in one direction.
        product, sums = self._kernel_times(sketch, lambda kernel, rows, columns: kernel)
        self._roots = xp.sqrt(sums)
        self._top = self._roots / xp.linalg.vector_norm(self._roots)
        self._check()
        return xp.linalg.qr(
            xp.concat([self._top[:, None], product / self._roots[:, None]], axis=1)
        ).Q

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues except the largest; the kernel's diagonal is 1."""
        return float(self._xp.sum(1 / self._roots**2)) - 1

    @property
    def squared_norm(self) -> float:
        """The sum of the squares of all eigenvalues except the largest; known after the first product."""
        return self._squared_norm

    @property
    def trace_error(self) -> float:
        """The possible error of the trace."""
        return self._trace_error

    def squared_norm_error(self, noise: float) -> float:
        """Return the possible error of the squared norm, given the noise of vectors of random directions.

        A matrix that is off by E turns a unit vector of random direction into one that is off by |E| / sqrt n, so |E|
        is at most sqrt n times the noise. In addition each entry is rounded when the largest eigenvalue is taken out.
        """
        norm = np.sqrt(self._squared_norm)
        off = np.sqrt(self.n) * noise + self._epsilon * (1 + norm)
        return float(2 * norm * off + off**2)

    def times(self, X: Array) -> Array:
        """Return the product of the matrix without its largest eigenvalue with a block of vectors, float64 [n, k]."""
        first = np.isnan(self._squared_norm)
        scaled = self._as_kernel(X) / self._as_kernel(self._roots)[:, None]
        product, squares = self._kernel_times(scaled, self._squares() if first else None)
        product /= self._roots[:, None]
        product -= self._top[:, None] * (self._top[None, :] @ product)
        if first:
            self._squared_norm = float(self._xp.sum(squares))
        return product

    def _squares(self) -> Summed:
        """Return the function that squares the entries of the matrix without its largest eigenvalue."""
        inverse, top = self._as_kernel(1 / self._roots), self._as_kernel(self._top)

        def squared(kernel: Array, rows: slice, columns: slice) -> Array:
            block = kernel * inverse[rows, None]
            block *= inverse[None, columns]
            block -= top[rows, None] * top[None, columns]
            with np.errstate(under="ignore"):
                block *= block
            return block

        return squared

    def noise(self, X: Array, product: Array) -> Array:
        """Return how far a product is off for each of its vectors [n, k], as a share of the vector's length: [k].

        Some rows in float64 show all rounding errors: of distances, the kernel, the vectors, and their products. Errors
        are largest for vectors with large products, above all where many points coincide, because equal terms
        round alike.
        """
        xp = self._xp
        deviations = rows_of(product, self._checked) - self._exact @ X
        shares_of_square = xp.mean(deviations**2, axis=0) / xp.mean(X**2, axis=0)
        return xp.clip(xp.sqrt(shares_of_square), FLOAT64_NOISE, None)

    def _check(self) -> None:
        """Compute some rows of the matrix in float64, and from their sums how far the trace may be off."""
        xp, centred = self._xp, centred_rows(self._Z)
        some, some_centred = rows_of(self._Z, self._checked), rows_of(centred, self._checked)
        roots = rows_of(self._roots, self._checked)
        kernel = gaussian_kernel(
            distances_between(some_centred, centred, some, self._Z), self._sigma
        )
        deviations = 1 / xp.sum(kernel, axis=1) - 1 / roots**2
        # As if all errors had the same sign, because those of equal terms may.
        self._trace_error = self.n * float(xp.sqrt(xp.mean(deviations**2)))
        self._exact = kernel / roots[:, None] / self._roots[None, :]

    def _as_kernel(self, array: Array) -> Array:
        """Return an array in the kernel's precision."""
        xp = self._xp
        return xp.astype(array, xp.float32, copy=False) if self._is_narrow else array

    def _kernel_times(self, X: Array, summed: Summed | None = None) -> tuple[Array, Array]:
        """Return the kernel's product with X, and float64 row sums of ``summed``, a symmetric function, if given."""
        xp, X = self._xp, self._as_kernel(X)
        threads = blas_threads() if is_on_host(X) else 1
        tiles = [(i, j) for i in self._starts for j in self._starts if i <= j]

        def share(number: int) -> tuple[Array, Array]:
            total, sums = (xp.zeros_like(a, dtype=xp.float64) for a in (X, X[:, 0]))
            for i, j in tiles[number::threads]:
                rows, columns, tile = self._tile_at(i), self._tile_at(j), self._kept_tile(i, j)
                total[rows, :] += tile @ X[columns, :]
                if i != j:
                    total[columns, :] += tile.T @ X[rows, :]
                if summed is None:
                    continue
                part = summed(tile, rows, columns)
                sums[rows] += xp.sum(part, axis=1, dtype=xp.float64)
                if i != j:
                    sums[columns] += xp.sum(part, axis=0, dtype=xp.float64)
            return total, sums

        (total, sums), *others = in_threads(share, range(threads))
        for further_total, further_sums in others:
            total += further_total
            sums += further_sums
        return total, sums

    def _kept_tile(self, i: int, j: int) -> Array:
        """Return the kernel between the points from i and those from j, kept if there is room."""
        tile = self._held.get((i, j))
        if tile is None:
            tile = self._tile(i, j)
            if len(self._held) < self._most_held:
                self._held[i, j] = tile
        return tile

    def _tile_at(self, start: int) -> slice:
        return slice(start, min(start + _TILE, self.n))

    def _tile(self, i: int, j: int) -> Array:
        """Return the kernel between the points from i and those from j."""
        rows, columns = self._tile_at(i), self._tile_at(j)
        if self._by_narrow_distances:
            tile = self._points[rows, :] @ self._columns[columns, :].T
        else:
            points, Z = self._points, self._Z
            of_rows, of_columns = points[rows, :], points[columns, :]
            tile = distances_between(of_rows, of_columns, Z[rows, :], Z[columns, :])
            with np.errstate(over="ignore"):
                tile /= -2 * self._sigma**2
        if i == j:
            set_diagonal(tile, 0)
        step = _ROWS if is_on_host(tile) else tile.shape[0]
        for start in range(0, tile.shape[0], step):  # in the cache of a core
            some = tile[start : start + step, :]
            not_above_zero_in_place(some)
            exponential_in_place(some)
        return self._as_kernel(tile)
