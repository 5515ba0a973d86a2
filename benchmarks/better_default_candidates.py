"""DSMI of one embedding for every candidate of a default: preparation, sigma, t and normalisation.

Written apart from ``dsmi_zoo.pipeline.measures``, so that the study does not rest on what it is about;
``better_default.py`` holds the paper's choice against the rows of the runs.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

Array = NDArray[np.float64]

FRACTIONS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
NEIGHBOURS = (1, 5, 10, 20, 44)
TUNED = (7, 20, 44)
TIMES = (0.5, 1, 2, 4)
REPETITIONS = 5
PERMUTATIONS = 5
LEAST = 1e-150  # a width of 0, for all points are alike

PREPARATIONS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda Z: Z,
    "standardised": lambda Z: (Z - Z.mean(axis=0)) / np.where(Z.std(axis=0) > 0, Z.std(axis=0), 1),
    "cosine": lambda Z: Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), LEAST),
    "centred cosine": lambda Z: PREPARATIONS["cosine"](Z - Z.mean(axis=0)),
}
"""Centring alone moves no distance; dividing by the root mean square is a sigma in its units."""

NORMALISATIONS: dict[str, Callable[[Array, Array, Array, Array, float], Array]] = {
    "DSMI": lambda dsmi, null, dse, subsets, ceiling: dsmi,
    "DSMI less null": lambda dsmi, null, dse, subsets, ceiling: dsmi - null,
    "DSMI less null over ceiling less null": lambda dsmi, null, dse, subsets, ceiling: (
        (dsmi - null) / (ceiling - null)
    ),
    "DSMI over DSE": lambda dsmi, null, dse, subsets, ceiling: dsmi / np.maximum(dse, 1e-9),
    "DSMI over that of singletons": lambda dsmi, null, dse, subsets, ceiling: (
        dsmi / np.maximum(subsets, 1e-9)
    ),
}
"""The ceiling, the sum of p(c) log2 m(c), is one number for all models of a subset, so DSMI over it ranks as DSMI. The
last is DSMI over the random subsets' entropy, which it would be if every class were one point."""


@dataclass(frozen=True)
class Kernel:
    """One way to a kernel: how the embedding is prepared, and the rule of its width."""

    preparation: str
    width: str
    of: Callable[[Array, Array, Array], Array]
    """From the squared distances [n, n], the sorted distances [n, n] and the prepared embedding: the width(s)."""

    def __str__(self) -> str:
        return f"sigma = {self.width}" + (
            "" if self.preparation == "as it is" else f", {self.preparation}"
        )


@dataclass(frozen=True)
class Candidate:
    """A kernel's number in ``KERNELS``, with time and normalisation."""

    kernel: int
    t: float
    normalisation: str

    @property
    def departures(self) -> int:
        """In how many of the four choices it differs from the paper's."""
        kernel = KERNELS[self.kernel]
        chosen = (kernel.preparation, kernel.width, self.t, self.normalisation)
        return sum(a != b for a, b in zip(chosen, ("as it is", "sqrt(d)", 1, "DSMI"), strict=True))

    def __str__(self) -> str:
        return f"{self.normalisation}, {KERNELS[self.kernel]}" + (
            f", t = {self.t:g}" if self.t != 1 else ""
        )


def _of_median(squares: Array, near: Array, Z: Array, c: float) -> Array:
    return np.asarray(c * np.median(np.sqrt(squares[np.triu_indices(len(squares), 1)])))


def _of_neighbours(squares: Array, near: Array, Z: Array, k: int) -> Array:
    return np.asarray(np.median(near[:, k]))


def _tuned(squares: Array, near: Array, Z: Array, k: int) -> Array:
    return near[:, k]


def _of_dimension(squares: Array, near: Array, Z: Array, c: float, rms: bool) -> Array:
    return np.asarray(c * np.sqrt(Z.shape[1]) * (np.sqrt(np.mean(Z**2)) if rms else 1))


def _fixed(squares: Array, near: Array, Z: Array, sigma: float) -> Array:
    return np.asarray(sigma)


def _kernels() -> Iterator[Kernel]:
    yield Kernel("as it is", "sqrt(d)", partial(_of_dimension, c=1, rms=False))
    for c in (0.5, 1):
        yield Kernel("as it is", f"{c:g} rms sqrt(d)", partial(_of_dimension, c=c, rms=True))
        yield Kernel("standardised", f"{c:g} sqrt(d)", partial(_of_dimension, c=c, rms=False))
    for preparation in ("cosine", "centred cosine"):
        for sigma in (0.25, 0.5, 1):
            yield Kernel(preparation, f"{sigma:g}", partial(_fixed, sigma=sigma))
    for preparation in PREPARATIONS:
        for c in FRACTIONS:
            yield Kernel(preparation, f"{c:g} median distance", partial(_of_median, c=c))
        for k in NEIGHBOURS:
            yield Kernel(preparation, f"median {k}-NN distance", partial(_of_neighbours, k=k))
        for k in TUNED:
            yield Kernel(preparation, f"own {k}-NN distance (self-tuning)", partial(_tuned, k=k))


KERNELS = tuple(_kernels())
CANDIDATES = tuple(
    Candidate(kernel, t, normalisation)
    for kernel in range(len(KERNELS))
    for t in TIMES
    for normalisation in NORMALISATIONS
)
# How the score moves with sigma; drawn after the selection, for which they are no candidates.
DESCRIBED = tuple(
    Kernel("as it is", f"{c:g} rms sqrt(d)", partial(_of_dimension, c=c, rms=True))
    for c in FRACTIONS
    if c not in (0.5, 1)
)
PAPER = CANDIDATES.index(Candidate(0, 1, "DSMI"))


def parts(
    Z: Array, classes: NDArray[np.int64], kernels: Sequence[Kernel] = KERNELS, seed: int = 0
) -> Array:
    """DSMI, its null, DSE and the random subsets' mean entropy, in bits, by kernel and time.

    Parameters
    ----------
    Z : float64 [n, d]
        The embedding, one row per image.
    classes : int64 [n]
        The classes, from 0.
    kernels
        Which to compute.
    seed : int
        Of the random subsets and of the null, used as ``dsmi_zoo.pipeline.measures`` does.

    Returns
    -------
    float64 [kernels, times, 4]
    """
    n, sizes = len(Z), np.bincount(classes)
    generator = np.random.default_rng(seed)
    labellings = [classes, *(generator.permutation(classes) for _ in range(PERMUTATIONS))]
    by_class = [[np.flatnonzero(labels == c) for c in range(len(sizes))] for labels in labellings]
    drawn: dict[int, list[NDArray[np.int64]]] = {}
    for k in map(int, np.unique(sizes)):
        source = random.Random(seed)
        drawn[k] = [np.array(source.sample(range(n), k)) for _ in range(REPETITIONS)]
    share = sizes / n

    found = np.empty((len(kernels), len(TIMES), 4))
    for preparation, prepare in PREPARATIONS.items():
        if all(kernel.preparation != preparation for kernel in kernels):
            continue
        prepared = prepare(Z)
        squares = squareform(pdist(prepared, "sqeuclidean"))
        near = np.sqrt(np.sort(squares, axis=1))
        for number, kernel in enumerate(kernels):
            if kernel.preparation != preparation:
                continue
            widths = np.maximum(np.broadcast_to(kernel.of(squares, near, prepared), n), LEAST)
            with np.errstate(over="ignore", under="ignore"):
                G = np.exp(squares / widths[:, None] / widths / -2)
            # [labellings, classes, times].
            of_classes = np.array([_entropies(G, members) for members in by_class])
            of_size = {k: _entropies(G, subsets).mean(axis=0) for k, subsets in drawn.items()}
            random_subsets = share @ np.array([of_size[int(k)] for k in sizes])
            information = random_subsets - np.einsum("c,lct->lt", share, of_classes)
            dse = _entropies(G, [np.arange(n)])[0]
            found[number] = np.stack(
                [information[0], information[1:].mean(axis=0), dse, random_subsets], axis=1
            )
    return found


def scores(found: Array, classes: NDArray[np.int64]) -> Array:
    """Every candidate's score, [candidates], from what ``parts`` returned."""
    sizes = np.bincount(classes)
    ceiling = float(sizes / len(classes) @ np.log2(sizes))
    dsmi, null, dse, subsets = np.moveaxis(found, 2, 0)
    by_normalisation = [
        normalise(dsmi, null, dse, subsets, ceiling) for normalise in NORMALISATIONS.values()
    ]
    return np.stack(by_normalisation, axis=2).ravel()


def _entropies(G: Array, subsets: list[NDArray[np.int64]]) -> Array:
    """Diffusion spectral entropies, in bits, of subsets of the kernel's points, by subset and time: [m, times]."""
    found = np.empty((len(subsets), len(TIMES)))
    for k in {len(members) for members in subsets}:
        places = [i for i, members in enumerate(subsets) if len(members) == k]
        chosen = np.stack([subsets[i] for i in places])
        blocks = G[chosen[:, :, None], chosen[:, None, :]]
        roots = np.sqrt(blocks.sum(axis=2))
        eigenvalues = np.abs(np.linalg.eigvalsh(blocks / roots[:, :, None] / roots[:, None, :]))
        for j, t in enumerate(TIMES):
            with np.errstate(under="ignore"):
                weights = eigenvalues**t
            p = weights / weights.sum(axis=1, keepdims=True) + np.finfo(float).eps
            found[places, j] = -(p * np.log2(p)).sum(axis=1)
    return found
