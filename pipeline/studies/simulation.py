"""The study on simulated data: DSMI and other estimators (KSG, MINE) on data with a known order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import content_hash, damage_problem, write_checksummed

from ..measures import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    shannon_entropy,
    shannon_mutual_information,
)
from ..measures.core.checks import as_classes, as_embedding_on_host
from ..plan.job import Outcome

NEIGHBOURS = 3
MINE_WIDTH, MINE_STEPS, MINE_RATE = 64, 200, 2e-3
_AVERAGED = 0.01  # weight of the newest step in MINE's running mean of the partition function
VERSION = 2  # increase it when a cell produces other numbers for the same settings
BINS = (5, 10, 100)
CLUSTERS = 10
DataKind = Literal["tree", "blobs", "labels"]
Estimators = dict[str, Callable[[], float]]
ENTROPY_LEVELS = (2, 4, 8, 16, 32)  # branches or clusters
LABEL_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of corrupted labels


def ksg_label_information(Z: ArrayLike, labels: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Estimate the mutual information of a continuous variable and labels from distances to neighbours, in bits.

    Ross's form of the nearest-neighbour estimator: the distance to a point's k-th neighbour in its own class, and the
    number of points of all classes within it. Points alone in their class are left out. Distances are Euclidean, on
    scikit-learn's trees in few dimensions and without them in many, where trees save nothing.

    Parameters
    ----------
    Z : real [n, d]
    labels : [n]
    k
        Neighbours; fewer in classes that are smaller.

    Returns
    -------
    float
        Bits.

    References
    ----------
    Ross, PLoS ONE 9 (2014) e87357; scikit-learn's ``mutual_info_classif`` is the same for one column at a time.
    """
    from sklearn.neighbors import NearestNeighbors

    Z = as_embedding_on_host(Z)
    classes = as_classes(labels, len(Z))
    sizes = np.bincount(classes)
    kept = sizes[classes] > 1
    Z, classes = Z[kept], classes[kept]
    radius, neighbours = np.empty(len(Z)), np.empty(len(Z))
    for of_class in np.flatnonzero(sizes > 1):
        mine = np.flatnonzero(classes == of_class)
        near = min(k, len(mine) - 1)
        distances, _ = NearestNeighbors(n_neighbors=near).fit(Z[mine]).kneighbors()
        radius[mine] = distances[:, -1]
        neighbours[mine] = near
    within = _counts_within(Z, radius)
    nats = digamma(len(Z)) + np.mean(
        digamma(neighbours) - digamma(sizes[classes]) - digamma(within)
    )
    return float(nats / np.log(2))


def _counts_within(Z: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the points that lie strictly within each point's radius, itself included: int64 [n]."""
    from sklearn.neighbors import KDTree

    if Z.shape[1] <= 15:
        counts = KDTree(Z).query_radius(Z, np.nextafter(radius, 0), count_only=True)
        return np.asarray(counts, dtype=np.int64)
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(Z)
    np.fill_diagonal(distances, 0)
    # The k-th neighbour itself must not count because of rounding.
    return np.maximum((distances < radius[:, None] * (1 - 1e-9)).sum(axis=1), 1)


def mine_mutual_information(
    Z: ArrayLike, Y: ArrayLike, *, steps: int = MINE_STEPS, seed: int = 0
) -> float:
    """Estimate mutual information by a small network trained on the Donsker-Varadhan bound (MINE), in bits.

    T(z, y) has one hidden layer of 64 ReLU units and is trained on all samples at once by Adam, with the running mean
    of the partition function that corrects the gradient's bias. The value is the mean of the bound over the last tenth
    of the steps, on the training samples, as in the paper.

    Parameters
    ----------
    Z : real [n, d]
    Y : real [n, q]
        For labels, their one-hot columns.
    steps
        Optimiser steps.
    seed
        Seed of the weights and of the pairings; torch's own state stays as it is.

    Returns
    -------
    float
        Bits.

    References
    ----------
    Belghazi et al., Mutual information neural estimation, ICML 2018 (arXiv 1801.04062).
    """
    import torch

    from ..embedding.train import reproducible

    z, y = (
        torch.from_numpy(_for_network(as_embedding_on_host(V, name))).float()
        for V, name in ((Z, "Z"), (Y, "Y"))
    )
    bounds = []
    with reproducible(seed):
        of_z = torch.nn.Linear(z.shape[1], MINE_WIDTH)
        of_y = torch.nn.Linear(y.shape[1], MINE_WIDTH, bias=False)
        end = torch.nn.Linear(MINE_WIDTH, 1)
        layers = torch.nn.ModuleList([of_z, of_y, end])
        optimiser = torch.optim.Adam(layers.parameters(), lr=MINE_RATE)
        average = None
        for _ in range(steps):
            hidden_z, hidden_y = of_z(z), of_y(y)  # shared by true and shuffled pairs
            joint = end(torch.relu(hidden_z + hidden_y)).mean()
            shuffled = end(torch.relu(hidden_z + hidden_y[torch.randperm(len(y))])).squeeze(1)
            partition = shuffled.exp().mean()
            average = (
                partition.detach()
                if average is None
                else torch.lerp(average, partition.detach(), _AVERAGED)
            )
            bounds.append(float((joint - partition.log()).detach()))
            optimiser.zero_grad()
            (partition / average - joint).backward()
            optimiser.step()
    return float(np.mean(bounds[-max(1, steps // 10) :]) / np.log(2))


def _for_network(V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardise columns; if there are more columns than rows, return the coordinates in the space of the rows.

    Both carry the same information for a linear layer. But with 20,000 columns, one step of Adam moves each hidden unit
    by forty times its scale: training diverges, and the estimate is meaningless.
    """
    n, d = V.shape
    spread = V.std(axis=0)
    V = (V - V.mean(axis=0)) / np.where(spread > 0, spread, 1)
    if d < n:
        return V
    values, vectors = np.linalg.eigh(V @ V.T)  # V V^T = U S^2 U^T, and U S are the coordinates
    spanned = vectors[:, 1:] * np.sqrt(np.maximum(values[1:], 0))
    return np.asarray(spanned * np.sqrt((n - 1) / d))


@dataclass(frozen=True)
class Simulation:
    """The size of the study.

    Its cells measure entropy for the kinds ``tree`` and ``blobs``, mutual information for ``labels``.
    """

    points: int = 300
    dimensions: tuple[int, ...] = (20, 50, 100, 1000, 20_000)
    noises: tuple[float, ...] = (0.01, 0.1, 0.5)
    seeds: int = 6  # the minimum for a significant sign test
    mine_steps: int = MINE_STEPS

    def cells(self, out: Path) -> list["Cell"]:
        """List every combination of kind, dimension, noise and seed."""
        kinds: tuple[DataKind, ...] = ("labels", "tree", "blobs")
        return [
            Cell(kind, d, noise, seed, self.points, self.mine_steps, out)
            for kind in kinds
            for d in self.dimensions
            for noise in self.noises
            for seed in range(self.seeds)
        ]


@dataclass(frozen=True)
class Cell:
    """One data set at all its levels; its result is one file in ``out``."""

    kind: DataKind
    d: int
    noise: float
    seed: int
    points: int
    mine_steps: int
    out: Path

    @property
    def name(self) -> str:
        """Display name."""
        return f"{self.kind} in {self.d} dimensions, noise {self.noise:.0%}, seed {self.seed}"

    @property
    def order(self) -> float:
        """Sort key: the longest cells come first."""
        return -self.d * (10.0 if self.kind == "labels" else 1.0)

    @property
    def path(self) -> Path:
        """The file of the result; its name identifies all settings."""
        levels = ENTROPY_LEVELS, LABEL_LEVELS
        digest = content_hash(VERSION, self.points, self.mine_steps, BINS, *levels)
        name = f"{self.kind}-{self.d}-{self.noise:g}-{self.seed}-{digest}.parquet"
        return self.out / "cells" / name


def compute_cell(cell: Cell) -> Outcome:
    """Measure a cell and write its file."""
    started = perf_counter()
    rows = pd.DataFrame(list(measured(cell)))
    write_checksummed(cell.path, partial(rows.to_parquet, index=False))
    return Outcome(cell.path.stem, cell.name, True, "", perf_counter() - started)


def is_measured(cell: Cell) -> bool:
    """Return whether a cell's file exists and is undamaged; early versions wrote no checksum and are trusted."""
    return not damage_problem(cell.path, needs_note=False)


def read_cells(cells: list[Cell]) -> pd.DataFrame:
    """Read the results of finished cells.

    Returns
    -------
    pandas.DataFrame
        Columns kind, d, noise, seed, level, truth (bits or, for entropy, log2 of the level), measure, value (bits),
        seconds.

    Raises
    ------
    DamagedFile
        When a cell's file is missing or damaged.
    """
    tables = []
    for cell in cells:
        problem = damage_problem(cell.path, needs_note=False)
        if problem:
            raise DamagedFile(cell.path, problem)
        try:
            tables.append(pd.read_parquet(cell.path))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DamagedFile(cell.path, f"cannot be read ({error})") from None
    return pd.concat(tables, ignore_index=True)


def measured(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield the value of every estimator at every level of a cell, one row each."""
    about = {"kind": cell.kind, "d": cell.d, "noise": cell.noise, "seed": cell.seed}
    for level in LABEL_LEVELS if cell.kind == "labels" else ENTROPY_LEVELS:
        if cell.kind == "labels":
            truth, estimators = _labels(cell, level)
        else:
            truth, estimators = _entropies(cell, int(level))
        for measure, estimate in estimators.items():
            began = perf_counter()
            result = {"measure": measure, "value": estimate(), "seconds": perf_counter() - began}
            yield about | {"level": float(level), "truth": truth} | result


def _entropies(cell: Cell, level: int) -> tuple[float, Estimators]:
    if cell.kind == "tree":
        Z = branching_tree(cell.points, level, cell.d, cell.noise, cell.seed)
    else:
        Z, _ = blobs(cell.points, level, cell.d, cell.noise, cell.seed)
    estimators: Estimators = {"DSE": partial(diffusion_spectral_entropy, Z)}
    for bins in BINS:
        estimators[f"binned, {bins} bins"] = partial(shannon_entropy, Z, bins=bins)
    return float(np.log2(level)), estimators


def _labels(cell: Cell, level: float) -> tuple[float, Estimators]:
    Z, clusters = blobs(cell.points, CLUSTERS, cell.d, cell.noise, cell.seed)
    labels = corrupted_labels(clusters, level, cell.seed)
    one_hot = np.eye(CLUSTERS)[labels]
    estimators: Estimators = {"DSMI": partial(diffusion_spectral_mutual_information, Z, labels)}
    for bins in BINS:
        binned = partial(shannon_mutual_information, Z, labels, bins=bins)
        estimators[f"binned, {bins} bins"] = binned
    estimators["KSG"] = partial(ksg_label_information, Z, labels)
    estimators["MINE"] = partial(
        mine_mutual_information, Z, one_hot, steps=cell.mine_steps, seed=cell.seed
    )
    return label_information(clusters, labels), estimators


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
        Points, spread evenly over the blobs. With fewer clusters, the centres are the first of those with more.
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
