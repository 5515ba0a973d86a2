"""The standard error of DSMI(Z;Y) over images: its spread over other images of the same classes.

DSMI is a difference of entropies, and neither jackknife nor bootstrap works: a diffusion spectral entropy depends on
the number of points, and far from linearly on each of them (a delete-a-group jackknife states up to 25 times the
spread, the infinitesimal one a third of it). So DSMI is measured on disjoint parts of the images, which are independent
samples of the same classes: its variance between halves and between quarters is that at a half and a quarter of the
images, whatever the statistic. The power law between the two is extrapolated to all images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.halves import large_classes, rows_of_images
from .subsets import Subset, SubsetEntropies

HALVINGS = 8
QUARTERINGS = 6
_POWERS = -2.0, 1.0  # of the size; an estimate beyond them is noise


def sampling_error(
    classes: NDArray[np.int64], images: NDArray[np.int64], entropies: SubsetEntropies
) -> float:
    """Return the standard error, in bits, of the mutual information over images, for the given class sizes.

    Parameters
    ----------
    classes, images : int64 [n]
        Class and image of each row, each numbered from 0; all rows of an image stay together.
    entropies
        Entropies of subsets of the rows; their settings have the seed of the splits.

    Returns
    -------
    float
        NaN if over a tenth of the rows belong to classes of fewer than four images.
    """
    rows = rows_of_images(images)
    members = large_classes(classes, rows)
    if not members:
        return float("nan")
    generator = np.random.default_rng([entropies.settings.seed, 6])
    repetitions = entropies.settings.repetitions

    def spread_over_parts(parts: int, splits: int) -> _Spread:
        dealt = [_deal(members, rows, parts, repetitions, generator) for _ in range(splits)]
        return _spread(dealt, entropies)

    halves = spread_over_parts(2, HALVINGS)
    quarters = spread_over_parts(4, QUARTERINGS)
    if min(halves.unshared, quarters.unshared) <= 0:
        return 0.0
    all_images, half, quarter = (
        sum(len(of_class) // parts for of_class in members) for parts in (1, 2, 4)
    )
    # The variance falls by this power of the size from quarters to halves, and on to all images.
    power = np.log(halves.unshared / quarters.unshared) / np.log(half / quarter)
    power = np.clip(power, *_POWERS)
    variance = halves.unshared * (all_images / half) ** power
    share_of_joint = (halves.joint + quarters.joint) / (halves.unshared + quarters.unshared)
    return float(np.sqrt(variance * share_of_joint))


@dataclass(frozen=True)
class _Part:
    """One part of the images: the rows of each class, and random subsets of the part for each class size.

    ``random_subsets`` holds, for each repetition in turn, one subset for each of the distinct sizes; ``size_of_class``
    is the place of each class's size among them.
    """

    of_classes: list[Subset]
    random_subsets: list[Subset]
    size_of_class: NDArray[np.int64]
    repetitions: int

    def terms(self, entropies: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the terms whose sum is the part's mutual information, from the entropies of all its subsets.

        First the random subset of each class, weighted by the class's share, then minus the entropy of each class.
        """
        sizes = np.array([len(of_class) for of_class in self.of_classes])
        shares = sizes / sizes.sum()
        within = entropies[: len(sizes)] * shares
        at_random = entropies[len(sizes) :].reshape(self.repetitions, -1)
        of_repetitions = at_random[:, self.size_of_class] @ shares / self.repetitions
        return np.concatenate([of_repetitions, -within])


@dataclass(frozen=True)
class _Spread:
    """The variance of the measure between parts of the images, and what it would be if no terms shared points.

    The latter has many more degrees of freedom, because each class and each random subset contributes its own.
    """

    joint: float
    unshared: float


def _spread(splits: list[list[_Part]], entropies: SubsetEntropies) -> _Spread:
    subsets: list[Subset] = []
    ends = []
    for split in splits:
        for part in split:
            subsets += [*part.of_classes, *part.random_subsets]
            ends.append(len(subsets))
    # In one call, so that subsets are computed in parallel.
    values = np.array([entropy.value for entropy in entropies.of(subsets)])
    of_parts = iter(np.split(values, ends[:-1]))
    # [splits, parts, terms].
    terms = np.array([[part.terms(next(of_parts)) for part in split] for split in splits])
    joint = terms.sum(axis=2).var(axis=1, ddof=1).mean()
    unshared = terms.var(axis=1, ddof=1).sum(axis=1).mean()
    return _Spread(float(joint), float(unshared))


def _deal(
    members: list[NDArray[np.int64]],
    rows: list[NDArray[np.int64]],
    parts: int,
    repetitions: int,
    generator: np.random.Generator,
) -> list[_Part]:
    """Deal the images of each class, equally many to each part.

    The n-th rows of all parts are of one class, so that the same random order of each part makes subsets with the same
    composition.
    """
    classes_of: list[list[Subset]] = [[] for _ in range(parts)]
    for of_class in members:
        each = len(of_class) // parts
        shuffled = generator.permutation(of_class)[: parts * each].reshape(parts, each)
        for of_classes, images in zip(classes_of, shuffled, strict=True):
            of_classes.append(np.concatenate([rows[image] for image in images]))
    smallest = min(sum(map(len, of_classes)) for of_classes in classes_of)
    orders = [generator.permutation(smallest) for _ in range(repetitions)]
    dealt = []
    for of_classes in classes_of:
        everything = np.concatenate(of_classes)
        lengths = [len(of_class) for of_class in of_classes]
        sizes, size_of_class = np.unique(lengths, return_inverse=True)
        subsets = [everything[order[:size]] for order in orders for size in sizes]
        dealt.append(_Part(of_classes, subsets, size_of_class, repetitions))
    return dealt
