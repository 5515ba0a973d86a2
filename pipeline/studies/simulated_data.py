"""Data whose entropy or mutual information is known in its order: trees, blobs, corrupted labels."""

import numpy as np
from numpy.typing import NDArray


def branching_tree(n: int, branches: int, d: int, noise: float, seed: int) -> NDArray[np.float64]:
    """Points along a tree of random walks: each branch is a Brownian path that leaves an earlier one somewhere.

    Parameters
    ----------
    n
        Points, spread evenly over the branches.
    branches
        How many; the more, the more directions of diffusion there are.
    d
        Dimensions. Along a branch every coordinate moves by a standard deviation of 1, whatever d.
    noise
        Standard deviation of the Gaussian noise on every coordinate.

    Returns
    -------
    float64 [n, d]
    """
    generator = np.random.default_rng([1, seed])
    branch = np.arange(n) * branches // n
    points = np.empty((n, d))
    for number in range(branches):
        mine = np.flatnonzero(branch == number)
        start = np.zeros(d) if number == 0 else points[generator.integers(mine[0])]
        steps = generator.normal(size=(len(mine), d)) / np.sqrt(len(mine))
        points[mine] = start + steps.cumsum(axis=0)
    return points + noise * generator.normal(size=(n, d))


def blobs(
    n: int, clusters: int, d: int, noise: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Gaussian blobs around standard normal centres, and which blob each point is of.

    Parameters
    ----------
    n
        Points, spread evenly over the blobs, which are nested: those of fewer clusters are the first of more.
    noise
        Standard deviation within a blob, in units of that between the centres.

    Returns
    -------
    float64 [n, d], int64 [n]
    """
    generator = np.random.default_rng([2, seed])
    labels = np.arange(n) * clusters // n
    points = noise * generator.normal(size=(n, d))
    points += generator.normal(size=(clusters, d))[labels]
    return points, labels


def corrupted_labels(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """The labels with a share of them permuted among themselves, so that class sizes stay; int64 [n]."""
    generator = np.random.default_rng([3, seed])
    chosen = generator.permutation(len(labels))[: round(share * len(labels))]
    corrupted = labels.copy()
    corrupted[chosen] = labels[generator.permutation(chosen)]
    return corrupted


def label_information(labels: NDArray[np.int64], corrupted: NDArray[np.int64]) -> float:
    """Mutual information, in bits, of two labellings of the same points, int64 [n] each: the truth behind a sample."""
    joint = np.zeros((labels.max() + 1, corrupted.max() + 1))
    np.add.at(joint, (labels, corrupted), 1 / len(labels))
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / independent[there])).sum())
