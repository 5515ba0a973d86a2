"""Studies: the paper's other claims, which score predicts accuracy best, and other authors' claims about scores."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_json
from dsmi_zoo._util.text import counted
from dsmi_zoo._util.versions import git_commit, library_versions
from dsmi_zoo.data_catalog.datasets.names import TRAINABLE
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.models.registry import TRAINED_ZOOS
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig, SubsetSettings
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.plan.job import Outcome
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.studies import OF_ZOOS, STUDIES
from dsmi_zoo.pipeline.studies.simulation import Simulation, compute_cell, is_measured, read_cells
from dsmi_zoo.pipeline.studies.trajectory import (
    TrainingJob,
    TrainingStudy,
    Trajectory,
    compute_training,
    write_catalog,
)
from dsmi_zoo.pipeline.studies.transfer import TransferJob, compute_transfer, transfer_accuracies
from dsmi_zoo.reports.statistics.sample import succeeded

from ..progress import SILENT, Display, duration, follow
from ..runs.run import run
from ..runs.state import make_writable
from ..workers import open_workers

log = logging.getLogger(__name__)

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
            measures=MeasureSettings(scores="all"),
            compute=self.compute,
        )

    def transfer_jobs(self) -> dict[str, TransferJob]:
        """Return the jobs of the probe and the fine-tuning on the other images, by the model's name."""
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
    out: Path, seeds: Iterable[int], small: bool, root: Path | None, compute: ComputeSettings
) -> list[ZooRun]:
    """Return all runs of the study, those of a zoo on its own images first, because they train the networks."""
    pairs = [(zoo, zoo) for zoo in TRAINED_ZOOS]
    pairs += [(zoo, other) for zoo in TRAINED_ZOOS for other in TRAINED_ZOOS if other != zoo]
    models = SMALL_MODELS if small else ()
    return [
        ZooRun(out, zoo, measured_on, seed, models, root, compute)
        for zoo, measured_on in pairs
        for seed in seeds
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
    for finished in runs:
        rows = succeeded(read_results(finished.config.folder)).set_index("model", drop=False)
        if not finished.is_transfer:
            top1[finished.zoo, finished.seed] = rows["top1"]
        for name, frame in _with_targets(finished, rows, top1[finished.zoo, finished.seed]):
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
            f"{run.out}: the accuracies of {missing[0]} are missing; the same validate goes on"
        )
    both = pd.DataFrame.from_dict(accuracies, orient="index")
    known = known.assign(source_top1=top1)
    for column, word in (("probe", "probe"), ("fine_tuned", "fine-tuned")):
        yield f"{run.zoo} to {run.measured_on}, {word}", known.assign(target=both[column])


SMALL_SIMULATION = Simulation(
    points=100, dimensions=(20, 200), noises=(0.1, 0.5), seeds=2, mine_steps=20
)
SMALL_TRAININGS = TrainingStudy(
    seeds=2,
    train_images=100,
    checkpoints=(0, 1, 2),
    standard_deviations=(0.01, 0.1),
    initial_seeds=2,
    initial_checkpoints=(0, 1, 2),
)


# Data sets whose images are all measured; of the others, `IMAGES_PER_CLASS` images of each class are.
MEASURED_WHOLE = ("digits", "fashion", "photos")
IMAGES_PER_CLASS = 50


class _Study(BaseModel):
    """A complete study in ``validate.json``."""

    datasets: tuple[str, ...] = Field(min_length=1)
    small: bool
    seeds: int
    first_seed: int = 1
    seconds: float


class _Record(BaseModel):
    """The content of ``validate.json``."""

    model_config = ConfigDict(extra="allow")

    studies: dict[str, _Study]


@dataclass(frozen=True)
class Validation:
    """The settings of the studies: their data sets, their size and their output folder."""

    out: Path
    compute: ComputeSettings
    datasets: tuple[str, ...] = ("digits", "photos")
    root: Path | None = None
    small: bool = False
    seeds: int | None = None
    first_seed: int = 1  # of the studies of zoos; seed 0 was used to design them
    display: Display = SILENT

    @property
    def simulation(self) -> Simulation:
        """The size of the study on simulated data."""
        return SMALL_SIMULATION if self.small else Simulation()

    @property
    def trainings(self) -> TrainingStudy:
        """The size of the studies of trainings."""
        study = SMALL_TRAININGS if self.small else TrainingStudy()
        return study if self.seeds is None else replace(study, seeds=self.seeds)

    @property
    def zoo_runs(self) -> list[ZooRun]:
        """The runs of the studies of zoos."""
        seeds = range(self.first_seed, self.first_seed + self.trainings.seeds)
        return zoo_runs(self.out / "scores", seeds, self.small, self.root, self.compute)

    def dynamics(self, dataset: str) -> list[Trajectory]:
        """Return the trainings on a data set: all regimes on the first one, the supervised regime on the others."""
        if dataset == self.datasets[0]:
            return self.trainings.dynamics(dataset)
        return self.trainings.dynamics(dataset, ("supervised",))

    def run_simulated(self) -> int:
        """Measure simulated data."""
        cells = self.simulation.cells(self.out / "simulated")
        todo = [cell for cell in cells if not is_measured(cell)]
        self._compute(todo, len(cells), "data set", compute_cell)
        return 0

    def run_dynamics(self) -> int:
        """Train networks on each data set, and measure their checkpoints."""
        trajectories = {name: self.dynamics(name) for name in self.datasets}
        self._train([recipe for recipes in trajectories.values() for recipe in recipes])
        codes = [
            self._measure(name, f"dynamics-{name}", recipes)
            for name, recipes in trajectories.items()
        ]
        return max(codes)

    def run_initialisation(self) -> int:
        """Measure initial states, train from the extreme ones, and measure those too."""
        from dsmi_zoo.reports.studies.trainings_page import extremes

        dataset = self.datasets[0]
        states = self.trainings.initial_states(dataset)
        self._train(states)
        code = self._measure(dataset, "initialisation", states)
        rows = checkpoint_rows(self.out / "initialisation", states)
        trained = self.trainings.from_initial_states(dataset, extremes(rows))
        self._train(trained)
        return max(code, self._measure(dataset, "initialisation", [*states, *trained]))

    def run_zoos(self) -> int:
        """Run the zoos, and fine-tune their networks on each other's images."""
        runs = self.zoo_runs
        code = max(run(zoo.config, self.display) for zoo in runs)
        jobs = [job for zoo in runs if zoo.is_transfer for job in zoo.transfer_jobs().values()]
        todo = [job for job in jobs if transfer_accuracies(job) is None]
        self._compute(todo, len(jobs), "transfer", compute_transfer)
        return code

    def _train(self, recipes: Sequence[Trajectory]) -> None:
        cache = self.compute.cache
        todo = [recipe for recipe in recipes if not recipe.is_done(cache)]
        jobs = [TrainingJob(recipe, cache, self.root) for recipe in todo]
        self._compute(jobs, len(recipes), "training", compute_training)

    def _measure(self, dataset: str, name: str, recipes: Sequence[Trajectory]) -> int:
        """Measure all checkpoints of finished trainings by an ordinary run in ``OUT/<name>``."""
        out = self.out / name
        catalog = out / "checkpoints.csv"
        by_name = {recipe.name: recipe for recipe in recipes}  # trainings share initial states
        write_catalog(catalog, list(by_name.values()), self.compute.cache)
        images = None if dataset in MEASURED_WHOLE else IMAGES_PER_CLASS
        subset = SubsetSettings(dataset=dataset, data_root=self.root, images_per_class=images)
        config = RunConfig(catalog=str(catalog), out=out, subset=subset, compute=self.compute)
        return run(config, self.display)

    def _compute(
        self, jobs: Sequence[Any], total: int, noun: str, compute: Callable[[Any], Outcome]
    ) -> None:
        """Compute each job on the workers; ``total`` includes those that are done already."""
        if len(jobs) < total:
            log.info(f"{total - len(jobs)} of {counted(total, noun)} are done already")
        if not jobs:
            return
        from dsmi_zoo.pipeline.engine.graph import compute_each

        with open_workers(self.compute, self.out) as workers:
            finished = compute_each(workers, self.out, jobs, compute)
            follow(finished, len(jobs), self.display, noun)

    def results(self, study: str) -> Any:
        """Return the numbers of a complete study."""
        if study == "simulated":
            return read_cells(self.simulation.cells(self.out / "simulated"))
        if study in OF_ZOOS:
            return rows_of_settings(self.zoo_runs)
        if study == "dynamics":
            return {
                name: checkpoint_rows(self.out / f"dynamics-{name}", self.dynamics(name))
                for name in self.datasets
            }
        recipes = self.trainings
        states = recipes.initial_states(self.datasets[0])
        states += recipes.from_initial_states(self.datasets[0], recipes.standard_deviations)
        return checkpoint_rows(self.out / study, states)


def checkpoint_rows(out: Path, recipes: Sequence[Trajectory]) -> pd.DataFrame:
    """Return the measured checkpoints of these trainings from a run that may hold others."""
    names = {f"{recipe.name} epoch {epoch}" for recipe in recipes for epoch in recipe.checkpoints}
    rows = read_results(out)
    return rows[rows["model"].isin(names) & (rows["status"] == "ok")]


def validate(validation: Validation, studies: Sequence[str], display: Display = SILENT) -> int:
    """Compute the missing parts of the studies, and write the report on all studies in OUT.

    Returns
    -------
    int
        The exit code: 0 whatever the answers are, 1 when a checkpoint could not be measured.
    """
    from dsmi_zoo.reports.studies.validation import write_validation_report

    _check_inputs(validation, studies)
    make_writable(validation.out, ())
    record = _read_record(validation.out)
    validation = replace(validation, display=display)
    started = monotonic()
    code = 0
    compute = {
        "simulated": validation.run_simulated,
        "dynamics": validation.run_dynamics,
        "initialisation": validation.run_initialisation,
        "scores": validation.run_zoos,
        "replications": validation.run_zoos,
    }
    for number, name in enumerate(STUDIES, start=1):
        if name not in studies:
            continue
        log.info(f"Study {number} of {len(STUDIES)}: {name}")
        began = monotonic()
        if not (name == "replications" and "scores" in studies):  # the same rows
            code = max(code, compute[name]())
        record = _record_study(validation, name, monotonic() - began)
    results = {}
    for name, study in record.studies.items():
        settings = study.model_dump(exclude={"seconds"})
        results[name] = replace(validation, **settings).results(name)
    with display.status("Writing the report"):
        content = record.model_dump(mode="json")
        page, claims = write_validation_report(validation.out, content["studies"], results, content)
    for claim in claims:
        log.info(f"  {claim.answer:<18} {claim.claim}")
    log.info(f"{counted(len(claims), 'claim')}, in {duration(monotonic() - started)}")
    log.info(f"Report: {page}")
    return code


def _check_inputs(validation: Validation, studies: Sequence[str]) -> None:
    """Raise InputError for data sets or libraries that are missing, before anything is computed."""
    for name in validation.datasets:
        if name not in TRAINABLE:
            raise InputError(f"--dataset {name!r}: networks are trained on {', '.join(TRAINABLE)}")
        if "dynamics" in studies or "initialisation" in studies:
            open_dataset(name, validation.root, part="train")
    if set(studies) & set(OF_ZOOS):
        open_dataset("fashion", validation.root, part="train")
    elif validation.first_seed != 1:
        raise InputError(f"--first-seed: only --study {' or '.join(OF_ZOOS)} takes one")
    if "dynamics" in studies and find_spec("pytorch_metric_learning") is None:
        raise InputError(
            "--study dynamics needs pytorch-metric-learning: pip install 'dsmi-zoo[studies]'"
        )


def fetch(validation: Validation) -> None:
    """Download the torchvision data sets that networks are trained on."""
    from dsmi_zoo.data_catalog.datasets.libraries import TORCHVISION_SETS, download

    if validation.root is None:
        raise InputError("--download needs --data-root, the folder to download to")
    for name in validation.datasets:
        if name in TORCHVISION_SETS:
            log.info(f"Downloading {name} to {validation.root}")
            download(name, validation.root)


def _read_record(out: Path) -> _Record:
    path = out / "validate.json"
    if not path.exists():
        return _Record(studies={})
    try:
        return _Record.model_validate_json(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise InputError(
            f"{path}: is damaged; delete it, and the same validate goes on from what is finished"
        ) from None


def _record_study(validation: Validation, name: str, seconds: float) -> _Record:
    """Record in ``OUT/validate.json`` that a study is complete, with its settings and its time so far."""
    record = _read_record(validation.out)
    study = _Study(
        datasets=validation.datasets,
        small=validation.small,
        seeds=validation.trainings.seeds,
        first_seed=validation.first_seed,
        seconds=seconds,
    )
    before = record.studies.get(name)
    if before is not None and before.model_copy(update={"seconds": seconds}) == study:
        study.seconds += before.seconds
    record.studies[name] = study
    content = record.model_dump(mode="json")
    content |= {"versions": library_versions(), "git_commit": git_commit()}
    write_json(validation.out / "validate.json", content)
    return _Record.model_validate(content)
