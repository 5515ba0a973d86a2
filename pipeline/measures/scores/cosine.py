"""Scores that see directions only: neighbours and class centres by their cosine, and what all rows share."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, group_sums, namespace, rows_of
from ..core.checks import UndefinedScore, as_embedding
from ..core.decomposition import centred, scaled
from ..core.directions import directions
from ..core.points import Points
from .probe import NEIGHBOURS, first_rows, most_repeats, neighbour_hits, percent, samples, with_own

"""Two rows whose distance across is below this share of that along them are taken for nearly collinear."""


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
