"""Scores that see directions only: neighbours and class centres by their cosine, and what all rows share."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .decomposition import centred, group_sums, scaled
from .inputs import as_embedding
from .points import Points
from .probe import NEIGHBOURS, most_repeats, neighbour_hits, percent, samples
from .undefined import UndefinedScore

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


def cosine_centre_accuracy(Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None) -> float:
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
        The embedding, one row a sample.

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


def directions(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row scaled to length 1, float64 [n, d]."""
    lengths = np.linalg.norm(values, axis=1)
    without = int((lengths <= np.finfo(np.float64).eps * lengths.max()).sum())
    if without:
        raise UndefinedScore(f"{without} of {len(values)} rows have no direction")
    unit: NDArray[np.float64] = values / lengths[:, None]
    if np.ptp(unit, axis=0).max() <= SAME:
        raise UndefinedScore("all rows have the same direction")
    return unit


def cosine_centre_hits(
    unit: NDArray[np.float64], classes: NDArray[np.int64], images: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each image is nearest to its class's centre by the cosine, bool [m], from the directions [n, d]."""
    sums = group_sums(unit, classes)
    _, first = np.unique(images, return_index=True)
    sums_without = sums[classes[first]] - group_sums(unit, images)
    cosines = unit @ directions(sums).T
    own = np.einsum("nd,nd->n", unit, directions(sums_without)[images])
    cosines[np.arange(len(unit)), classes] = own
    return most_repeats(cosines.argmax(axis=1) == classes, images)


def offset_share_of_scaled(values: NDArray[np.float64]) -> float:
    """``offset_share`` of the embedding divided by any number, [n, d]."""
    length = float(np.einsum("nd,nd->", values, values)) / len(values)
    if length == 0:
        raise UndefinedScore("all rows are zero")
    mean = values.mean(axis=0)
    return min(float(mean @ mean) / length, 1.0)
