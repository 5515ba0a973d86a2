"""How far a score would move with other images of the same classes.

Most scores are measured on random halves of the images (``error_over_halves``). DSMI(Z;Y) is a difference of entropies,
and neither jackknife nor bootstrap will do: a diffusion spectral entropy depends on the number of points, and far from
linearly on each of them (a delete-a-group jackknife states up to 25 times the spread, the infinitesimal one a third of
it). So DSMI is measured on disjoint parts of the images, which are independent samples of the same classes: its
variance between halves and between quarters is that at a half and a quarter of the images, whatever the statistic. The
power of the size that leads from the one to the other leads on to all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dse.mutual_information import EntropiesOf

HALVES = 8
LARGEST_HALF = 500  # rows; more would cost much, and of each class a pair of images stays
HALVINGS = 8
QUARTERINGS = 6
_POWERS = -2.0, 1.0  # of the size; an estimate beyond them is noise
MOST_LEFT_OUT = 0.1  # of the rows, in classes of too few images for quarters


def sampling_error(
    classes: NDArray[np.int64],
    images: NDArray[np.int64],
    entropies_of: EntropiesOf,
    repetitions: int,
    seed: int,
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

    def spread_over_parts(parts: int, splits: int) -> _Spread:
        dealt = [_dealt(members, rows, parts, repetitions, generator) for _ in range(splits)]
        return _spread(dealt, entropies_of)

    halves = spread_over_parts(2, HALVINGS)
    quarters = spread_over_parts(4, QUARTERINGS)
    if min(halves.unshared, quarters.unshared) <= 0:
        return 0.0
    all_images, half, quarter = (
        sum(len(of_class) // parts for of_class in members) for parts in (1, 2, 4)
    )
    # The power of the size by which the variance falls from quarters to halves leads on to all images.
    power = np.log(halves.unshared / quarters.unshared) / np.log(half / quarter)
    power = np.clip(power, *_POWERS)
    variance = halves.unshared * (all_images / half) ** power
    share_of_joint = (halves.joint + quarters.joint) / (halves.unshared + quarters.unshared)
    return float(np.sqrt(variance * share_of_joint))


@dataclass(frozen=True)
class _Part:
    """One part of the images: the rows of each class in it, and random subsets of it for each size of a class.

    ``subsets`` has a list for each repetition, with a subset for each of the distinct sizes; ``size_of_class`` says
    which of them belongs to each class.
    """

    of_classes: list[NDArray[np.int64]]
    subsets: list[list[NDArray[np.int64]]]
    size_of_class: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each class's share of the part's rows."""
        sizes = np.array([len(of_class) for of_class in self.of_classes])
        return sizes / sizes.sum()

    def all_subsets(self) -> list[NDArray[np.int64]]:
        """Every set of rows whose entropy is needed: the classes, then the random subsets."""
        return [*self.of_classes, *(subset for repetition in self.subsets for subset in repetition)]

    def terms(self, entropies: NDArray[np.float64]) -> NDArray[np.float64]:
        """The terms whose sum is the mutual information of the part, from the entropies of ``all_subsets``.

        First each class's random subset, by the class's share, then less the entropy of the class itself.
        """
        within = entropies[: len(self.of_classes)] * self.shares
        at_random = entropies[len(self.of_classes) :].reshape(len(self.subsets), -1)
        of_repetitions = at_random[:, self.size_of_class] @ self.shares / len(self.subsets)
        return np.concatenate([of_repetitions, -within])


@dataclass(frozen=True)
class _Spread:
    """The variance of the measure between parts of the images, and what it would be if no terms shared points.

    The latter has many more degrees of freedom, because each class and each random subset contributes its own.
    """

    joint: float
    unshared: float


def _spread(splits: list[list[_Part]], entropies_of: EntropiesOf) -> _Spread:
    # All at once, so that subsets are computed beside each other.
    subsets = [part.all_subsets() for split in splits for part in split]
    entropies = np.array(
        [entropy.value for entropy in entropies_of([one for part in subsets for one in part])]
    )
    ends = np.cumsum([len(part) for part in subsets])
    of_parts = iter(np.split(entropies, ends[:-1]))
    # [splits, parts, terms].
    terms = np.array([[part.terms(next(of_parts)) for part in split] for split in splits])
    joint = terms.sum(axis=2).var(axis=1, ddof=1).mean()
    unshared = terms.var(axis=1, ddof=1).sum(axis=1).mean()
    return _Spread(float(joint), float(unshared))


def random_halves(
    classes: NDArray[np.int64], images: NDArray[np.int64], seed: int
) -> list[NDArray[np.int64]]:
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
    return [_rows_of_some(members, sizes, rows, generator) for _ in range(HALVES)]


def _rows_of_some(
    members: list[NDArray[np.int64]],
    sizes: list[int],
    rows: list[NDArray[np.int64]],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """The rows of so many random images of each class."""
    chosen: list[NDArray[np.int64]] = []
    for of_class, size in zip(members, sizes, strict=True):
        images = generator.permutation(of_class)[:size]
        chosen += [rows[image] for image in images]
    return np.concatenate(chosen)


def error_over_halves(
    values: Sequence[float] | NDArray[np.float64], rows_of_half: int, rows: int
) -> float:
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
    by_image = np.argsort(images, kind="stable")
    ends = np.cumsum(np.bincount(images))
    return np.split(by_image, ends[:-1])


def _large_classes(
    classes: NDArray[np.int64], rows: list[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """The images of each class of four or more; none if more than a tenth of all rows are of smaller classes."""
    class_of_image = classes[[of_image[0] for of_image in rows]]
    members = [
        np.flatnonzero(class_of_image == of_class) for of_class in range(int(classes.max()) + 1)
    ]
    members = [of_class for of_class in members if len(of_class) >= 4]
    kept = sum(len(rows[image]) for of_class in members for image in of_class)
    return members if kept >= (1 - MOST_LEFT_OUT) * len(classes) else []


def _dealt(
    members: list[NDArray[np.int64]],
    rows: list[NDArray[np.int64]],
    parts: int,
    repetitions: int,
    generator: np.random.Generator,
) -> list[_Part]:
    """Deal the images of each class, equally many to each part.

    The n-th rows of all parts are of one class, so that the same random order of each part makes subsets that are
    composed alike.
    """
    classes_of: list[list[NDArray[np.int64]]] = [[] for _ in range(parts)]
    for of_class in members:
        each = len(of_class) // parts
        shuffled = generator.permutation(of_class)[: parts * each].reshape(parts, each)
        for of_classes, images in zip(classes_of, shuffled, strict=True):
            of_classes.append(np.concatenate([rows[image] for image in images]))
    smallest = min(sum(map(len, of_classes)) for of_classes in classes_of)
    orders = [generator.permutation(smallest) for _ in range(repetitions)]
    return [_part(of_classes, orders) for of_classes in classes_of]


def _part(of_classes: list[NDArray[np.int64]], orders: list[NDArray[np.int64]]) -> _Part:
    everything = np.concatenate(of_classes)
    sizes, size_of_class = np.unique(
        [len(of_class) for of_class in of_classes], return_inverse=True
    )
    subsets = [[everything[order[:size]] for size in sizes] for order in orders]
    return _Part(of_classes, subsets, size_of_class)
