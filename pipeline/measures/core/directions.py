"""Directions of an embedding's rows, and the distances between them."""

import numpy as np

from .arrays import Array, namespace
from .checks import UndefinedScore
from .distances import differences, row_blocks
from .points import Points
from .threads import in_threads

NEARLY_ALONG = 0.01

SAME = 4 * float(np.finfo(np.float64).eps)  # differences of directions below are rounding


def directions(values: Array, name: str = "rows") -> Array:
    """Each row scaled to length 1, float64 [n, d]; ``name`` is what reasons call the rows."""
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
    """The directions of the rows as points, whose distances follow from those of the points if these are few."""
    unit = directions(points.values)
    if not points.few:
        return Points(unit)
    return Points(unit, lambda: squares_of_directions(points.squares, points.values, unit))


def squares_of_directions(squares: Array, values: Array, unit: Array) -> Array:
    """The squared distances [n, n] of the rows' directions u, from those of the rows z themselves or less their mean.

    |u - v|^2 = (|z - w|^2 - (|z| - |w|)^2) / (|z| |w|). Pairs for which little is left of that difference, beside what
    is taken away, are computed anew from their directions.
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
