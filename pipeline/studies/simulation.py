"""The study on simulated data: each estimator on data whose true order is known, by dimension, noise and seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import noted_damage, write_sealed
from dsmi_zoo._util.hashing import content_hash

from ..engine.outcome import Outcome
from ..measures import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    shannon_entropy,
    shannon_mutual_information,
)
from .estimators import MINE_STEPS, ksg_label_information, mine_mutual_information
from .simulated_data import blobs, branching_tree, corrupted_labels, label_information

VERSION = 2  # raised whenever a cell comes to other numbers for the same settings
BINS = (5, 10, 100)
CLUSTERS = 10
DataKind = Literal["tree", "blobs", "labels"]
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
    seeds: int = 6  # the least that a sign test can tell something by
    mine_steps: int = MINE_STEPS

    def cells(self, out: Path) -> list["Cell"]:
        """Every combination of kind, dimension, noise and seed."""
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
    """One data set at all its levels; its result is a file of its own in ``out``."""

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
        """Where the result stands; the name tells all that decides it."""
        digest = content_hash(
            VERSION, self.points, self.mine_steps, BINS, ENTROPY_LEVELS, LABEL_LEVELS
        )
        return (
            self.out / "cells" / f"{self.kind}-{self.d}-{self.noise:g}-{self.seed}-{digest}.parquet"
        )


def compute_cell(cell: Cell) -> Outcome:
    """Measure a cell and write its file."""
    started = perf_counter()
    rows = pd.DataFrame(list(measured(cell)))
    write_sealed(cell.path, partial(rows.to_parquet, index=False))
    return Outcome(cell.path.stem, cell.name, True, "", perf_counter() - started)


def is_measured(cell: Cell) -> bool:
    """Whether a cell's file is there, and as it was written; the first versions noted nothing to tell it by."""
    return not noted_damage(cell.path)


def read_cells(cells: list[Cell]) -> pd.DataFrame:
    """The results of finished cells.

    Returns
    -------
    pandas.DataFrame
        Columns kind, d, noise, seed, level, truth (bits or, for entropy, log2 of the level), measure, value (bits),
        seconds.

    Raises
    ------
    DamagedFile
        When a cell's file is missing or not as it was written.
    """
    return pd.concat([_read_cell(cell.path) for cell in cells], ignore_index=True)


def _read_cell(path: Path) -> pd.DataFrame:
    problem = noted_damage(path)
    if problem:
        raise DamagedFile(path, problem)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedFile(path, f"cannot be read ({error})") from None


def measured(cell: Cell) -> Iterator[dict[str, Any]]:
    """Every estimator at every level of a cell, one row each."""
    for level in LABEL_LEVELS if cell.kind == "labels" else ENTROPY_LEVELS:
        truth, estimators = (
            _labels(cell, level) if cell.kind == "labels" else _entropies(cell, int(level))
        )
        for measure, estimate in estimators.items():
            began = perf_counter()
            value = estimate()
            yield {
                "kind": cell.kind,
                "d": cell.d,
                "noise": cell.noise,
                "seed": cell.seed,
                "level": float(level),
                "truth": truth,
                "measure": measure,
                "value": value,
                "seconds": perf_counter() - began,
            }


def _entropies(cell: Cell, level: int) -> tuple[float, dict[str, Callable[[], float]]]:
    if cell.kind == "tree":
        Z = branching_tree(cell.points, level, cell.d, cell.noise, cell.seed)
    else:
        Z, _ = blobs(cell.points, level, cell.d, cell.noise, cell.seed)
    binned = {f"binned, {bins} bins": partial(shannon_entropy, Z, bins=bins) for bins in BINS}
    return float(np.log2(level)), {"DSE": partial(diffusion_spectral_entropy, Z), **binned}


def _labels(cell: Cell, level: float) -> tuple[float, dict[str, Callable[[], float]]]:
    Z, clusters = blobs(cell.points, CLUSTERS, cell.d, cell.noise, cell.seed)
    labels = corrupted_labels(clusters, level, cell.seed)
    one_hot = np.eye(CLUSTERS)[labels]
    binned = {
        f"binned, {bins} bins": partial(shannon_mutual_information, Z, labels, bins=bins)
        for bins in BINS
    }
    return label_information(clusters, labels), {
        "DSMI": partial(diffusion_spectral_mutual_information, Z, labels),
        **binned,
        "KSG": partial(ksg_label_information, Z, labels),
        "MINE": partial(mine_mutual_information, Z, one_hot, steps=cell.mine_steps, seed=cell.seed),
    }
