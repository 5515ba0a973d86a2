"""The study of scores: zoos are trained and measured by ordinary runs, and transferred to each other's images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.trained_zoos import TRAINED_ZOOS
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig, SubsetSettings
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.studies.transfer import TransferJob, transfer_accuracies
from dsmi_zoo.reports.statistics.sample import succeeded

SMALL_MODELS = (
    "test_resnet.*",
    "test_convnext.*",
    "test_efficientnet.*",
    "test_mambaout.*",
    "test_byobnet.*",
)


@dataclass(frozen=True)
class ZooRun:
    """One run of the study: the networks of a zoo, measured on its own or the other zoo's images, with one seed."""

    out: Path
    zoo: str
    measured_on: str
    seed: int
    models: tuple[str, ...]
    root: Path | None
    compute: ComputeSettings

    @property
    def is_transfer(self) -> bool:
        """Whether the images are the other zoo's."""
        return self.zoo != self.measured_on

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        name = f"{self.zoo}-{self.seed}" + (f"-on-{self.measured_on}" if self.is_transfer else "")
        root = self.root if self.measured_on == "fashion" else None
        return RunConfig(
            catalog=f"{self.zoo}:{self.seed}",
            models=self.models,
            out=self.out / name,
            subset=SubsetSettings(dataset=f"{self.measured_on}:{self.seed}", data_root=root),
            compute=self.compute,
        )

    def transfer_jobs(self) -> dict[str, TransferJob]:
        """Return what the probe and the fine-tuning on the other images need, by the model's name."""
        config = self.config
        subset = config.subset
        by_model = {}
        for job in make_plan(config).jobs:
            assert job.weights is not None
            by_model[job.entry.model] = TransferJob(
                job.entry, job.weights, subset.dataset, self.compute.cache, subset.data_root
            )
        return by_model


def zoo_runs(
    out: Path, seeds: int, small: bool, root: Path | None, compute: ComputeSettings
) -> list[ZooRun]:
    """Return all runs of the study, those of a zoo on its own images first, because they train the networks."""
    pairs = [(zoo, zoo) for zoo in TRAINED_ZOOS]
    pairs += [(zoo, other) for zoo in TRAINED_ZOOS for other in TRAINED_ZOOS if other != zoo]
    models = SMALL_MODELS if small else ()
    return [
        ZooRun(out, zoo, measured_on, seed, models, root, compute)
        for zoo, measured_on in pairs
        for seed in range(1, seeds + 1)  # seed 0 was used to design the zoos
    ]


def rows_of_settings(runs: list[ZooRun]) -> dict[str, pd.DataFrame]:
    """Return for each setting of the study one row per network and seed, with its target in the column ``target``.

    Raises
    ------
    InputError
        When a row or an accuracy of a network is missing.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    top1: dict[tuple[str, int], pd.Series] = {}
    for run in runs:
        rows = succeeded(read_results(run.config.folder)).set_index("model", drop=False)
        if not run.is_transfer:
            top1[run.zoo, run.seed] = rows["top1"]
        for name, frame in _with_targets(run, rows, top1[run.zoo, run.seed]):
            parts.setdefault(name, []).append(frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


def _with_targets(
    run: ZooRun, rows: pd.DataFrame, top1: pd.Series
) -> Iterator[tuple[str, pd.DataFrame]]:
    log10_budget = np.log10(rows["train_images"].astype(float) * rows["epochs"].astype(float))
    known = rows.assign(seed=run.seed, log10_budget=log10_budget)
    if not run.is_transfer:
        yield run.zoo, known.assign(target=rows["top1"])
        return
    accuracies = {name: transfer_accuracies(job) for name, job in run.transfer_jobs().items()}
    missing = [name for name, accuracy in accuracies.items() if accuracy is None]
    if missing:
        raise InputError(
            f"{run.out}: the accuracies of {missing[0]} are missing; validate --study scores goes on"
        )
    both = pd.DataFrame.from_dict(accuracies, orient="index")
    known = known.assign(source_top1=top1)
    for column, word in (("probe", "probe"), ("fine_tuned", "fine-tuned")):
        yield f"{run.zoo} to {run.measured_on}, {word}", known.assign(target=both[column])
