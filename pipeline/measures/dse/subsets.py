"""Entropies of subsets of an embedding's points, and the mutual information that follows from them."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, is_on_host, namespace, rows_of, to_host
from ..core.context import MeasureContext
from ..core.distances import BLOCK_NUMBERS, Points, gaussian_kernel, squared_distances
from ..core.exact_or_estimated import Estimate, method_for, precision_for
from ..core.halves import large_classes, rows_of_images
from ..core.settings import MeasureSettings
from ..core.threads import blas_threads, computed_once, in_threads
from .lanczos import spectral_entropy_by_lanczos
from .spectrum import SMALL, eigenvalues, kernel_entropy, normalise, spectrum_entropy

AT_ONCE_NUMBERS = (
    2**25
)  # in the kernels that are solved at a time: 256 MiB, and three times as much to make them

Subset = NDArray[np.int64]
"""Indices of points, int64 [k]."""


class SubsetEntropies(ABC):
    """Entropies of subsets of n points.

    Parameters
    ----------
    n : int
        Number of points.
    settings : MeasureSettings
        The seed and number of random subsets.
    """

    def __init__(self, n: int, settings: MeasureSettings) -> None:
        self.n = n
        self.settings = settings
        self._of_random: dict[int, Estimate] = {}

    @abstractmethod
    def of(self, subsets: Sequence[Subset]) -> list[Estimate]:
        """Return the entropy of each subset, in bits."""

    def of_random(self, k: int) -> Estimate:
        """Return the mean entropy of random subsets of k points, in bits.

        A fresh generator draws the subsets, so they depend on k only: classes of one size share theirs, which makes the
        null and a second labelling of the same points cheap.
        """
        if k not in self._of_random:
            repetitions = self.settings.repetitions
            entropies = self.of(random_subsets(self.n, k, repetitions, self.settings.seed))
            error = math.hypot(*(entropy.standard_error for entropy in entropies)) / repetitions
            mean = float(np.mean([entropy.value for entropy in entropies]))
            self._of_random[k] = Estimate(mean, error, _method(entropies))
        return self._of_random[k]

    def information(self, classes: NDArray[np.int64]) -> Estimate:
        """Return the mutual information with classes, int64 [n], numbered from 0, in bits."""
        return self.informations([classes])[0]

    def informations(self, labellings: Sequence[NDArray[np.int64]]) -> list[Estimate]:
        """Return the mutual information with each of several labellings, computed in parallel.

        The sum over classes of p(c) (entropy of random points, as many as the class has, minus entropy of the class).
        It is exact before its last rounding, so that the order of the classes does not matter.
        """
        members = [_members(classes) for classes in labellings]
        within = iter(self.of([points for of_classes in members for points in of_classes]))
        return [
            self._information(of_classes, list(islice(within, len(of_classes))))
            for of_classes in members
        ]

    def _information(self, members: Sequence[Subset], within: Sequence[Estimate]) -> Estimate:
        sizes = [len(points) for points in members]
        at_random = {size: self.of_random(size) for size in set(sizes)}
        share_of_size = dict.fromkeys(at_random, 0.0)
        gains, errors = [], []
        for size, entropy in zip(sizes, within, strict=True):
            share = size / self.n
            gains.append(share * (at_random[size].value - entropy.value))
            errors.append(share * entropy.standard_error)
            share_of_size[size] += share
        # Classes of one size share their random subsets, so these errors add up.
        errors += [share_of_size[size] * mean.standard_error for size, mean in at_random.items()]
        method = _method([*within, *at_random.values()])
        return Estimate(math.fsum(gains), math.hypot(*errors), method)


def _members(classes: NDArray[np.int64]) -> list[Subset]:
    """Return the points of each class."""
    by_class = np.argsort(classes, kind="stable")
    return np.split(by_class, np.cumsum(np.bincount(classes))[:-1])


def _method(estimates: Sequence[Estimate]) -> str:
    return "lanczos" if any(estimate.method == "lanczos" for estimate in estimates) else "exact"


def random_subsets(n: int, k: int, repetitions: int, seed: int) -> list[Subset]:
    """Draw random subsets of k of the n points, as the reference does."""
    generator = random.Random(seed)
    return [np.array(generator.sample(range(n), k)) for _ in range(repetitions)]


def of_equal_size(
    subsets: Sequence[Subset], numbers_each: int | None = None
) -> Iterator[list[int]]:
    """Yield the indices of subsets to compute together: those of one size, as many as memory and threads allow.

    ``numbers_each`` is the count of numbers for each point of a subset; by default, the size of the subset.
    """
    sizes = [len(subset) for subset in subsets]
    for size in sorted({*sizes}):
        places = [place for place, of_this in enumerate(sizes) if of_this == size]
        most = BLOCK_NUMBERS // (4 * size * (numbers_each or size))
        step = max(1, min(most, -(-len(places) // blas_threads())))
        for start in range(0, len(places), step):
            yield places[start : start + step]


class SpectralEntropies(SubsetEntropies):
    """Diffusion spectral entropies of subsets of points, each by the method for its size."""

    def __init__(self, points: Points, sigma: float, settings: MeasureSettings) -> None:
        super().__init__(len(points), settings)
        self.points = points
        self.sigma = sigma

    def of(self, subsets: Sequence[Subset]) -> list[Estimate]:
        """Return the entropy of each subset, in bits."""
        method = self.settings.method
        large = [method_for(method, len(subset)) == "lanczos" for subset in subsets]
        small = [subset for subset, is_large in zip(subsets, large, strict=True) if not is_large]
        exact = iter(self._exact(small))
        return [
            self._estimated(subset) if is_large else Estimate(next(exact), 0.0, "exact")
            for subset, is_large in zip(subsets, large, strict=True)
        ]

    def _estimated(self, subset: Subset) -> Estimate:
        settings = self.settings
        values = rows_of(self.points.values, subset)
        return spectral_entropy_by_lanczos(
            values, self.sigma, settings.t, settings.tolerance, settings.seed
        )

    def _exact(self, subsets: Sequence[Subset]) -> list[float]:
        """Return the entropies from all eigenvalues.

        Small subsets of one size are solved in stacks, others one by one; both are distributed over as many threads as
        BLAS may use, unless they are so large that several at a time would take too much memory.
        """
        entropies, t = np.empty(len(subsets)), self.settings.t
        sizes = [len(subset) for subset in subsets]

        def solve(numbers: list[int]) -> None:
            if sizes[numbers[0]] > SMALL:
                for number in numbers:
                    entropies[number] = self._entropy(self._kernels(subsets[number]))
                return
            stack = self._kernels(np.stack([subsets[number] for number in numbers]))
            normalise(stack)
            entropies[numbers] = to_host(spectrum_entropy(eigenvalues(stack), t))

        # A device works through its tasks in sequence.
        most = SMALL
        if is_on_host(self.points.values):
            most = max(SMALL, math.isqrt(AT_ONCE_NUMBERS // blas_threads()))
        parts = list(of_equal_size(subsets))[::-1]  # the largest first
        in_threads(solve, [part for part in parts if sizes[part[0]] <= most])
        for part in parts:
            if sizes[part[0]] > most:
                solve(part)
        values: list[float] = entropies.tolist()
        return values

    def _entropy(self, kernel: Array) -> float:
        """Return the entropy of a large kernel [k, k], which is overwritten."""
        precision = precision_for(self.settings.precision, kernel.shape[0], self.settings.t)
        return kernel_entropy(kernel, self.settings.t, precision=precision)

    def _kernels_of(self, squares: Array) -> Array:
        """Return new kernels, float64 [..., k, k], of points with these squared distances."""
        return gaussian_kernel(squares, self.sigma)

    def _kernels(self, indices: NDArray[np.int64]) -> Array:
        """Return new kernels, float64 [..., k, k], of the points with these indices, int64 [..., k].

        If they are all points, their order is ignored, because a spectrum does not depend on it. Few points share one
        matrix of distances; for many, the distances of each subset are computed.
        """
        if not self.points.few:
            xp, values = namespace(self.points.values), self.points.values
            if indices.ndim > 1:
                return xp.stack([self._kernels(subset) for subset in indices])
            return self._kernels_of(squared_distances(rows_of(values, indices)))
        squares = self.points.squares
        if indices.shape == squares.shape[:1]:
            return self._kernels_of(squares)
        xp = namespace(squares)
        places = indices[..., :, None] * self.n + indices[..., None, :]
        flat = xp.reshape(squares, (-1,))
        of_subsets = xp.take(flat, as_array_like(places.reshape(-1), squares))
        return self._kernels_of(xp.reshape(of_subsets, places.shape))


@computed_once
def spectral_entropies(context: MeasureContext) -> SpectralEntropies:
    """Return the diffusion spectral entropies of subsets of a context's points."""
    return SpectralEntropies(context.points, context.sigma, context.settings)


HALVINGS = 8
QUARTERINGS = 6
FOR_QUARTERS = 8
"""Fewest images per class: two for each quarter, because the entropy of a single image is always 0."""
_POWERS = -2.0, 1.0  # of the size; an estimate outside is noise


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
        NaN if over a tenth of the rows belong to classes of fewer than eight images.
    """
    rows = rows_of_images(images)
    members = large_classes(classes, rows, FOR_QUARTERS)
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
    is the index of each class's size among them.
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

    The n-th rows of all parts are of one class, so applying the same random order to each part gives subsets of the
    same composition.
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
