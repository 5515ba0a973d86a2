"""Distances between the rows of an embedding, computed once; their Gaussian kernel; and directions of rows."""

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import (
    Array,
    block_of,
    is_on_host,
    middle_values,
    namespace,
    rows_of,
    set_diagonal,
    to_host,
)
from .checks import UndefinedScore, as_embedding
from .exact_or_estimated import EXACT_UP_TO
from .threads import computed_once, in_threads

# Below this share of |a|^2 + |b|^2, the squared distance |a|^2 + |b|^2 - 2ab has a relative error above about 1e-9.
_NEAR = 1e-6

_CACHED = 2**17  # numbers in a block that several steps pass over: 1 MiB
BLOCK_NUMBERS = 2**22  # numbers in a block of differences or a stack of matrices: 32 MiB


def squared_distances(Z: Array) -> Array:
    """Return the squared Euclidean distances of all pairs of rows.

    They come from the Gram matrix of the centred rows. Pairs that are much nearer to each other than to the centre, so
    that rounding would matter, are recomputed from their difference. So duplicates are at distance 0 exactly, and
    neither a large offset nor an outlier reduces the accuracy.

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
    """Return the rows minus their mean; equal rows become exactly zero."""
    centred = Z - Z[:1, :]
    return centred - namespace(Z).mean(centred, axis=0)


def distances_between(rows: Array, columns: Array, Z_rows: Array, Z_columns: Array) -> Array:
    """Return the squared distances, float64 [a, b], of points [a, d] and [b, d], each given centred and uncentred."""
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
    """Return the squared length of the difference of each pair of points, float64 [pairs]."""
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
    # For points far apart in units of sigma it underflows to 0, as it should.
    with np.errstate(over="ignore", under="ignore"):
        return xp.exp(squares / (-2 * sigma**2))


def row_blocks(matrix: Array) -> list[slice]:
    """Return slices of a matrix's rows that each fit into a core's cache; on a device, one slice of all rows."""
    rows, columns = matrix.shape
    step = max(1, _CACHED // columns) if is_on_host(matrix) else rows
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


SQUARES_FIT = 400  # powers of two: squares of larger numbers leave the range of float64
ALIKE = 1e-12  # squared distances below this share of their mean are rounding
_BLOCK = 2048  # rows of distances at a time, if there are too many points for all pairs


class Points:
    """A validated embedding, float64 [n, d], in NumPy's memory or on a device.

    Parameters
    ----------
    values : float64 [n, d]
    squares : callable, optional
        Returns the squared distances of all pairs, if they follow from known distances.
    """

    def __init__(self, values: Array, squares: Callable[[], Array] | None = None) -> None:
        self.values = values
        self._squares = squares

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def few(self) -> bool:
        """Whether a matrix [n, n] fits easily into memory."""
        return self.values.shape[0] <= EXACT_UP_TO

    @computed_once
    def squares(self) -> Array:
        """Squared distances of all pairs, float64 [n, n]."""
        return squared_distances(self.values) if self._squares is None else self._squares()

    def part(self, rows: NDArray[np.int64]) -> Self:
        """Return the points with these indices, int64 [m]."""
        values = rows_of(self.values, rows)
        if not self.few:
            return type(self)(values)
        return type(self)(values, lambda: block_of(self.squares, rows))

    def different(self) -> NDArray[np.int64]:
        """Return the indices of the points that differ from all earlier points, int64 [m]."""
        xp, squares = namespace(self.squares), self.squares
        alike = squares <= ALIKE * float(xp.mean(squares))
        first = to_host(xp.argmax(xp.astype(alike, xp.uint8), axis=1))
        return np.flatnonzero(first == np.arange(len(first)))

    def median_distance(self, seed: int) -> float:
        """Return the median distance over pairs of points; over a random sample of the points if there are many."""
        if self.few:
            squares = self.squares
        else:
            generator = np.random.default_rng(seed)
            some = np.sort(generator.choice(self.values.shape[0], EXACT_UP_TO, replace=False))
            squares = squared_distances(rows_of(self.values, some))
        low, high = middle_values(_of_pairs(squares))
        return float(np.sqrt(low) + np.sqrt(high)) / 2

    def rows_of_squares(self) -> Iterator[Array]:
        """Yield the squared distances [m, n] from each block of points to all points."""
        if self.few:
            yield self.squares
            return
        centred = centred_rows(self.values)
        for start in range(0, centred.shape[0], _BLOCK):
            some = slice(start, min(start + _BLOCK, centred.shape[0]))
            yield distances_between(centred[some, :], centred, self.values[some, :], self.values)


def _of_pairs(squares: Array) -> Array:
    """Return the entry of each pair of points once, [n (n - 1) / 2]."""
    if is_on_host(squares):
        return np.concatenate([squares[i, i + 1 :] for i in range(squares.shape[0] - 1)])
    xp = namespace(squares)
    return squares[xp.triu(xp.ones_like(squares, dtype=xp.bool), k=1)]


def as_points(Z: ArrayLike | Points) -> Points:
    """Validate an embedding as ``as_embedding`` does; return points as they are."""
    return Z if isinstance(Z, Points) else Points(as_embedding(Z))


NEARLY_ALONG = 0.01

SAME = 4 * float(np.finfo(np.float64).eps)  # smaller differences of directions are rounding


def directions(values: Array, name: str = "rows") -> Array:
    """Return each row scaled to length 1, float64 [n, d]; ``name`` names the rows in reasons."""
    xp = namespace(values)
    lengths = xp.linalg.vector_norm(values, axis=1)
    shortest = float(np.finfo(np.float64).eps) * float(xp.max(lengths))
    without = int(xp.count_nonzero(lengths <= shortest))
    if without:
        raise UndefinedScore(f"{without} of {values.shape[0]} {name} have no direction, they are 0")
    unit = values / lengths[:, None]
    spread = xp.max(unit, axis=0) - xp.min(unit, axis=0)
    if float(xp.max(spread)) <= SAME:
        raise UndefinedScore(f"all {name} have the same direction")
    return unit


def direction_points(points: Points) -> Points:
    """Return the directions of the rows as points; if they are few, their distances follow from those of the rows."""
    unit = directions(points.values)
    if not points.few:
        return Points(unit)
    return Points(unit, lambda: squares_of_directions(points.squares, points.values, unit))


def squares_of_directions(squares: Array, values: Array, unit: Array) -> Array:
    """Return the squared distances [n, n] of the rows' directions u, from those of the rows z, centred or not.

    |u - v|^2 = (|z - w|^2 - (|z| - |w|)^2) / (|z| |w|). Pairs for which that difference is small compared with the
    subtracted term are recomputed from their directions.
    """
    xp = namespace(values)
    lengths = xp.linalg.vector_norm(values, axis=1)
    of_directions = xp.empty_like(squares)

    def fill(some: slice) -> None:
        along = lengths[some, None] - lengths[None, :]
        along *= along
        block = squares[some, :] - along
        near = block < NEARLY_ALONG * along
        block /= lengths[some, None]
        block /= lengths[None, :]
        if xp.any(near):
            block[near] = differences(xp.nonzero(near), unit[some, :], unit)
        of_directions[some, :] = block

    in_threads(fill, row_blocks(squares))
    return of_directions
