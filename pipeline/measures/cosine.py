"""Scores that see directions only: neighbours and class centres by their cosine, and what all rows share."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, group_sums, namespace, rows_of
from .decomposition import centred, scaled
from .inputs import as_embedding
from .points import Points
from .probe import NEIGHBOURS, first_rows, most_repeats, neighbour_hits, percent, samples, with_own
from .spectrum import differences, in_threads, row_blocks
from .undefined import UndefinedScore

NEARLY_ALONG = 0.01
"""Two rows whose distance across is below this share of that along them are taken for nearly collinear."""

SAME = 4 * float(np.finfo(np.float64).eps)  # differences of directions below are rounding


def cosine_neighbour_accuracy(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None, k: int = NEIGHBOURS
) -> float:
    """Share of images that the k samples of other images with the greatest cosine recognise by a majority vote.

    Cosines are those of the embedding as it is, not centred, as in evaluations of self-supervised networks.

    Parameters
    ----------
    Z, labels, image_ids, k
        As for ``neighbour_accuracy``.

    Returns
    -------
    float
        Percent of the images.

    Raises
    ------
    UndefinedScore
        If a row is zero, and so has no direction, or all rows have the same.
    ValueError
        As ``neighbour_accuracy``.

    References
    ----------
    scikit-learn's ``KNeighborsClassifier(metric="cosine")``, but for its ties; Caron et al., DINO (arXiv 2104.14294).
    """
    embedding, classes, images = samples(Z, labels, image_ids)
    return percent(neighbour_hits(Points(directions(scaled(embedding)[0])), classes, images, k))


def cosine_centre_accuracy(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None
) -> float:
    """Share of images whose own class's centre has the greatest cosine with them, all less the mean of the embedding.

    A class's centre is the mean of the directions of its rows; those of the image in question do not enter it.

    Parameters
    ----------
    Z, labels, image_ids
        As for ``centre_accuracy``.

    Returns
    -------
    float
        Percent of the images.

    Raises
    ------
    UndefinedScore
        If a row is the mean itself, or a centre has no direction.
    ValueError
        As ``centre_accuracy``.

    References
    ----------
    The nearest class mean of Mensink et al., IEEE PAMI 35 (2013), in the cosine of Snell et al. (arXiv 1703.05175).
    """
    embedding, classes, images = samples(Z, labels, image_ids)
    return percent(cosine_centre_hits(directions(centred(embedding)[0]), classes, images))


def offset_share(Z: ArrayLike) -> float:
    """The mean's share of the embedding's mean squared length, |mean z|^2 / mean |z|^2: a diagnostic.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.

    Returns
    -------
    float
        0 (centred) to 1 (all rows the same).

    Raises
    ------
    UndefinedScore
        For an embedding of zeros.
    ValueError
        As the other measures.
    """
    return offset_share_of_scaled(scaled(as_embedding(Z))[0])


def directions(values: Array) -> Array:
    """Each row scaled to length 1, float64 [n, d]."""
    xp = namespace(values)
    lengths = xp.linalg.vector_norm(values, axis=1)
    shortest = float(np.finfo(np.float64).eps) * float(xp.max(lengths))
    without = int(xp.count_nonzero(lengths <= shortest))
    if without:
        raise UndefinedScore(f"{without} of {values.shape[0]} rows have no direction")
    unit = values / lengths[:, None]
    spread = xp.max(unit, axis=0) - xp.min(unit, axis=0)
    if float(xp.max(spread)) <= SAME:
        raise UndefinedScore("all rows have the same direction")
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


def cosine_centre_hits(
    unit: Array, classes: NDArray[np.int64], images: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each image is nearest to its class's centre by the cosine, bool [m], from the directions [n, d]."""
    sums = group_sums(unit, classes)
    sums_without = rows_of(sums, classes[first_rows(images)]) - group_sums(unit, images)
    own = namespace(unit).vecdot(unit, rows_of(directions(sums_without), images))
    cosines = with_own(unit @ directions(sums).T, own, classes)
    return most_repeats(cosines.argmax(axis=1) == classes, images)


def offset_share_of_scaled(values: Array) -> float:
    """``offset_share`` of the embedding divided by any number, [n, d]."""
    xp = namespace(values)
    length = float(xp.sum(xp.vecdot(values, values))) / values.shape[0]
    if length == 0:
        raise UndefinedScore("all rows are zero")
    mean = xp.mean(values, axis=0)
    return min(float(mean @ mean) / length, 1.0)
