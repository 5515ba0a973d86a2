"""Accuracy of a vote of the nearest neighbours, each image left out, by Euclidean distance and by cosine."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, namespace, smallest_of_rows, to_host
from ..core.context import MeasureContext
from ..core.distances import Points
from ..core.hits import most_repeats
from ..core.registry import accuracy

NEIGHBOURS = 10


@accuracy("neighbour_accuracy", task="distances")
def hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return whether the 10 nearest samples of other images (Euclidean) recognise an image by a majority vote.

    A tie goes to the class of the nearest sample among the tied. If other images have fewer than 10 samples, all vote.
    An image is recognised if most of its repeats are.

    References
    ----------
    scikit-learn's ``KNeighborsClassifier``, except for its ties.
    """
    return neighbour_hits(context.points_in_range, context.classes, context.images, NEIGHBOURS)


@accuracy("cosine_neighbour_accuracy", task="distances")
def cosine_hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return the same for the 10 samples of other images with the greatest cosine.

    Cosines are those of the embedding as it is, not centred, as in evaluations of self-supervised networks. Undefined
    if a row is zero, and so has no direction, or if all rows have the same direction.

    References
    ----------
    scikit-learn's ``KNeighborsClassifier(metric="cosine")``, except for its ties; Caron et al., DINO (arXiv
    2104.14294).
    """
    return neighbour_hits(context.direction_points, context.classes, context.images, NEIGHBOURS)


def neighbour_hits(
    points: Points, classes: NDArray[np.int64], images: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Return whether the k nearest neighbours of each image vote for its class, bool [images]."""
    predicted, start = np.empty_like(classes), 0
    for squares in points.rows_of_squares():
        stop = start + squares.shape[0]
        predicted[start:stop] = _elected(squares, classes, images, images[start:stop], k)
        start = stop
    return most_repeats(predicted == classes, images)


def _elected(
    squares: Array,
    classes: NDArray[np.int64],
    images: NDArray[np.int64],
    own: NDArray[np.int64],
    k: int,
) -> NDArray[np.int64]:
    """Return the class that the nearest of the n points of other images vote for, [m].

    From the squared distances [m, n]; ``own`` are the images of the m points.
    """
    xp = namespace(squares)
    same_image = as_array_like(own[:, None], squares) == as_array_like(images[None, :], squares)
    others = xp.where(same_image, xp.inf, squares)
    nearest = smallest_of_rows(others, min(k, len(images) - 1))
    # Repeats of the same image have no vote.
    votes = to_host(xp.isfinite(xp.take_along_axis(others, nearest, axis=1)))
    votes_for = classes[to_host(nearest)]
    same_class = votes_for[:, :, None] == votes_for[:, None, :]
    agreeing = (same_class & votes[:, None, :]).sum(axis=2)
    # argmax takes the first, so the nearest, of those with most votes.
    elected = np.where(votes, agreeing, 0).argmax(axis=1)
    predicted: NDArray[np.int64] = np.take_along_axis(votes_for, elected[:, None], axis=1)[:, 0]
    return predicted
