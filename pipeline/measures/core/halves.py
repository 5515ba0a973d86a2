"""Random halves of the images, and the standard error of a score from its values on them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsmi_zoo._util.text import counted

HALVES = 8
MAX_HALF = 500  # rows; larger halves would be slow
MIN_IMAGES = 4  # per class: two for each half
MAX_LEFT_OUT = 0.1  # of the rows, in classes with too few images to split


def random_halves(
    classes: NDArray[np.int64], images: NDArray[np.int64], seed: int
) -> list[NDArray[np.int64]]:
    """Return random halves of the images, half of each class; a half of more than 500 rows is cut to about 500.

    Parameters
    ----------
    classes, images : int64 [n]
        Class and image of each row, each numbered from 0; all rows of an image stay together.
    seed : int
        Seed of the halves.

    Returns
    -------
    list of int64 [m]
        The rows of each of eight halves. Empty if over a tenth of the rows belong to classes of fewer than four images.
    """
    rows = rows_of_images(images)
    members = large_classes(classes, rows)
    if not members:
        return []
    generator = np.random.default_rng([seed, 7])
    share = min(1 / 2, MAX_HALF / len(classes))
    sizes = [max(2, int(share * len(of_class))) for of_class in members]
    halves = []
    for _ in range(HALVES):
        chosen: list[NDArray[np.int64]] = []
        for of_class, size in zip(members, sizes, strict=True):
            chosen += [rows[image] for image in generator.permutation(of_class)[:size]]
        halves.append(np.concatenate(chosen))
    return halves


def error_over_halves(
    values: Sequence[float] | NDArray[np.float64], rows_of_half: int, rows: int
) -> float:
    """Return the standard error of a score over images, from its values on random halves: the delete-d jackknife.

    A half has as many images as it leaves out, so the spread over halves is the spread over samples of all images. The
    spread of smaller parts, which overlap less, is rescaled to all images.

    Parameters
    ----------
    values : float [halves]
    rows_of_half, rows : int
        Rows of a half, and of all images.

    Returns
    -------
    float
        In units of the score.

    References
    ----------
    Shao and Wu, A general theory for jackknife variance estimation, Annals of Statistics 17 (1989).
    """
    return float(np.std(values, ddof=1) * np.sqrt(rows_of_half / (rows - rows_of_half)))


def rows_of_images(images: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of each image 0, 1, ..."""
    by_image = np.argsort(images, kind="stable")
    ends = np.cumsum(np.bincount(images))
    return np.split(by_image, ends[:-1])


def too_few_images(
    classes: NDArray[np.int64], images: NDArray[np.int64], fewest: int = MIN_IMAGES
) -> str:
    """Return the reason, in images per class, why there are no halves (or smaller parts)."""
    class_of_image = classes[np.unique(images, return_index=True)[1]]
    sizes = np.bincount(class_of_image)
    if len(sizes) == 1:
        return f"{counted(len(class_of_image), 'image')}, a standard error needs {fewest}"
    small = int((sizes < fewest).sum())
    return f"{small} of {len(sizes)} classes have fewer than {fewest} images, too few for a standard error"


def large_classes(
    classes: NDArray[np.int64], rows: list[NDArray[np.int64]], fewest: int = MIN_IMAGES
) -> list[NDArray[np.int64]]:
    """Return the images of each large enough class; none if over a tenth of the rows are in smaller classes."""
    class_of_image = classes[[of_image[0] for of_image in rows]]
    members = [
        np.flatnonzero(class_of_image == of_class) for of_class in range(int(classes.max()) + 1)
    ]
    members = [of_class for of_class in members if len(of_class) >= fewest]
    kept = sum(len(rows[image]) for of_class in members for image in of_class)
    return members if kept >= (1 - MAX_LEFT_OUT) * len(classes) else []
