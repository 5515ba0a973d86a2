"""A validated embedding whose distances are computed once."""

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, block_of, is_on_host, middle_values, namespace, rows_of, to_host
from .checks import as_embedding
from .distances import centred_rows, distances_between, squared_distances
from .estimate import EXACT_UP_TO
from .once import computed_once

SQUARES_FIT = 400  # powers of two: squares of larger numbers leave the range of float64
ALIKE = 1e-12  # squared distances below this share of their mean are rounding
_BLOCK = 2048  # rows of distances at a time, if there are too many points for all pairs


class Points:
    """A validated embedding, float64 [n, d], in NumPy's memory or on a device.

    Parameters
    ----------
    values : float64 [n, d]
    squares : callable, optional
        Returns the squared distances of all pairs, where they follow from known distances.
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
        """Return some of the points, int64 [m], as points."""
        values = rows_of(self.values, rows)
        if not self.few:
            return type(self)(values)
        return type(self)(values, lambda: block_of(self.squares, rows))

    def different(self) -> NDArray[np.int64]:
        """Return the points that differ from all points before them, int64 [m]."""
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
        """Yield the squared distances [m, n] from blocks of points to all."""
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
