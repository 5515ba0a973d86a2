"""A search on a time budget: all models on few images first, then all but the clearly worse on more."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.cost import (
    Cost,
    Speed,
    affordable,
    corrected,
    estimate,
    needs_timing,
    speed_here,
    wall_seconds,
)
from dsmi_zoo.pipeline.plan.order import by_promise
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan
from dsmi_zoo.pipeline.store.record import Dropped, LostRecord, Passed, SearchNote
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, write_run
from dsmi_zoo.pipeline.weights.cache import remote_weights
from dsmi_zoo.reports.statistics.ranking import rank

from ..progress import SILENT, Display, duration, follow
from ..workers import open_workers
from .conclude import conclude
from .downloads import log_plan, planned_sizes, sizes_to_download, within_max_download
from .driver_lock import driver_lock
from .forecast import (
    START_S,
    TIMING_S,
    TIMING_SHARE,
    Fleet,
    fleet_of,
    log_timed,
    speed_of,
)
from .run import missing
from .state import (
    is_to_compute,
    make_writable,
    open_out,
    record_of_same_run,
    states_of,
    touch_record,
    with_scores_of_folder,
)

if TYPE_CHECKING:
    from distributed import Client

    from dsmi_zoo.pipeline.engine.workers import Workers

log = logging.getLogger(__name__)

SHRINK = 3
CAUTION = 1.5  # safety factor on another device's published throughput
MIN_IMAGES_PER_CLASS = 5  # images per class; with fewer, accuracies are mostly noise


@dataclass(frozen=True)
class Stage:
    """One pass over the models that are left; ``images_per_class`` None means the run's own images."""

    images_per_class: int | None
    images: int


def stages_of(subset: Subset) -> list[Stage]:
    """Return the stages up to all images of ``subset``; each has a third of the images of the next one."""
    smallest = int(subset.class_sizes.min())
    stages = [Stage(None, len(subset.labels))]
    while smallest // SHRINK >= MIN_IMAGES_PER_CLASS:
        smallest //= SHRINK
        stages.insert(0, Stage(smallest, smallest * subset.n_classes))
    return stages


def row_key(job: Job) -> tuple[str, int | None]:
    """Return the model and image size of an entry's row."""
    return job.entry.model, job.entry.img_size


@dataclass(frozen=True)
class Prices:
    """What each entry costs on these workers, by slug."""

    costs: Mapping[str, Cost]
    workers: int
    repeats: int

    @classmethod
    def measured(
        cls, workers: "Workers", plan: Plan, sizes: Mapping[str, int | None], display: Display
    ) -> "Prices":
        """Derive prices from the speed of the workers, timm's published figures and the files to download."""
        budget = plan.config.compute.budget
        assert budget is not None
        seconds = min(TIMING_S, TIMING_SHARE * budget)
        to_time = [job for job in plan.jobs if needs_timing(job)]
        with display.status("Measuring the speed of this machine"):
            workers.ask(os.getpid)  # a cluster may start its workers only when there is a task
            speeds = workers.client.run(speed_here, to_time, plan.config.precision, seconds)
        speed = Speed.mean(list(speeds.values()))
        log_timed(to_time, speed.networks)
        return cls.of(speed, plan, sizes, workers.count())

    @classmethod
    def expected(
        cls, fleet: Fleet, plan: Plan, sizes: Mapping[str, int | None], display: Display
    ) -> "Prices":
        """Derive prices without workers: from the speed of a process on this machine, else from published figures."""
        speed = speed_of(fleet, plan, display, needs_resnet18=True)
        return cls.of(speed, plan, sizes, fleet.processes)

    @classmethod
    def of(
        cls, speed: Speed, plan: Plan, sizes: Mapping[str, int | None], workers: int
    ) -> "Prices":
        """Return the prices on ``workers`` workers of a speed."""
        costs = {}
        for job in plan.jobs:
            download = sizes.get(remote_weights(job.entry) or "") or 0
            costs[job.slug] = estimate(
                job, speed.resnet18, download, on_cpu=speed.on_cpu, timed=speed.networks
            )
        return cls(costs, workers, plan.config.repeats)

    def seconds(self, jobs: Sequence[Job], images: int) -> float:
        """Return the time until all are done."""
        return wall_seconds(self._of(jobs), images, images * self.repeats, self.workers)

    def affordable(self, jobs: Sequence[Job], images: int, seconds: float) -> list[Job]:
        """Return as many of the first jobs as can be done in ``seconds``, but at least one."""
        priced = affordable(self._of(jobs), images, images * self.repeats, self.workers, seconds)
        return [job for job, _ in priced] or list(jobs[:1])

    def download(self, jobs: Sequence[Job]) -> int:
        """Return the bytes to download; weights that entries share count once."""
        by_file = {remote_weights(job.entry): self.costs[job.slug].download for job in jobs}
        return sum(by_file.values())

    def corrected(self, rows: pd.DataFrame, jobs: Sequence[Job]) -> "Prices":
        """Return the prices corrected by what the rows measured."""
        ok = rows[rows["status"] == "ok"].to_dict("records")
        row_of = {(row["model"], row["img_size"]): row for row in ok}
        costs = dict(self.costs)
        for job in jobs:
            row = row_of.get(row_key(job))
            if row is not None:
                costs[job.slug] = corrected(costs[job.slug], row)
        return replace(self, costs=costs)

    def _of(self, jobs: Sequence[Job]) -> list[tuple[Job, Cost]]:
        return [(job, self.costs[job.slug]) for job in jobs]


def stages_and_order(plan: Plan, prices: Prices, seconds: float) -> tuple[list[Stage], list[Job]]:
    """Return the stages, a single one if time allows, and the models, the most promising first."""
    stages = stages_of(plan.subset)
    on_all_images = stages[-1].images
    costs = [prices.seconds([job], on_all_images) for job in plan.jobs]
    order = by_promise(costs, [job.entry.top1 for job in plan.jobs])
    jobs = [plan.jobs[i] for i in order]
    goes_on = (plan.config.folder / "stages").exists()
    left = _not_done(plan, stages[-1], jobs)
    if not goes_on and CAUTION * prices.seconds(left, on_all_images) <= seconds:
        return stages[-1:], jobs
    return stages, jobs


def announced(
    plan: Plan, jobs: Sequence[Job], stages: Sequence[Stage], prices: Prices, seconds: float
) -> Iterator[str]:
    """Say what the search will do, line by line."""
    first, *later = stages
    budget = plan.config.compute.budget or 0
    left = _not_done(plan, first, jobs)
    if len(left) < len(jobs):
        done = len(jobs) - len(left)
        yield f"{done} of {counted(len(jobs), 'model')} are done already on {first.images} images"
    if not left:
        return
    fit = prices.affordable(left, first.images, seconds / len(stages))
    order = "the cheapest"
    if any(job.entry.top1 is not None for job in jobs):
        order = "those that no cheaper one beats in published top-1"
    needed = duration(prices.seconds(fit, first.images))
    download = size_in_words(prices.download(fit))
    yield (
        f"budget {duration(budget)}: first {counted(len(jobs), 'model')} on {first.images} images, {order} first; "
        f"about {len(fit)} fit, in about {needed}, with {download} to download, "
        f"plus {duration(max(budget - seconds, 0))} start-up"
    )
    if later:
        numbers = ", then ".join(str(stage.images) for stage in later)
        yield f"after that, without those that are clearly worse and as time allows, on {numbers} images"
    elif len(fit) < len(left):
        smallest = int(plan.subset.class_sizes.min())
        enough = SHRINK * MIN_IMAGES_PER_CLASS
        yield f"on all images at once: the smallest class has {smallest}; stages need {enough} images per class"


def _not_done(plan: Plan, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose row of a stage is still to be computed."""
    if stage.images_per_class is None:
        part = Plan(plan.config, plan.subset, tuple(jobs))
    elif (stage_folder(plan.config, stage) / "run.json").exists():
        part = part_of_plan(plan, stage, jobs)
    else:
        return list(jobs)
    states, _ = states_of(part)
    return [
        job
        for job, state in zip(jobs, states, strict=True)
        if is_to_compute(state, retry_failed=False)
    ]


def refuse_single_images(subset: Subset) -> None:
    """Raise InputError for classes of one image: a probe is tested on an image that it was not trained on."""
    single = int((subset.class_sizes == 1).sum())
    if single:
        raise InputError(
            f"{single} of {counted(subset.n_classes, 'class')} have one image; "
            "a search ranks by a probe, which needs 2 images in at least two classes"
        )


def search(
    config: RunConfig,
    display: Display = SILENT,
    *,
    only_plan: bool = False,
    retry_failed: bool = False,
    client: "Client | None" = None,
) -> int:
    """Find the best models for the images within ``config.compute.budget`` seconds, and write their report.

    The last stage's rows are in OUT, those of the earlier stages in ``OUT/stages``.

    Returns
    -------
    int
        The exit code: 0; 1 when a model of the last stage failed, or no model of a stage could be measured.
    """
    assert config.compute.budget is not None
    started = monotonic()
    end = started + config.compute.budget
    with display.status("Reading catalogue and images"):
        plan = make_plan(with_scores_of_folder(config))
    log_plan(plan)
    _refuse_unfit(plan)
    sizes = planned_sizes(plan, display) if only_plan else sizes_to_download(plan, display)
    plan = within_max_download(plan, sizes)
    fleet = fleet_of(config.compute) if only_plan else None
    if fleet is not None:
        # Without workers; those of an existing scheduler are asked below.
        prices = Prices.expected(fleet, plan, sizes, display)
        _announce(plan, prices, config.compute.budget - START_S)
        return 0

    with ExitStack() as stack:
        confirm_lock: Callable[[], None] = _no_check
        if not only_plan:
            make_writable(config.folder)
            confirm_lock = stack.enter_context(driver_lock(config.folder))
        workers = stack.enter_context(open_workers(config.compute, config.folder, client))
        prices = Prices.measured(workers, plan, sizes, display)
        stages, candidates = _announce(plan, prices, end - monotonic())
        if only_plan:
            return 0
        halving = Halving(plan, prices, stages, candidates, end, _earlier_note(config))
        while halving.stages:
            if not halving.take_stage(workers, display, retry_failed, confirm_lock):
                return 1

    note = halving.note
    write_run(config.folder, read_run(config.folder).model_copy(update={"search": note}))
    if note.left_out:
        log.info(
            f"{counted(len(note.left_out), 'model')} not tried for lack of time; "
            "run again with more --budget to continue from here"
        )
    slugs = {job.slug for job in halving.candidates}
    report = config.compute.write_report
    return conclude(config.folder, slugs, started, display, report=report, may_be_partial=True)


def _announce(plan: Plan, prices: Prices, seconds: float) -> tuple[list[Stage], list[Job]]:
    """Log what the search will do in ``seconds``; return its stages and the models, the most promising first."""
    stages, candidates = stages_and_order(plan, prices, seconds)
    for line in announced(plan, candidates, stages, prices, seconds):
        log.info(line)
    return stages, candidates


def _no_check() -> None:
    """Do nothing: a plan writes nothing and holds no lock."""


@dataclass
class Halving:
    """Successive halving: the stages that are left, and the models that are left.

    Parameters
    ----------
    plan
        All models on all images.
    prices
        What each model costs, corrected after each stage by what it measured.
    stages
        The stages that are left, the next one first.
    candidates
        The models, the most promising first.
    end
        When the time is up, on the clock of ``time.monotonic``.
    note
        The record of the search; it is completed here.
    """

    plan: Plan
    prices: Prices
    stages: list[Stage]
    candidates: list[Job]
    end: float
    note: SearchNote
    is_first: bool = True

    def seconds_left(self) -> float:
        """Return the seconds until the time is up."""
        return self.end - monotonic()

    def take_stage(
        self,
        workers: "Workers",
        display: Display,
        retry_failed: bool,
        confirm_lock: Callable[[], None],
    ) -> bool:
        """Measure the candidates on the images of the next stage, and choose those of the one after it.

        Returns
        -------
        bool
            False if none could be measured, so that the search cannot go on.
        """
        stage = self.stages[0]
        part = part_of_plan(self.plan, stage, self.candidates)
        begun = monotonic()
        until = begun + self.seconds_left() / len(self.stages)
        measure_part(workers, part, until, display, retry_failed, confirm_lock)
        rows = read_results(part.config.folder)
        if self.is_first:
            tried = set(zip(rows["model"], rows["img_size"], strict=True))
            untried = [job for job in self.candidates if row_key(job) not in tried]
            self.note.left_out = [str(job.entry) for job in untried]
            self.candidates = [job for job in self.candidates if row_key(job) in tried]
            self.is_first = False

        del self.stages[0]
        stage_record = self.note.stage(stage.images)
        stage_record.models = len(rows)
        stage_record.seconds += monotonic() - begun
        if not self.stages:
            return True
        self._choose(rows, stage_record)
        if not self.candidates:
            folder = part.config.folder
            log.warning(
                f"none of {counted(len(rows), 'model')} could be measured: dsmi-zoo status --out {folder}"
            )
        return bool(self.candidates)

    def _choose(self, rows: pd.DataFrame, stage_record: Passed) -> None:
        """Choose the candidates of the next stage: those that are not clearly worse, as time allows."""
        self.prices = self.prices.corrected(rows, self.candidates)
        contenders, stage_record.dropped = _contenders(rows, self.candidates)
        if not contenders:
            self.candidates = []
            return
        self.candidates = self._affordable_in_next(contenders)
        seconds_on_all = self.prices.seconds(contenders, self.stages[-1].images)
        if len(self.candidates) == 1 or seconds_on_all <= self.seconds_left():
            del self.stages[:-1]  # nothing is left to drop, or there is time for all
            self.candidates = self._affordable_in_next(contenders)
        for job in contenders:
            if job not in self.candidates:
                stage_record.dropped.append(_dropped(rows, job, "no time left"))
        images = self.stages[0].images
        expected = duration(self.prices.seconds(self.candidates, images))
        log.info(
            f"{counted(len(stage_record.dropped), 'model')} dropped; {len(self.candidates)} left, "
            f"now on {images} images, about {expected}"
        )

    def _affordable_in_next(self, contenders: Sequence[Job]) -> list[Job]:
        seconds = self.seconds_left() / len(self.stages)
        return self.prices.affordable(contenders, self.stages[0].images, seconds)


def _refuse_unfit(plan: Plan) -> None:
    """Raise InputError if OUT or a stage was written with other settings, or classes have a single image."""
    refuse_single_images(plan.subset)
    record_of_same_run(plan)
    for stage in stages_of(plan.subset)[:-1]:
        if (stage_folder(plan.config, stage) / "run.json").exists():
            record_of_same_run(part_of_plan(plan, stage, ()))


def _earlier_note(config: RunConfig) -> SearchNote:
    """Return the note of an earlier search in this OUT, with this one's budget added."""
    assert config.compute.budget is not None
    try:
        before = read_run(config.folder).search
    except LostRecord:
        before = None
    if before is None:
        return SearchNote(budget_s=config.compute.budget)
    stages = [
        Passed(images=stage.images, models=stage.models, seconds=stage.seconds)
        for stage in before.stages
    ]
    return SearchNote(budget_s=before.budget_s + config.compute.budget, stages=stages)


def part_of_plan(plan: Plan, stage: Stage, jobs: Sequence[Job]) -> Plan:
    """Return the plan of one stage: its images, its folder and the models that are left."""
    if stage.images_per_class is not None:
        # The level of white of all images: those of a stage might not suffice to decide it.
        white = getattr(plan.subset.images, "white", None)
        update = {"images_per_class": stage.images_per_class, "white": white}
        subset = plan.config.subset.model_copy(update=update)
        folder = stage_folder(plan.config, stage)
        plan = make_plan(plan.config.model_copy(update={"subset": subset, "out": folder}))
    by_slug = {job.slug: job for job in plan.jobs}
    return Plan(plan.config, plan.subset, tuple(by_slug[job.slug] for job in jobs))


def stage_folder(config: RunConfig, stage: Stage) -> Path:
    """Return the folder of a stage's rows, below OUT."""
    return config.folder / "stages" / f"{stage.images_per_class}-a-class"


def measure_part(
    workers: "Workers",
    part: Plan,
    end: float,
    display: Display,
    retry_failed: bool,
    confirm_lock: Callable[[], None],
) -> None:
    """Compute the rows of one stage that are missing, and begin none after ``end``."""
    from dsmi_zoo.pipeline.engine.graph import run_entries

    open_out(part)
    todo = missing(part, retry_failed)
    if todo:
        follow(
            run_entries(workers, part, todo, until=end, confirm_lock=confirm_lock),
            len(todo),
            display,
        )
    touch_record(part.config.folder)


def _contenders(rows: pd.DataFrame, jobs: Sequence[Job]) -> tuple[list[Job], list[Dropped]]:
    """Return the models that the rows cannot tell from the best one, the most accurate first; and the others."""
    job_of = {row_key(job): job for job in jobs}
    is_candidate = [name in job_of for name in zip(rows["model"], rows["img_size"], strict=True)]
    ranked = rank(rows[is_candidate]).models
    tied = [job_of[model.model, model.img_size] for model in ranked if model.tied_for_first]
    has_rank = {(model.model, model.img_size) for model in ranked}
    dropped = []
    for name, job in job_of.items():
        if job not in tied:
            reason = "clearly worse" if name in has_rank else "failed or not measured in time"
            dropped.append(_dropped(rows, job, reason))
    return tied, dropped


def _dropped(rows: pd.DataFrame, job: Job, reason: str) -> Dropped:
    """Return the record of a model that is dropped: its accuracy so far, if it has one, and why."""
    of_job = rows[(rows["model"] == job.entry.model) & (rows["img_size"] == job.entry.img_size)]
    known = {}
    if not of_job.empty:
        row = of_job.iloc[0]
        columns = {"accuracy": "probe_accuracy", "low": "probe_low", "high": "probe_high"}
        for field, column in columns.items():
            if not pd.isna(row[column]):
                known[field] = float(row[column])
    return Dropped(model=str(job.entry), reason=reason, **known)
