"""How well simple classifiers on the embedding do with an image that they have not seen.

Each leaves one image out, all its repeats together, in closed form: nothing is drawn at random, and no fold is fitted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import (
    Array,
    beside,
    group_sums,
    namespace,
    rows_of,
    smallest_of_rows,
    stacked_rows,
    to_host,
)
from ..core.checks import as_classes, as_count, as_embedding, as_images
from ..core.decomposition import Decomposition, centred, decomposed
from ..core.points import Points

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""The probe's choice of penalties, in units of the mean of the min(n, d) eigenvalues of the features' scatter.

Greater ones leave an embedding without signal the intercept only, which without an image speaks against its class: the
accuracy of noise would be 0 rather than chance.
"""

NEIGHBOURS = 10
Z95 = 1.959963984540054  # the normal quantile of a two-sided 95% interval


class SingleImageError(ValueError):
    """A class with one image cannot be recognised without it."""


def centre_accuracy(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None
) -> float:
    """Share of images that the nearest class centre (Euclidean) recognises.

    A class's centre is the mean of its rows; those of the image in question, all its repeats, do not enter it. An
    image is recognised if most of its repeats are; of two equally near classes the one that appears first is taken.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.
    image_ids : [n], optional
        The image of each sample; by default every sample is an image of its own.

    Returns
    -------
    float
        Percent of the images.

    Raises
    ------
    ValueError
        As the other measures; also if a class has a single image, for without it the class is unknown.

    References
    ----------
    scikit-learn's ``NearestCentroid``.
    """
    embedding, classes, images = samples(Z, labels, image_ids)
    return percent(centre_hits(centred(embedding)[0], classes, images))


def neighbour_accuracy(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None, k: int = NEIGHBOURS
) -> float:
    """Share of images that the k nearest samples of other images (Euclidean) recognise by a majority vote.

    A tie goes to the class of the nearest sample among the tied. With fewer than k samples of other images, all vote.

    Parameters
    ----------
    Z, labels, image_ids
        As for ``centre_accuracy``.
    k : int
        Number of neighbours.

    Returns
    -------
    float
        Percent of the images.

    Raises
    ------
    ValueError
        As ``centre_accuracy``; also if k is no whole number above 0.

    References
    ----------
    scikit-learn's ``KNeighborsClassifier``, but for its ties.
    """
    embedding, classes, images = samples(Z, labels, image_ids)
    k = as_count(k, "k")
    return percent(neighbour_hits(Points(centred(embedding)[0]), classes, images, k))


def probe_hits(
    Z: ArrayLike, labels: ArrayLike, *, image_ids: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Whether a linear probe that has not seen an image classifies it right.

    A ridge classifier: least squares on targets of 1 for the class and -1 for the others, with an intercept and a
    penalty on the squared weights. The features are centred and share one scale, none is standardised by itself. The
    penalty is the one of ``PENALTIES`` with the least squared error over images left out; it is one for all classes
    and images, so it has seen each image, but it is one number of six.

    Parameters
    ----------
    Z, labels, image_ids
        As for ``centre_accuracy``.

    Returns
    -------
    bool [m]
        One entry an image, in the order in which images first appear: most of its repeats are classified right.

    Raises
    ------
    ValueError
        As ``centre_accuracy``.

    References
    ----------
    scikit-learn's ``RidgeClassifier``, refitted without each image; the closed form is Allen's PRESS (1974), for rows
    that are left out together: y - yhat without them = (1 - H_II)^-1 (y_I - yhat_I), H the hat matrix.
    """
    embedding, classes, images = samples(Z, labels, image_ids)
    return ridge_hits(decomposed(centred(embedding)[0]), embedding.shape[1], classes, images)


def each_class_has_two_images(classes: NDArray[np.int64], images: NDArray[np.int64]) -> bool:
    """Whether an image of any class can be left out without losing the class."""
    _, first = np.unique(images, return_index=True)
    return bool(np.bincount(classes[first]).min() >= 2)


def require_two_images(classes: NDArray[np.int64], images: NDArray[np.int64]) -> None:
    """Refuse a class with a single image.

    Raises
    ------
    SingleImageError
        If there is one.
    """
    if not each_class_has_two_images(classes, images):
        raise SingleImageError(
            "a class has a single image, and is unknown when that is left out; give each class two or more"
        )


def centre_hits(
    values: Array, classes: NDArray[np.int64], images: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each image is nearest to its class's centre, bool [m], from the centred embedding [n, d]."""
    xp = namespace(values)
    sums, sizes = group_sums(values, classes), np.bincount(classes)
    centres = sums / beside(sizes[:, None].astype(np.float64), sums)
    own = classes[first_rows(images)]  # the class of each image
    left = (sizes[own] - np.bincount(images)).astype(np.float64)
    without = (rows_of(sums, own) - group_sums(values, images)) / beside(left[:, None], sums)
    # Squared distances less |z|^2, which all classes share.
    distances = xp.vecdot(centres, centres)[None, :] - 2 * (values @ centres.T)
    to_own = rows_of(xp.vecdot(without, without), images) - 2 * xp.vecdot(
        values, rows_of(without, images)
    )
    nearest = with_own(distances, to_own, classes)
    return most_repeats(nearest.argmin(axis=1) == classes, images)


def first_rows(images: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each image."""
    return np.unique(images, return_index=True)[1]


def with_own(of_classes: Array, of_own: Array, classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the rows have of the classes [n, classes], on the host, each row's own class's [n] put in its place."""
    table = to_host(of_classes).copy()
    table[np.arange(len(classes)), classes] = to_host(of_own)
    return table


def neighbour_hits(
    points: Points, classes: NDArray[np.int64], images: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Whether the neighbours of each image vote for its class, bool [m]."""
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
    """The class that the nearest of the n points of other images vote for, [m], from the squared distances [m, n]."""
    xp = namespace(squares)
    others = xp.where(
        beside(own[:, None], squares) == beside(images[None, :], squares), xp.inf, squares
    )
    nearest = smallest_of_rows(others, min(k, len(images) - 1))
    # The image's own repeats have none.
    votes = to_host(xp.isfinite(xp.take_along_axis(others, nearest, axis=1)))
    votes_for = classes[to_host(nearest)]
    same_class = votes_for[:, :, None] == votes_for[:, None, :]
    agreeing = (same_class & votes[:, None, :]).sum(axis=2)
    # The first, so the nearest, of those with most votes.
    elected = np.where(votes, agreeing, 0).argmax(axis=1)
    predicted: NDArray[np.int64] = np.take_along_axis(votes_for, elected[:, None], axis=1)[:, 0]
    return predicted


def ridge_hits(
    decomposition: Decomposition, d: int, classes: NDArray[np.int64], images: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the probe classifies each image right, bool [m], from the decomposition of the centred embedding."""
    xp = namespace(decomposition.squares)
    U, squares = decomposition.left_vectors, decomposition.squares
    n, sizes = len(classes), np.bincount(classes)
    is_of_class = classes[:, None] == np.arange(len(sizes))
    targets = beside(np.where(is_of_class, 1.0, -1.0), U)
    means = beside(2 * sizes / n - 1, U)
    # Of the targets; the -1 of every row is orthogonal to U.
    projected = 2 * decomposition.class_sums(classes).T
    least, predicted = np.inf, classes
    scale = float(xp.sum(squares)) / min(n, d)
    without_images = _without_images(U, images)
    for penalty in PENALTIES:
        shrunk = squares / (squares + penalty * scale)
        residuals = without_images(targets - means - U @ (shrunk[:, None] * projected), shrunk)
        error = float(xp.sum(residuals * residuals))
        if error < least:
            least, predicted = error, to_host(xp.argmax(targets - residuals, axis=1))
    return most_repeats(predicted == classes, images)


def _without_images(U: Array, images: NDArray[np.int64]) -> Callable[[Array, Array], Array]:
    """The function that gives residuals [n, classes] of fits that have not seen the row's image.

    It takes those of the fit to all rows, and the shares of the directions U [n, r] that its penalty leaves, [r].
    """
    xp, n, repeats = namespace(U), len(images), np.bincount(images)
    if repeats.max() == 1:
        squared = U * U
        return lambda residuals, shrunk: residuals / (1 - 1 / n - squared @ shrunk)[:, None]

    by_image = np.argsort(images, kind="stable")
    # Images with equally many repeats are solved together: their rows [m, r], and these rows of U [m, r, rank].
    blocks = [by_image[(repeats == r)[images[by_image]]].reshape(-1, r) for r in np.unique(repeats)]
    vectors = [stacked_rows(U, rows) for rows in blocks]
    back = np.argsort(np.concatenate([rows.ravel() for rows in blocks]))

    def without(residuals: Array, shrunk: Array) -> Array:
        solved = []
        for rows, of_rows in zip(blocks, vectors, strict=True):
            hat = 1 / n + (of_rows * shrunk) @ xp.matrix_transpose(of_rows)
            identity = beside(np.eye(rows.shape[1]), U)
            of_block = xp.linalg.solve(identity[None, :, :] - hat, stacked_rows(residuals, rows))
            solved.append(xp.reshape(of_block, (-1, residuals.shape[1])))
        return rows_of(xp.concat(solved), back)

    return without


def percent(hits: NDArray[np.bool_]) -> float:
    """The share of hits, in percent."""
    return 100 * float(hits.mean())


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share, each limit in percent (Wilson, 1927)."""
    share, z2 = hits / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    variance = share * (1 - share) / n + z2 / (4 * n * n)
    half = Z95 / (1 + z2 / n) * np.sqrt(variance)
    return max(0.0, 100 * float(centre - half)), min(100.0, 100 * float(centre + half))


def packed(hits: NDArray[np.bool_]) -> str:
    """Hits as text: their number, then their bits as hexadecimal digits."""
    return f"{len(hits)}:{np.packbits(hits).tobytes().hex()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The hits that ``packed`` wrote."""
    count, digits = text.split(":")
    return np.unpackbits(
        np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=int(count)
    ).astype(bool)


def samples(
    Z: ArrayLike, labels: ArrayLike, image_ids: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The validated embedding [n, d], its classes [n] and its images [n], two or more in each class."""
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    images = as_images(image_ids, classes)
    require_two_images(classes, images)
    return embedding, classes, images


def most_repeats(right: NDArray[np.bool_], images: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether most of the rows of each image are right, bool [m]."""
    return np.bincount(images, weights=right) > np.bincount(images) / 2
