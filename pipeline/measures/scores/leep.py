"""Log expected empirical prediction: the labels given the probabilities of a network's own classifier."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..core.checks import UndefinedScore

BLOCK = 2**22  # probabilities that are converted to float64 at once
ROUNDING = 1e-9  # nats
NOT_FINITE = "the outputs of the classifier are not all finite"
ONE_IMAGE = "each class has one image"

Vector = NDArray[np.float64]
Numbers = NDArray[np.int64]


def leep(
    probabilities: NDArray[np.float32], labels: Numbers, images: Numbers
) -> tuple[float, float | None]:
    """Return the log expected empirical prediction, in nats, and its standard error over images.

    LEEP = mean over rows of ln q, where q = sum over z of P(y | z) p(z), with the probabilities p of the classes z that
    the network's own classifier knows, and P(y | z) = P(y, z) / P(z) from the means of p over the rows with label y and
    over all. It is at most 0, and equals NCE where each p is 0 or 1. The order of the classifier's outputs does not
    matter. With few rows of each z it is too high, as NCE is.

    The error is the infinitesimal jackknife's, within classes: unlike NCE's, LEEP's P(y | z) does not maximise it, so
    its sampling error counts. It is None where LEEP is 0, or each class has one image.

    Parameters
    ----------
    probabilities : float32 [n, k]
        Probabilities of the classifier's classes, for each row. Only blocks of them are copied.
    labels, images : int64 [n]
        Class and image of each row.

    Raises
    ------
    UndefinedScore
        If a probability is not finite.

    References
    ----------
    Nguyen, Hassner, Seeger and Archambeau, LEEP: a new measure to evaluate transferability of learned
    representations, ICML 2020 (arXiv 2002.12462).
    """
    everywhere = np.arange(len(labels))
    total = _sum_of_rows(probabilities, everywhere)
    if not np.isfinite(total).all():
        raise UndefinedScore(NOT_FINITE)
    # A class z with probability 0 in all rows adds nothing.
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    logarithms, of_counts = np.empty(len(labels)), np.empty(len(labels))
    by_class = np.zeros_like(total)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        given = _sum_of_rows(probabilities, rows) * inverse  # P(label | z)
        weights = np.zeros_like(total)  # how ln q of these rows grows with P(label | z)
        for some, block in _blocks(probabilities, rows):
            expected = block @ given
            logarithms[some] = np.log(expected)
            weights += (1 / expected) @ block
        by_class += weights * given
        for some, block in _blocks(probabilities, rows):
            of_counts[some] = block @ (weights * inverse)
    value = float(logarithms.mean())
    if abs(value) < ROUNDING:
        return 0.0, None
    for some, block in _blocks(probabilities, everywhere):
        of_counts[some] -= block @ (by_class * inverse)
    return value, _error_within_classes(logarithms + of_counts, labels, images)


def _error_within_classes(influence: Vector, labels: Numbers, images: Numbers) -> float | None:
    """Return the standard error of a mean over images of the same classes; None if each class has one image."""
    _, first, image = np.unique(images, return_index=True, return_inverse=True)
    of_images = np.bincount(image, influence) / np.bincount(image)
    _, of_class = np.unique(labels[first], return_inverse=True)
    sizes = np.bincount(of_class)
    m, free = len(of_images), len(of_images) - len(sizes)
    if not free:
        return None
    left = of_images - (np.bincount(of_class, of_images) / sizes)[of_class]
    return float(np.sqrt(np.sum(left**2) / free / m))


def _sum_of_rows(probabilities: NDArray[np.float32], rows: Numbers) -> Vector:
    """Return the sum of some rows, float64 [k]."""
    total = np.zeros(probabilities.shape[1])
    for _, block in _blocks(probabilities, rows):
        total += block.sum(axis=0)
    return total


def _blocks(
    probabilities: NDArray[np.float32], rows: Numbers
) -> Iterator[tuple[Numbers, NDArray[np.float64]]]:
    """Yield rows and their probabilities, which sum to 1 exactly, in parts of at most ``BLOCK``."""
    count = max(1, BLOCK // probabilities.shape[1])
    for start in range(0, len(rows), count):
        some = rows[start : start + count]
        block = probabilities[some].astype(np.float64)
        yield some, block / block.sum(axis=1, keepdims=True)
