"""Simulated data whose entropy or mutual information has a known order: trees, blobs, corrupted labels."""

import numpy as np
from numpy.typing import NDArray


def branching_tree(n: int, branches: int, d: int, noise: float, seed: int) -> NDArray[np.float64]:
    """Sample points along a tree of random walks: each branch is a Brownian path that starts on an earlier one.

    Parameters
    ----------
    n
        Points, spread evenly over the branches.
    branches
        Number of branches; more branches mean more directions of diffusion.
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
    """Sample Gaussian blobs around standard normal centres, and the blob of each point.

    Parameters
    ----------
    n
        Points, spread evenly over the blobs. The centres of fewer clusters are the first of those of more.
    noise
        Standard deviation within a blob; that of the centres is 1.

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
    """Permute a share of the labels among themselves, which keeps the class sizes; int64 [n]."""
    generator = np.random.default_rng([3, seed])
    chosen = generator.permutation(len(labels))[: round(share * len(labels))]
    corrupted = labels.copy()
    corrupted[chosen] = labels[generator.permutation(chosen)]
    return corrupted


def label_information(labels: NDArray[np.int64], corrupted: NDArray[np.int64]) -> float:
    """Return the mutual information, in bits, of two labellings of the same points, int64 [n] each."""
    joint = np.zeros((labels.max() + 1, corrupted.max() + 1))
    np.add.at(joint, (labels, corrupted), 1 / len(labels))
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / independent[there])).sum())
