"""The paper's other claims, checked, and the study of scores."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_json
from dsmi_zoo._util.text import counted
from dsmi_zoo._util.versions import git_commit, library_versions
from dsmi_zoo.data_catalog.datasets.names import TRAINABLE
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig, SubsetSettings
from dsmi_zoo.pipeline.engine.outcome import Outcome
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.studies import STUDIES
from dsmi_zoo.pipeline.studies.simulation import Simulation, compute_cell, is_measured, read_cells
from dsmi_zoo.pipeline.studies.trainings import TrainingJob, TrainingStudy, compute_training
from dsmi_zoo.pipeline.studies.trajectory import Trajectory, write_catalog
from dsmi_zoo.pipeline.studies.transfer import compute_transfer, transfer_accuracies

from ..clusters.opening import open_workers
from ..progress import SILENT, Display, duration, follow
from ..runs.run import run
from ..runs.state import make_writable
from .score_study import ZooRun, rows_of_settings, zoo_runs

log = logging.getLogger(__name__)

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


class _Study(BaseModel):
    """What ``validate.json`` notes of a complete study."""

    datasets: tuple[str, ...] = Field(min_length=1)
    small: bool
    seeds: int
    seconds: float


class _Record(BaseModel):
    studies: dict[str, _Study]


@dataclass(frozen=True)
class Validation:
    """What is to be checked, and where."""

    out: Path
    compute: ComputeSettings
    datasets: tuple[str, ...] = ("digits", "photos")
    root: Path | None = None
    small: bool = False
    seeds: int | None = None

    @property
    def simulation(self) -> Simulation:
        """The size of the study on simulated data."""
        return SMALL_SIMULATION if self.small else Simulation()

    @property
    def trainings(self) -> TrainingStudy:
        """The size of the studies of trainings."""
        study = SMALL_TRAININGS if self.small else TrainingStudy()
        return (
            study
            if self.seeds is None
            else TrainingStudy(**(asdict(study) | {"seeds": self.seeds}))
        )

    @property
    def zoo_runs(self) -> list[ZooRun]:
        """The runs of the study of scores."""
        return zoo_runs(
            self.out / "scores", self.trainings.seeds, self.small, self.root, self.compute
        )


def validate(validation: Validation, studies: Sequence[str], display: Display = SILENT) -> int:
    """Do what is missing of the studies and write the report of all that OUT holds.

    Returns
    -------
    int
        The exit code: 0 whatever the answers are, 1 when a checkpoint could not be measured.
    """
    from dsmi_zoo.reports.studies.validation import write_validation_report

    for name in validation.datasets:
        if name not in TRAINABLE:
            raise InputError(f"--dataset {name!r}: networks are trained on {', '.join(TRAINABLE)}")
        if not {"dynamics", "initialisation"}.isdisjoint(studies):
            open_dataset(name, validation.root, part="train")
    if "scores" in studies:
        open_dataset("fashion", validation.root, part="train")
    if "dynamics" in studies and find_spec("pytorch_metric_learning") is None:
        raise InputError(
            "--study dynamics needs pytorch-metric-learning: pip install 'dsmi-zoo[studies]'"
        )
    make_writable(validation.out, ())
    _record(validation)  # a damaged one is told now, not after hours
    started = monotonic()
    code = 0
    do: dict[str, Callable[[Validation, Display], int]] = {
        "simulated": _simulated,
        "dynamics": _dynamics,
        "initialisation": _initialisation,
        "scores": _scores,
    }
    for name in STUDIES:
        if name not in studies:
            continue
        log.info(f"Study {STUDIES.index(name) + 1} of {len(STUDIES)}: {name}")
        began = monotonic()
        code = max(code, do[name](validation, display))
        _note(validation, name, monotonic() - began)
    record = _record(validation)
    with display.status("Writing the report"):
        page, claims = write_validation_report(
            validation.out, record["studies"], _results(validation, record), record
        )
    for claim in claims:
        log.info(f"  {claim.answer:<18} {claim.claim}")
    log.info(f"{counted(len(claims), 'claim')}, in {duration(monotonic() - started)}")
    log.info(f"Report: {page}")
    return code


def fetch(validation: Validation) -> None:
    """Download the torchvision data sets that are to be trained on."""
    from dsmi_zoo.data_catalog.datasets.torchvision import TORCHVISION_SETS, download

    if validation.root is None:
        raise InputError("--download needs --data-root, the folder to download to")
    for name in validation.datasets:
        if name in TORCHVISION_SETS:
            log.info(f"Downloading {name} to {validation.root}")
            download(name, validation.root)


def _simulated(validation: Validation, display: Display) -> int:
    cells = validation.simulation.cells(validation.out / "simulated")
    _each(
        validation,
        [cell for cell in cells if not is_measured(cell)],
        len(cells),
        "data set",
        compute_cell,
        display,
    )
    return 0


def _dynamics(validation: Validation, display: Display) -> int:
    recipes = {name: _dynamics_of(validation, name) for name in validation.datasets}
    _train(validation, [recipe for those in recipes.values() for recipe in those], display)
    return max(
        _measured(validation, name, f"dynamics-{name}", those, display)
        for name, those in recipes.items()
    )


def _dynamics_of(validation: Validation, dataset: str) -> list[Trajectory]:
    """All regimes on the first data set; of the others the supervised one, which tells whether courses differ."""
    study = validation.trainings
    first = dataset == validation.datasets[0]
    return study.dynamics(dataset) if first else study.dynamics(dataset, ("supervised",))


def _initialisation(validation: Validation, display: Display) -> int:
    from dsmi_zoo.reports.studies.trainings_page import extremes

    dataset, study = validation.datasets[0], validation.trainings
    states = study.initial_states(dataset)
    _train(validation, states, display)
    code = _measured(validation, dataset, "initialisation", states, display)
    rows = _rows(validation.out / "initialisation", states)
    trained = study.from_initial_states(dataset, extremes(rows))
    _train(validation, trained, display)
    return max(code, _measured(validation, dataset, "initialisation", [*states, *trained], display))


def _scores(validation: Validation, display: Display) -> int:
    runs = validation.zoo_runs
    code = max(run(zoo.config, display) for zoo in runs)
    jobs = [job for zoo in runs if zoo.is_transfer for job in zoo.transfer_jobs().values()]
    missing = [job for job in jobs if transfer_accuracies(job) is None]
    _each(validation, missing, len(jobs), "transfer", compute_transfer, display)
    return code


def _train(validation: Validation, recipes: Sequence[Trajectory], display: Display) -> None:
    cache = validation.compute.cache
    jobs = [
        TrainingJob(recipe, cache, validation.root)
        for recipe in recipes
        if not recipe.is_done(cache)
    ]
    _each(validation, jobs, len(recipes), "training", compute_training, display)


def _measured(
    validation: Validation, dataset: str, name: str, recipes: Sequence[Trajectory], display: Display
) -> int:
    """Measure all checkpoints of finished trainings by an ordinary run in ``OUT/<name>``."""
    out = validation.out / name
    write_catalog(out / "checkpoints.csv", _without_repeats(recipes), validation.compute.cache)
    subset = SubsetSettings(
        dataset=dataset, data_root=validation.root, images_per_class=_images_per_class(dataset)
    )
    catalog = str(out / "checkpoints.csv")
    return run(
        RunConfig(catalog=catalog, out=out, subset=subset, compute=validation.compute), display
    )


def _without_repeats(recipes: Sequence[Trajectory]) -> list[Trajectory]:
    """One recipe a name: a training also holds the state before it."""
    return list({recipe.name: recipe for recipe in recipes}.values())


def _images_per_class(dataset: str) -> int | None:
    return None if dataset in ("digits", "fashion", "photos") else 50


def _each(
    validation: Validation,
    jobs: Sequence[Any],
    total: int,
    noun: str,
    compute: Callable[[Any], Outcome],
    display: Display,
) -> None:
    if len(jobs) < total:
        log.info(f"{total - len(jobs)} of {counted(total, noun)} are done already")
    if not jobs:
        return
    from dsmi_zoo.pipeline.engine.graph import compute_each

    with open_workers(validation.compute, validation.out) as workers:
        follow(compute_each(workers, validation.out, jobs, compute), len(jobs), display, noun)


def _rows(out: Path, recipes: Sequence[Trajectory]) -> pd.DataFrame:
    """The measured checkpoints of these trainings, of a run that may hold others."""
    names = {f"{recipe.name} epoch {epoch}" for recipe in recipes for epoch in recipe.checkpoints}
    rows = read_results(out)
    return rows[rows["model"].isin(names) & (rows["status"] == "ok")]


def _record(validation: Validation) -> dict[str, Any]:
    path = validation.out / "validate.json"
    if not path.exists():
        return {"studies": {}}
    try:
        content = path.read_bytes()
        _Record.model_validate_json(content)
        record: dict[str, Any] = json.loads(content)
    except (OSError, ValueError, RecursionError):
        raise InputError(
            f"{path}: is damaged; delete it, and the same validate goes on from what is finished"
        ) from None
    return record


def _note(validation: Validation, name: str, seconds: float) -> None:
    """Note in ``OUT/validate.json`` that a study is complete, by which settings, and the seconds it took so far."""
    record = _record(validation)
    settings = {
        "datasets": list(validation.datasets),
        "small": validation.small,
        "seeds": validation.trainings.seeds,
    }
    before = record["studies"].get(name, {})
    seconds += before.get("seconds", 0) if before | settings == before else 0
    record["studies"][name] = settings | {"seconds": seconds}
    record |= {"versions": library_versions(), "git_commit": git_commit()}
    write_json(validation.out / "validate.json", record)


def _results(validation: Validation, record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of every complete study in OUT, whichever call computed them."""
    results: dict[str, Any] = {}
    for name, settings in record["studies"].items():
        then = replace(
            validation,
            datasets=tuple(settings["datasets"]),
            small=settings["small"],
            seeds=settings["seeds"],
        )
        if name == "simulated":
            results[name] = read_cells(then.simulation.cells(then.out / "simulated"))
        elif name == "dynamics":
            results[name] = {
                dataset: _rows(then.out / f"dynamics-{dataset}", _dynamics_of(then, dataset))
                for dataset in then.datasets
            }
        elif name == "scores":
            results[name] = rows_of_settings(then.zoo_runs)
        else:
            dataset, study = then.datasets[0], then.trainings
            states = study.initial_states(dataset)
            both = [*states, *study.from_initial_states(dataset, study.standard_deviations)]
            results[name] = _rows(then.out / name, both)
    return results
