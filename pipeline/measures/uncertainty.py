"""How far a score would move with other images of the same classes.

Most scores are measured on random halves of the images (``error_over_halves``). DSMI(Z;Y) is a difference of entropies,
and neither jackknife nor bootstrap will do: a diffusion spectral entropy depends on the number of points, and far from
linearly on each of them (a delete-a-group jackknife states up to 25 times the spread, the infinitesimal one a third of
it). So DSMI is measured on disjoint parts of the images, which are independent samples of the same classes: its
variance between halves and between quarters is that at a half and a quarter of the images, whatever the statistic. The
power of the size that leads from the one to the other leads on to all images.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .mutual_information import EntropiesOf

HALVES = 8
LARGEST_HALF = 500  # rows; more would cost much, and of each class a pair of images stays
HALVINGS = 8
QUARTERINGS = 6
_POWERS = -2.0, 1.0  # of the size; an estimate beyond them is noise
MOST_LEFT_OUT = 0.1  # of the rows, in classes of too few images for quarters


def sampling_error(
    classes: NDArray[np.int64], images: NDArray[np.int64], entropies_of: EntropiesOf, repetitions: int, seed: int
) -> float:
    """Standard error, in bits, of the mutual information over images, with the classes' sizes as they are.

    Parameters
    ----------
    classes, images : int64 [n]
        Class and image of each row, each numbered from 0; all rows of an image stay together.
    entropies_of : callable
        Entropies of subsets of the rows.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the splits.

    Returns
    -------
    float
        NaN if more than a tenth of the rows belong to classes of fewer than four images.
    """
    rows = _rows_of_images(images)
    members = _large_classes(classes, rows)
    if not members:
        return float("nan")
    generator = np.random.default_rng([seed, 6])

    def variances(parts: int, splits: int) -> tuple[float, float]:
        """Of the measure, and what it would be if its classes and random subsets had no points in common.

        The latter has many more degrees of freedom, for each class and subset contributes its own.
        """
        subsets: list[NDArray[np.int64]] = []
        layout = []
        for _ in range(splits):
            split = _dealt(members, rows, parts, generator)
            orders = [generator.permutation(min(sum(map(len, part)) for part in split)) for _ in range(repetitions)]
            for part in split:
                everything, sizes = np.concatenate(part), np.array([len(of_class) for of_class in part])
                distinct, which = np.unique(sizes, return_inverse=True)
                layout.append((sizes / sizes.sum(), which, len(distinct)))
                subsets += [*part, *(everything[order[:size]] for order in orders for size in distinct)]
        entropies = np.array([entropy.value for entropy in entropies_of(subsets)])
        within, at_random, start = [], [], 0
        for shares, which, distinct_sizes in layout:
            middle, stop = start + len(shares), start + len(shares) + repetitions * distinct_sizes
            within.append(shares * entropies[start:middle])
            at_random.append(entropies[middle:stop].reshape(repetitions, -1)[:, which] @ shares / repetitions)
            start = stop
        terms = np.column_stack([at_random, -np.array(within)]).reshape(splits, parts, -1)
        joint = terms.sum(axis=2).var(axis=1, ddof=1).mean()
        return float(joint), float(terms.var(axis=1, ddof=1).sum(axis=1).mean())

    (joint_half, half), (joint_quarter, quarter) = variances(2, HALVINGS), variances(4, QUARTERINGS)
    if min(half, quarter) <= 0:
        return 0.0
    sizes = [sum(len(of_class) // parts for of_class in members) for parts in (1, 2, 4)]
    power = np.clip(np.log(half / quarter) / np.log(sizes[1] / sizes[2]), *_POWERS)
    common = (joint_half + joint_quarter) / (half + quarter)
    return float(np.sqrt(half * (sizes[0] / sizes[1]) ** power * common))


def random_halves(classes: NDArray[np.int64], images: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Random halves of the images, half of each class; about 500 rows where a half would be more.

    They are what any score is measured on for its standard error: see ``error_over_halves``.

    Parameters
    ----------
    classes, images : int64 [n]
        Class and image of each row, each numbered from 0; all rows of an image stay together.
    seed : int
        Seed of the halves.

    Returns
    -------
    list of int64 [m]
        The rows of each of eight halves. Empty if more than a tenth of the rows belong to classes of fewer than four
        images.
    """
    rows = _rows_of_images(images)
    members = _large_classes(classes, rows)
    if not members:
        return []
    generator = np.random.default_rng([seed, 7])
    share = min(1 / 2, LARGEST_HALF / len(classes))
    sizes = [max(2, int(share * len(of_class))) for of_class in members]
    return [
        np.concatenate(
            [
                rows[image]
                for of_class, size in zip(members, sizes, strict=True)
                for image in generator.permutation(of_class)[:size]
            ]
        )
        for _ in range(HALVES)
    ]


def error_over_halves(values: Sequence[float] | NDArray[np.float64], rows_of_half: int, rows: int) -> float:
    """Standard error of a score over images, from its values on random halves of them: the delete-d jackknife.

    A half has as many images as it leaves out, so the spread over halves is that over samples of all images; smaller
    parts overlap less, and their spread is brought to the size of all.

    Parameters
    ----------
    values : float [halves]
    rows_of_half, rows : int
        How many rows a half has, and all images.

    Returns
    -------
    float
        In units of the score.

    References
    ----------
    Shao and Wu, A general theory for jackknife variance estimation, Annals of Statistics 17 (1989).
    """
    return float(np.std(values, ddof=1) * np.sqrt(rows_of_half / (rows - rows_of_half)))


def _rows_of_images(images: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each image 0, 1, ..."""
    return np.split(np.argsort(images, kind="stable"), np.cumsum(np.bincount(images))[:-1])


def _large_classes(classes: NDArray[np.int64], rows: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The images of each class of four or more; none if more than a tenth of all rows are of smaller classes."""
    class_of_image = classes[[of_image[0] for of_image in rows]]
    members = [np.flatnonzero(class_of_image == of_class) for of_class in range(int(classes.max()) + 1)]
    members = [of_class for of_class in members if len(of_class) >= 4]
    kept = sum(len(rows[image]) for of_class in members for image in of_class)
    return members if kept >= (1 - MOST_LEFT_OUT) * len(classes) else []


def _dealt(
    members: list[NDArray[np.int64]], rows: list[NDArray[np.int64]], parts: int, generator: np.random.Generator
) -> list[list[NDArray[np.int64]]]:
    """Deal the images of each class, equally many to each part: the rows of each part's classes.

    The n-th rows of all parts are of one class, so that the same random subset of each is composed alike.
    """
    split: list[list[NDArray[np.int64]]] = [[] for _ in range(parts)]
    for of_class in members:
        each = len(of_class) // parts
        shuffled = generator.permutation(of_class)[: parts * each].reshape(parts, each)
        for part, of_part in zip(split, shuffled, strict=True):
            part.append(np.concatenate([rows[image] for image in of_part]))
    return split
