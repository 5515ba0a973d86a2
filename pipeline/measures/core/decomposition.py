"""The singular values and vectors of an embedding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, group_sums, namespace, times_power_of_two
from .checks import UndefinedScore
from .threads import computed_once


@dataclass(frozen=True)
class Decomposition:
    """A matrix [n, d], its squared singular values, float64 [r], ascending, and its singular vectors on one side.

    r is its numerical rank: a squared singular value below max(n, d) times the rounding of the largest counts as 0.
    Where n is at most d, ``left`` holds the left vectors, float64 [n, r], and ``right`` is None; otherwise ``right``
    holds the right ones, float64 [d, r], and ``left`` is None.
    """

    matrix: Array
    squares: Array
    right: Array | None
    left: Array | None

    def require_variance(self) -> None:
        """Raise UndefinedScore if the matrix, the centred embedding, is zero."""
        if not self.squares.shape[0]:
            raise UndefinedScore("all rows are the same")

    @computed_once
    def singular_values(self) -> Array:
        """The singular values, float64 [r], ascending."""
        return namespace(self.squares).sqrt(self.squares)

    @computed_once
    def components(self) -> Array:
        """The coordinates of the rows along the principal axes, in ascending order of variance, float64 [n, r]."""
        if self.right is None:
            return self.left * self.singular_values
        return self.matrix @ self.right

    @computed_once
    def left_vectors(self) -> Array:
        """The left singular vectors, float64 [n, r]."""
        return self.left if self.right is None else self.components / self.singular_values

    def class_sums(self, classes: NDArray[np.int64]) -> Array:
        """Return each class's sum of rows of ``left_vectors``, float64 [classes, r], without forming them if n > d."""
        if self.right is None:
            return group_sums(self.left, classes)
        return group_sums(self.matrix, classes) @ (self.right / self.singular_values)


def decomposed(matrix: Array) -> Decomposition:
    """Decompose a matrix [n, d] by the eigenvectors of its Gram matrix, n x n or d x d, whichever is smaller."""
    n, d = matrix.shape
    xp = namespace(matrix)
    gram = matrix @ matrix.T if n <= d else matrix.T @ matrix
    squares, eigenvectors = xp.linalg.eigh(gram)
    least = max(n, d) * float(np.finfo(np.float64).eps) * float(squares[-1])
    null = int(xp.count_nonzero(squares <= least))
    squares, eigenvectors = squares[null:], eigenvectors[:, null:]
    if n <= d:
        return Decomposition(matrix, squares, right=None, left=eigenvectors)
    return Decomposition(matrix, squares, right=eigenvectors, left=None)


def scaled(values: Array) -> tuple[Array, int]:
    """Divide by a power of two, 2^e, so that the largest value is 1/2 to 1 and no fourth power overflows.

    Returns
    -------
    (float64 as ``values``, e)
    """
    xp = namespace(values)
    exponent = int(np.frexp(float(xp.max(xp.abs(values))))[1])
    return times_power_of_two(values, -exponent), exponent


def centred(Z: Array) -> tuple[Array, int]:
    """Return the rows of a validated embedding minus their mean, divided by 2^e, float64 [n, d], and e."""
    # Subtract the first row before the mean, so that equal rows become exactly zero.
    values, exponent = scaled(Z - Z[:1, :])
    return values - namespace(values).mean(values, axis=0), exponent
