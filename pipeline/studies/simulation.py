"""The study on simulated data: each estimator on data with a known order, by dimension, noise and seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import content_hash, damage, write_checksummed

from ..engine.outcome import Outcome
from ..measures import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    shannon_entropy,
    shannon_mutual_information,
)
from .estimators import MINE_STEPS, ksg_label_information, mine_mutual_information

VERSION = 2  # raise it when a cell produces other numbers for the same settings
BINS = (5, 10, 100)
CLUSTERS = 10
DataKind = Literal["tree", "blobs", "labels"]
Estimators = dict[str, Callable[[], float]]
ENTROPY_LEVELS = (2, 4, 8, 16, 32)  # branches or clusters
LABEL_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of the labels that is corrupted


@dataclass(frozen=True)
class Simulation:
    """The size of the study.

    ``kind`` of its cells: ``tree`` and ``blobs`` measure entropy, ``labels`` mutual information.
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
        """For people."""
        return f"{self.kind} in {self.d} dimensions, noise {self.noise:.0%}, seed {self.seed}"

    @property
    def order(self) -> float:
        """Sorts the longest first."""
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
    """Whether a cell's file is there and undamaged; files of the first versions have no checksum and are trusted."""
    return not damage(cell.path, needs_note=False)


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
        problem = damage(cell.path, needs_note=False)
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
