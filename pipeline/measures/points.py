"""An embedding that several measures share: validated once, its distances computed once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import EXACT_UP_TO
from .inputs import as_embedding
from .spectrum import centred_rows, distances_between, squared_distances

_BLOCK = 2048  # rows of distances at a time where there are too many points for all of them


@dataclass(frozen=True)
class Points:
    """A validated embedding, float64 [n, d]."""

    values: NDArray[np.float64]

    @property
    def few(self) -> bool:
        """Whether a matrix [n, n] is no burden."""
        return len(self.values) <= EXACT_UP_TO

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """Squared distances of all pairs, float64 [n, n]; kept."""
        return squared_distances(self.values)

    def median_distance(self, seed: int) -> float:
        """Median distance over the pairs of points, of some of the points (by the seed) if they are many."""
        if self.few:
            squares = self.squares
        else:
            generator = np.random.default_rng(seed)
            some = generator.choice(len(self.values), EXACT_UP_TO, replace=False)
            squares = squared_distances(self.values[some])
        pairs = np.concatenate([squares[i, i + 1 :] for i in range(len(squares) - 1)])
        middle = [(len(pairs) - 1) // 2, len(pairs) // 2]
        return float(np.mean(np.sqrt(np.partition(pairs, middle)[middle])))

    def rows_of_squares(self) -> Iterator[NDArray[np.float64]]:
        """The squared distances [m, n] from some points to all, block by block."""
        if self.few:
            yield self.squares
            return
        centred = centred_rows(self.values)
        for start in range(0, len(centred), _BLOCK):
            some = slice(start, start + _BLOCK)
            yield distances_between(centred[some], centred, self.values[some], self.values)


def as_points(Z: ArrayLike | Points) -> Points:
    """Validate an embedding, unless it is already.

    Raises
    ------
    ValueError
        As ``as_embedding``.
    """
    return Z if isinstance(Z, Points) else Points(as_embedding(Z))
