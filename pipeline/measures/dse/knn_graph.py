"""The nearest neighbours of many points, their diffusion matrix as a sparse one, and products with its square."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array
from ..core.distances import centred_rows
from ..core.threads import in_threads
from .operator import FLOAT64_NOISE

ROWS, COLUMNS = 1024, 4096  # points of a tile of distances: 16 MiB of float32
SPARE = 5  # neighbours beyond k that float32 distances choose, of which float64 keeps k
_ROWS_AT_ONCE = 4096  # of the sparse matrix, for each thread

Values = NDArray[np.float64]


def nearest_neighbours(points: Values, k: int) -> tuple[Values, NDArray[np.int64]]:
    """Return the squared distances of the k nearest other points, ascending, and their numbers, each [n, k].

    By all pairs, in tiles: products in float32 choose k + 5 candidates, whose distances in float64 decide.
    """
    n = len(points)
    centred = centred_rows(points)
    largest = float(np.abs(centred).max()) or 1.0
    narrow = (centred / largest).astype(np.float32)
    halves = np.einsum("ij,ij->i", narrow, narrow) / 2
    wanted = min(k + SPARE, n - 1)
    squares, numbers = np.empty((n, k)), np.empty((n, k), dtype=np.int64)

    def search(start: int) -> None:
        some = slice(start, min(start + ROWS, n))
        found = _candidates(narrow, halves, some, wanted)
        exact = _squares_to(centred, some, found)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        squares[some] = np.take_along_axis(exact, order, axis=1)
        numbers[some] = np.take_along_axis(found, order, axis=1)

    in_threads(search, range(0, n, ROWS))
    return squares, numbers


def _candidates(
    narrow: NDArray[np.float32], halves: NDArray[np.float32], some: slice, wanted: int
) -> NDArray[np.int64]:
    """Return the other points nearest to some points, [m, wanted], sorted by their numbers.

    After the first tile, only what is nearer than the last candidate so far is looked at: few numbers of a tile.
    """
    n, m = len(narrow), some.stop - some.start
    # Half the squared distance less what all columns share.
    nearest = np.full((m, wanted), np.inf, dtype=np.float32)
    numbers = np.zeros((m, wanted), dtype=np.int64)
    own = np.arange(some.start, some.stop)
    for start in range(0, n, COLUMNS):
        stop = min(start + COLUMNS, n)
        tile = narrow[some] @ narrow[start:stop].T
        np.subtract(halves[start:stop], tile, out=tile)
        inside = (own >= start) & (own < stop)
        tile[inside, own[inside] - start] = np.inf
        if start == 0 and stop > wanted:
            numbers = np.argpartition(tile, wanted - 1, axis=1)[:, :wanted].astype(np.int64)
            nearest = np.take_along_axis(tile, numbers, axis=1)
            continue
        rows, columns = np.divmod(np.flatnonzero(tile < nearest.max(axis=1)[:, None]), stop - start)
        if len(rows):
            _merge(nearest, numbers, rows, columns + start, tile[rows, columns])
    return np.sort(numbers, axis=1)


def _merge(
    nearest: NDArray[np.float32],
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Put points that are nearer than the last candidate among the candidates [m, wanted] of their rows."""
    m, wanted = nearest.shape
    counts = np.bincount(rows, minlength=m)
    # The new ones of each row side by side, padded by infinity.
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = m, int(counts.max())
    values, new = np.full(shape, np.inf, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    values[rows, place], new[rows, place] = found, columns
    all_values, all_numbers = np.hstack([nearest, values]), np.hstack([numbers, new])
    best = np.argpartition(all_values, wanted - 1, axis=1)[:, :wanted]
    nearest[:] = np.take_along_axis(all_values, best, axis=1)
    numbers[:] = np.take_along_axis(all_numbers, best, axis=1)


def _squares_to(points: Values, some: slice, others: NDArray[np.int64]) -> Values:
    """Return the squared distances of some points to others, [m, k], one column at a time to save memory."""
    squares = np.empty(others.shape)
    for column in range(others.shape[1]):
        difference = points[some] - points[others[:, column]]
        squares[:, column] = np.einsum("ij,ij->i", difference, difference)
    return squares


def different_neighbours(
    points: Values, k: int, alike: float
) -> tuple[Values, NDArray[np.int64], NDArray[np.int64]]:
    """Return the neighbours of those points that no earlier one is alike, and which points these are.

    Points within a squared distance of ``alike`` are one. If that leaves k points or fewer, so many neighbours less.
    """
    kept = np.arange(len(points))
    while True:
        reach = min(k, len(kept) - 1)
        chosen = points if len(kept) == len(points) else points[kept]
        squares, numbers = nearest_neighbours(chosen, reach)
        nearest = np.where(squares <= alike, numbers, len(kept)).min(axis=1, initial=len(kept))
        earlier = nearest < np.arange(len(kept))
        if not earlier.any():
            return squares, numbers, kept
        kept = kept[~earlier]


def settled(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow each point's reference to an earlier point until it refers to itself."""
    while (first[first] != first).any():
        first = first[first]
    return first


def sparse_matrix(points: Values, k: int, alike: float) -> tuple[Any, Values]:
    """Return the diffusion matrix of the points that are not alike, by k neighbours, and its eigenvector of 1.

    The matrix is SciPy's sparse one [m, m]; the vector [m] holds the roots of the kernel's row sums.
    """
    from scipy.sparse import coo_array, eye_array  # imported here: it takes a tenth of a second

    squares, numbers, _ = different_neighbours(points, k, alike)
    n, k = squares.shape
    if k == 0:
        return eye_array(1, format="csr"), np.ones(1)
    width = np.sqrt(squares[:, -1])
    with np.errstate(over="ignore", under="ignore"):
        near = np.exp(-(squares / width[:, None]) / width[numbers])
    rows = np.repeat(np.arange(n), k)
    one_way = coo_array((near.ravel(), (rows, numbers.ravel())), shape=(n, n)).tocsr()
    kernel = one_way.maximum(one_way.T).tocsr() + eye_array(n, format="csr")
    rows = np.repeat(np.arange(n), np.diff(kernel.indptr))
    for power in (1.0, 0.5):
        sums = kernel.sum(axis=1)
        scale = sums**-power
        kernel.data *= scale[rows]
        kernel.data *= scale[kernel.indices]
    return kernel, np.sqrt(sums)


class KnnOperator:
    """The square of a sparse diffusion matrix S [n, n], for products with blocks of vectors in float64.

    S may have eigenvalues below 0; those of its square are between 0 and 1, as the quadrature needs.
    """

    def __init__(self, matrix: Any, roots: Values) -> None:
        self._matrix = matrix
        self.n = matrix.shape[0]
        self._top = roots / np.linalg.norm(roots)
        starts = range(0, self.n, _ROWS_AT_ONCE)
        self._rows = [matrix[start : start + _ROWS_AT_ONCE] for start in starts]
        self.trace = float(matrix.multiply(matrix).sum()) - 1
        self.squared_norm = self._sum_of_squared_square() - 1
        self.trace_error = FLOAT64_NOISE * (self.trace + 1)

    def _sum_of_squared_square(self) -> float:
        def of_rows(rows: Any) -> float:
            block = rows @ self._matrix
            return float(block.data @ block.data)

        return sum(in_threads(of_rows, self._rows))

    def squared_norm_error(self, noise: float) -> float:
        """How far the squared norm may be off."""
        return FLOAT64_NOISE * (self.squared_norm + 1)

    def normalise(self, sketch: Array) -> Array:
        """Return an orthonormal basis of the eigenvector of 1 and of the product with a sketch: [n, 1 + k]."""
        product = self._twice(sketch)
        basis: Values = np.linalg.qr(np.column_stack([self._top, product])).Q
        return basis

    def times(self, X: Array) -> Array:
        """The product with a block of vectors, float64 [n, k], of the matrix without the eigenvalue of 1."""
        product = self._twice(X)
        product -= self._top[:, None] * (self._top[None, :] @ product)
        return product

    def noise(self, X: Array, product: Array) -> Array:
        """How far a product is off for each of its vectors, as a share of the vector's length: [k]."""
        return np.full(X.shape[1], FLOAT64_NOISE)

    def _twice(self, X: Array) -> Array:
        return self._once(self._once(X))

    def _once(self, X: Array) -> Array:
        return np.concatenate(in_threads(lambda rows: rows @ X, self._rows))
