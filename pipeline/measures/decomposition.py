"""What the scores of an embedding share: its singular values and vectors, and sums over groups of its rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, group_sums, namespace, times_power_of_two
from .once import computed_once


@dataclass(frozen=True)
class Decomposition:
    """A matrix [n, d], its right singular vectors, float64 [d, r], and squared singular values, float64 [r], ascending.

    r is its numerical rank: a squared singular value below max(n, d) times the rounding of the largest is taken for 0.
    Where n is at most d, the left singular vectors are what is at hand, and ``axes`` are None.
    """

    values: Array
    squares: Array
    axes: Array | None
    left: Array | None

    @computed_once
    def components(self) -> Array:
        """The coordinates of the rows along the principal axes, that of the least variance first, float64 [n, r]."""
        if self.axes is None:
            return self.left * namespace(self.squares).sqrt(self.squares)
        return self.values @ self.axes

    @computed_once
    def vectors(self) -> Array:
        """The left singular vectors, float64 [n, r]."""
        return (
            self.left
            if self.axes is None
            else self.components / namespace(self.squares).sqrt(self.squares)
        )

    def class_sums(self, classes: NDArray[np.int64]) -> Array:
        """Sums of the rows of ``vectors`` over each class, float64 [classes, r], without them if need be."""
        if self.axes is None:
            return group_sums(self.left, classes)
        return group_sums(self.values, classes) @ (
            self.axes / namespace(self.squares).sqrt(self.squares)
        )


def decomposed(values: Array) -> Decomposition:
    """Decompose a matrix [n, d] by the eigenvectors of its Gram matrix, n x n or d x d, whichever is smaller."""
    n, d = values.shape
    squares, vectors = namespace(values).linalg.eigh(
        values @ values.T if n <= d else values.T @ values
    )
    least = max(n, d) * float(np.finfo(np.float64).eps) * float(squares[-1])
    below = int(namespace(values).count_nonzero(squares <= least))
    squares, vectors = squares[below:], vectors[:, below:]
    return (
        Decomposition(values, squares, None, vectors)
        if n <= d
        else Decomposition(values, squares, vectors, None)
    )


def scaled(values: Array) -> tuple[Array, int]:
    """Divide by 2^e, which changes no digit, so that the largest is 1/2 to 1 and no square or its square overflows.

    Returns
    -------
    (float64 as ``values``, e)
    """
    xp = namespace(values)
    exponent = int(np.frexp(float(xp.max(xp.abs(values))))[1])
    return times_power_of_two(values, -exponent), exponent


def centred(Z: Array) -> tuple[Array, int]:
    """The rows of a validated embedding less their mean, divided by 2^e, float64 [n, d], and e."""
    values, exponent = scaled(Z - Z[:1, :])  # first, so that equal rows become exactly zero
    return values - namespace(values).mean(values, axis=0), exponent
