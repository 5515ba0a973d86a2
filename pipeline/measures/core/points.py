"""An embedding that several measures share: validated once, its distances computed once."""

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, block_of, is_on_host, middle_values, namespace, rows_of
from .checks import as_embedding
from .distances import centred_rows, distances_between, squared_distances
from .estimate import EXACT_UP_TO
from .once import computed_once

SQUARES_FIT = 400  # powers of two: numbers beyond have squares that leave the range of float64
_BLOCK = 2048  # rows of distances at a time where there are too many points for all of them


class Points:
    """A validated embedding, float64 [n, d], in NumPy's memory or on a device.

    Parameters
    ----------
    values : float64 [n, d]
    squares : callable, optional
        Gives the squared distances of all pairs where they follow from what is known; else they are computed.
    """

    def __init__(self, values: Array, squares: Callable[[], Array] | None = None) -> None:
        self.values = values
        self._squares = squares

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def few(self) -> bool:
        """Whether a matrix [n, n] is no burden."""
        return self.values.shape[0] <= EXACT_UP_TO

    @computed_once
    def squares(self) -> Array:
        """Squared distances of all pairs, float64 [n, n]; kept."""
        return squared_distances(self.values) if self._squares is None else self._squares()

    def part(self, rows: NDArray[np.int64]) -> Self:
        """Some of the points, int64 [m]."""
        values = rows_of(self.values, rows)
        return (
            type(self)(values, lambda: block_of(self.squares, rows))
            if self.few
            else type(self)(values)
        )

    def median_distance(self, seed: int) -> float:
        """Median distance over the pairs of points, of some of the points (by the seed) if they are many."""
        if self.few:
            squares = self.squares
        else:
            generator = np.random.default_rng(seed)
            some = np.sort(generator.choice(self.values.shape[0], EXACT_UP_TO, replace=False))
            squares = squared_distances(rows_of(self.values, some))
        low, high = middle_values(_of_pairs(squares))
        return float(np.sqrt(low) + np.sqrt(high)) / 2

    def rows_of_squares(self) -> Iterator[Array]:
        """The squared distances [m, n] from some points to all, block by block."""
        if self.few:
            yield self.squares
            return
        centred = centred_rows(self.values)
        for start in range(0, centred.shape[0], _BLOCK):
            some = slice(start, min(start + _BLOCK, centred.shape[0]))
            yield distances_between(centred[some, :], centred, self.values[some, :], self.values)


def _of_pairs(squares: Array) -> Array:
    """The entry of each pair of points, once, [n (n - 1) / 2]."""
    if is_on_host(squares):
        return np.concatenate([squares[i, i + 1 :] for i in range(squares.shape[0] - 1)])
    xp = namespace(squares)
    return squares[xp.triu(xp.ones_like(squares, dtype=xp.bool), k=1)]


def as_points(Z: ArrayLike | Points) -> Points:
    """Validate an embedding, unless it is already.

    Raises
    ------
    ValueError
        As ``as_embedding``.
    """
    return Z if isinstance(Z, Points) else Points(as_embedding(Z))
