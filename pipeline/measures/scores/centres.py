"""Accuracy of the nearest class centre, each image left out of its own, by Euclidean distance and by cosine."""

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, group_sums, namespace, rows_of, to_host
from ..core.context import MeasureContext
from ..core.distances import directions
from ..core.hits import first_rows, most_repeats
from ..core.registry import accuracy


@accuracy("centre_accuracy", task="values")
def hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return whether the nearest class centre (Euclidean) of each image is that of its own class, bool [images].

    A class's centre is the mean of its rows, without those of the image in question. An image is recognised if most of
    its repeats are; of two equally near classes, the one that appears first is chosen.

    References
    ----------
    scikit-learn's ``NearestCentroid``.
    """
    values, classes, images = context.centred_values, context.classes, context.images
    xp = namespace(values)
    sums, sizes = group_sums(values, classes), np.bincount(classes)
    centres = sums / as_array_like(sizes[:, None].astype(np.float64), sums)
    own = classes[first_rows(images)]  # the class of each image
    left = (sizes[own] - np.bincount(images)).astype(np.float64)
    without = (rows_of(sums, own) - group_sums(values, images)) / as_array_like(left[:, None], sums)
    # Squared distances minus |z|^2, which all classes share.
    distances = xp.vecdot(centres, centres)[None, :] - 2 * (values @ centres.T)
    along = xp.vecdot(values, rows_of(without, images))
    to_own = rows_of(xp.vecdot(without, without), images) - 2 * along
    nearest = _with_own(distances, to_own, classes)
    return most_repeats(nearest.argmin(axis=1) == classes, images)


@accuracy("cosine_centre_accuracy", task="values")
def cosine_hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return whether the class centre with the greatest cosine is that of an image's own class, bool [images].

    Rows are centred by the embedding's mean. A class's centre is the mean of the directions of its rows, without those
    of the image in question. Undefined if a row equals the mean, or a centre has no direction.

    References
    ----------
    The nearest class mean of Mensink et al., IEEE PAMI 35 (2013), in the cosine of Snell et al. (arXiv 1703.05175).
    """
    classes, images = context.classes, context.images
    unit = directions(context.centred_values, "rows less their mean")
    sums = group_sums(unit, classes)
    sums_without = rows_of(sums, classes[first_rows(images)]) - group_sums(unit, images)
    own_centres = directions(sums_without, "class centres without an image")
    own = namespace(unit).vecdot(unit, rows_of(own_centres, images))
    cosines = _with_own(unit @ directions(sums, "class centres").T, own, classes)
    return most_repeats(cosines.argmax(axis=1) == classes, images)


def _with_own(of_classes: Array, of_own: Array, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a table [n, classes] on the host, with ``of_own`` [n] in the column of each row's own class."""
    table = to_host(of_classes).copy()
    table[np.arange(len(classes)), classes] = to_host(of_own)
    return table
