"""Mutual information of an embedding and classes, in bits, from the entropies of its subsets."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

import math
import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.arrays import Array, rows_of, stacked_rows
from ..core.checks import (
    as_classes,
    as_count,
    as_embedding,
    as_seed,
    as_sigma,
    as_time,
    as_tolerance,
)
from ..core.estimate import (
    TOLERANCE,
    Estimate,
    Method,
    Precision,
    as_method,
    as_precision,
    method_for,
    precision_for,
)
from ..core.points import Points, as_points
from ..core.threads import in_threads
from .entropy import spectrum_entropy, stacked_binned_entropies
from .lanczos import spectral_entropy_by_lanczos
from .spectrum import KernelOf, of_equal_size, separate_kernels, subset_kernels, subset_spectra

EntropiesOf = Callable[[Sequence[NDArray[np.int64]]], list[Estimate]]
"""The entropy of each subset, given by its points' indices, int64 [k]."""

RandomEntropy = Callable[[int], Estimate]
"""The mean entropy of random subsets of so many points."""


def diffusion_spectral_mutual_information(
    Z: ArrayLike | Points,
    labels: ArrayLike,
    *,
    sigma: float | None = None,
    t: float = 1,
    repetitions: int = 5,
    seed: int = 0,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
) -> float:
    """Diffusion spectral mutual information (DSMI) of an embedding and labels, in bits.

    The sum over classes c of p(c) times the difference between the diffusion spectral entropy of random points, as
    many as the class has, and that of the class. It is not Shannon's: it depends on the number of points in a class
    and on the number of classes, so compare only what was measured on the same labels.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample; for the information about inputs, their clusters from `cluster_inputs`.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets. Each class starts afresh from it; global random states are neither read nor set.
    method, precision, tolerance
        As for `diffusion_spectral_entropy`, for the entropy of each class and each random subset, by its own size.

    Returns
    -------
    float
        Bits; slightly negative values are possible, because the subsets are random.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, there is not one label for each row, the labels are continuous or make
        fewer than two classes, or a setting is out of range.

    References
    ----------
    Liao et al., arXiv 2312.04823.
    """
    return diffusion_spectral_mutual_information_estimate(
        Z,
        labels,
        sigma=sigma,
        t=t,
        repetitions=repetitions,
        seed=seed,
        method=method,
        precision=precision,
        tolerance=tolerance,
    ).value


def diffusion_spectral_mutual_information_estimate(
    Z: ArrayLike | Points,
    labels: ArrayLike,
    *,
    sigma: float | None = None,
    t: float = 1,
    repetitions: int = 5,
    seed: int = 0,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
) -> Estimate:
    """Diffusion spectral mutual information with the standard error of its computation, and the method used.

    Parameters and errors are those of `diffusion_spectral_mutual_information`.

    Returns
    -------
    Estimate
        Value and standard error in bits; method ``lanczos`` if any of its entropies was estimated. The error is that
        of the computation alone: what other images would give is `dsmi_z_y_se` of `measure`.
    """
    points = as_points(Z)
    classes = as_classes(labels, points.values.shape[0])
    sigma, t = as_sigma(sigma, points.values.shape[1]), as_time(t)
    method, precision = as_method(method), as_precision(precision)
    tolerance, seed = as_tolerance(tolerance), as_seed(seed)
    kernels = shared_kernels(points, sigma)
    entropies_of = spectral_entropies(points, kernels, sigma, t, method, precision, tolerance, seed)
    random_entropy = random_subset_entropies(
        entropies_of, points.values.shape[0], repetitions, seed
    )
    return mutual_information(classes, entropies_of, random_entropy)


def shannon_mutual_information(
    Z: ArrayLike, labels: ArrayLike, *, bins: int = 2, repetitions: int = 5, seed: int = 0
) -> float:
    """Mutual information (CSMI) of an embedding and labels, in bits, from the classic entropy in bins.

    As `diffusion_spectral_mutual_information`, with `shannon_entropy` in place of the diffusion spectral entropy.
    Each subset is binned between its own smallest and largest values.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample.
    bins : int
        Bins for each dimension.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets.

    Returns
    -------
    float
        Bits.

    Raises
    ------
    ValueError
        As `diffusion_spectral_mutual_information`.

    References
    ----------
    The baseline of Liao et al., arXiv 2312.04823.
    """
    embedding = as_embedding(Z)
    classes = as_classes(labels, len(embedding))
    entropies_of = binned_entropies(embedding, as_count(bins, "bins"))
    random_entropy = random_subset_entropies(entropies_of, len(embedding), repetitions, seed)
    return mutual_information(classes, entropies_of, random_entropy).value


def shared_kernels(points: Points, sigma: float) -> KernelOf:
    """Return the function that gives subsets' kernels: from all distances, or if points are many, one by one."""
    if points.few:
        return subset_kernels(points.squares, sigma)
    return separate_kernels(points.values, sigma)


def exact_entropies(kernels: KernelOf, t: float, precision: Precision = "float64") -> EntropiesOf:
    """Return the function that gives the diffusion spectral entropies of subsets, from all eigenvalues of each."""

    def entropies_of(subsets: Sequence[NDArray[np.int64]]) -> list[Estimate]:
        precisions = [precision_for(precision, len(subset), t) for subset in subsets]
        values = subset_spectra(
            kernels, subsets, precisions, lambda eigenvalues: spectrum_entropy(eigenvalues, t)
        )
        return [Estimate(value, 0.0, "exact") for value in values.tolist()]

    return entropies_of


def spectral_entropies(
    points: Points,
    kernels: KernelOf,
    sigma: float,
    t: float,
    method: Method,
    precision: Precision,
    tolerance: float,
    seed: int,
) -> EntropiesOf:
    """Return the function that gives the diffusion spectral entropies of subsets, each by the method for its size."""
    exact = exact_entropies(kernels, t, precision)

    def estimated(subset: NDArray[np.int64]) -> Estimate:
        return spectral_entropy_by_lanczos(
            rows_of(points.values, subset), sigma, t, tolerance, seed
        )

    def entropies_of(subsets: Sequence[NDArray[np.int64]]) -> list[Estimate]:
        large = [method_for(method, len(subset)) == "lanczos" for subset in subsets]
        ready = iter(
            exact([subset for subset, is_large in zip(subsets, large, strict=True) if not is_large])
        )
        return [
            estimated(subset) if is_large else next(ready)
            for subset, is_large in zip(subsets, large, strict=True)
        ]

    return entropies_of


def binned_entropies(Z: Array, bins: int) -> EntropiesOf:
    """Return the function that gives the classic entropies of subsets of the embedding [n, d]."""

    def entropies_of(subsets: Sequence[NDArray[np.int64]]) -> list[Estimate]:
        entropies = np.empty(len(subsets))

        def solve(numbers: list[int]) -> None:
            stack = stacked_rows(Z, np.stack([subsets[number] for number in numbers]))
            entropies[numbers] = stacked_binned_entropies(stack, bins)

        in_threads(solve, list(of_equal_size(subsets, numbers_each=Z.shape[1])))
        return [Estimate(entropy, 0.0, "exact") for entropy in entropies.tolist()]

    return entropies_of


def random_subset_entropies(
    entropies_of: EntropiesOf, n: int, repetitions: int, seed: int
) -> RandomEntropy:
    """Return the function that gives the mean entropy, in bits, of random subsets of k of the n points.

    Every call draws from a fresh generator, so the subsets depend on k only: classes of one size share theirs, and
    the values are kept, which makes the null and a second labelling of the same points cheap.
    """
    repetitions, seed = as_count(repetitions, "repetitions"), as_seed(seed)

    @cache
    def mean_entropy(k: int) -> Estimate:
        entropies = entropies_of(random_subsets(n, k, repetitions, seed))
        error = math.hypot(*(entropy.standard_error for entropy in entropies)) / repetitions
        return Estimate(float(np.mean([e.value for e in entropies])), error, used(entropies))

    return mean_entropy


def random_subsets(n: int, k: int, repetitions: int, seed: int) -> list[NDArray[np.int64]]:
    """The random subsets of k of the n points, as the reference draws them."""
    generator = random.Random(seed)
    return [np.array(generator.sample(range(n), k)) for _ in range(repetitions)]


def members_of(classes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The points of each class 0, 1, ..., ascending."""
    by_class = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes))
    return np.split(by_class, ends[:-1])


def mutual_information(
    classes: NDArray[np.int64], entropies_of: EntropiesOf, random_entropy: RandomEntropy
) -> Estimate:
    """Sum over classes of p(c) (entropy of random points, as many as the class has, minus entropy of the class).

    Parameters
    ----------
    classes : int64 [n]
        Classes, numbered from 0.
    entropies_of : callable
        Entropies of subsets of the points.
    random_entropy : callable
        Mean entropy of random subsets of a given size.

    Returns
    -------
    Estimate
        Bits. The sum is exact before its last rounding, so that the order of the classes does not matter.
    """
    members = members_of(classes)
    within = entropies_of(members)
    sizes = [len(points) for points in members]
    at_random = {size: random_entropy(size) for size in set(sizes)}
    share_of_size = dict.fromkeys(at_random, 0.0)
    gains, errors = [], []
    for size, entropy in zip(sizes, within, strict=True):
        share = size / len(classes)
        gains.append(share * (at_random[size].value - entropy.value))
        errors.append(share * entropy.standard_error)
        share_of_size[size] += share
    # Classes of one size have the same random subsets, whose errors therefore add up.
    errors += [share_of_size[size] * entropy.standard_error for size, entropy in at_random.items()]
    method = used([*within, *at_random.values()])
    return Estimate(math.fsum(gains), math.hypot(*errors), method)


def used(estimates: Sequence[Estimate]) -> str:
    """``lanczos`` if any of them is."""
    return "lanczos" if any(estimate.method == "lanczos" for estimate in estimates) else "exact"
