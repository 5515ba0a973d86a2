"""A search on a time budget: all models on few images first, then all but the clearly worse on more.

Early stages measure a sample of the images, drawn to suit the metric: every image with the same probability for
accuracy, equally many of each class for balanced accuracy. One error rate is divided over the stages that may drop a
model.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.datasets.sampling import Sample, samples
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.pipeline.config.run import Metric, RunConfig
from dsmi_zoo.pipeline.measures.core.hits import unpack_hits
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
from dsmi_zoo.pipeline.plan.order import search_order
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan
from dsmi_zoo.pipeline.store.record import NO_TIME, Dropped, LostRecord, SearchHistory, SearchStage
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, write_run
from dsmi_zoo.pipeline.weights.cache import remote_weights
from dsmi_zoo.reports.statistics.paired import ERROR_RATE, may_be_best
from dsmi_zoo.reports.statistics.ranking import Quantity, tied_for_first

from ..progress import SILENT, Display, duration, follow
from ..workers import open_workers
from .conclude import conclude
from .downloads import log_plan, planned_sizes, sizes_to_download, within_max_download
from .driver_lock import driver_lock
from .finalists import fine_tune_after
from .forecast import (
    START_S,
    TIMING_S,
    TIMING_SHARE,
    Fleet,
    fleet_of,
    log_timed,
    speed_of,
)
from .run import jobs_to_compute
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

Key = tuple[str, int | None]
SHRINK = 3
CAUTION = 1.5  # safety factor on another device's published throughput
MIN_IMAGES_PER_CLASS = 5  # on average; with fewer, accuracies are mostly noise


@dataclass(frozen=True)
class Stage:
    """One pass over the models that are left; ``sample`` None means all of the run's images."""

    sample: Sample | None
    images: int


def stages_of(subset: Subset, metric: Metric = "accuracy") -> list[Stage]:
    """Return the stages up to all images of ``subset``; each has about a third of the images of the next one.

    If a class has one image, there is a single stage, on all images: a sample says nothing about such a class.
    """
    on_all = Stage(None, len(subset.labels))
    sizes = subset.class_sizes
    if sizes.min() < 2:
        return [on_all]
    earlier = samples(
        sizes, balanced=metric != "accuracy", shrink=SHRINK, fewest=MIN_IMAGES_PER_CLASS
    )
    return [*(Stage(one, int(one.sizes(sizes, subset.seed).sum())) for one in earlier), on_all]


def row_key(job: Job) -> Key:
    """Return the model and image size of an entry's row."""
    return job.entry.model, job.entry.img_size


@dataclass(frozen=True)
class Prices:
    """The expected cost of each entry on these workers, by slug."""

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
        """Return the prices on ``workers`` workers of this speed."""
        costs = {}
        for job in plan.jobs:
            download = sizes.get(remote_weights(job.entry) or "") or 0
            costs[job.slug] = estimate(
                job,
                speed.resnet18,
                download,
                on_cpu=speed.on_cpu,
                timed=speed.networks,
                compiled=plan.config.compute.compile,
            )
        return cls(costs, workers, plan.config.repeats)

    def seconds(self, jobs: Sequence[Job], images: int) -> float:
        """Return the wall time in seconds until all jobs are done."""
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
        """Return the prices corrected by the times in the rows."""
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
    """Return the stages (only the one on all images if time allows) and the models, the most promising first."""
    stages = stages_of(plan.subset, plan.config.metric)
    on_all_images = stages[-1].images
    costs = [prices.seconds([job], on_all_images) for job in plan.jobs]
    order = search_order(costs, [job.entry.top1 for job in plan.jobs])
    jobs = [plan.jobs[i] for i in order]
    goes_on = (plan.config.folder / "stages").exists()
    left = _not_done(plan, stages[-1], jobs)
    if not goes_on and CAUTION * prices.seconds(left, on_all_images) <= seconds:
        return stages[-1:], jobs
    return stages, jobs


def search_plan_lines(
    plan: Plan, jobs: Sequence[Job], stages: Sequence[Stage], prices: Prices, seconds: float
) -> Iterator[str]:
    """Yield lines that describe what the search will do."""
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
        yield f"on all images at once: {_why_one_stage(plan)}"


def _why_one_stage(plan: Plan) -> str:
    """Return why a search that lacks time for all models has a single stage."""
    sizes = plan.subset.class_sizes
    if sizes.min() < 2:
        return "a class has one image, so no model can be ranked"
    if len(stages_of(plan.subset, plan.config.metric)) > 1:
        return "there is time for it"
    return (
        f"{len(plan.subset.labels)} images in {counted(plan.subset.n_classes, 'class')} are too few for stages, "
        f"which need {SHRINK * MIN_IMAGES_PER_CLASS} images per class on average"
    )


def _not_done(plan: Plan, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs whose row of a stage is still to be computed."""
    if stage.sample is None:
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
        # No workers are started; those of an existing scheduler are asked below.
        prices = Prices.expected(fleet, plan, sizes, display)
        _announce(plan, prices, config.compute.budget - START_S)
        return 0

    failed = 0
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
        halving = Halving(plan, prices, stages, candidates, end, _earlier_note(plan))
        while halving.stages:
            if not halving.take_stage(workers, display, retry_failed, confirm_lock):
                return 1
        failed = fine_tune_after(config, display, confirm_lock, workers.client)

    note = halving.note
    write_run(config.folder, read_run(config.folder).model_copy(update={"search": note}))
    if note.left_out:
        log.info(
            f"{counted(len(note.left_out), 'model')} not tried for lack of time; "
            "run again with more --budget to continue from here"
        )
    slugs = {job.slug for job in halving.candidates}
    report = config.compute.write_report
    code = conclude(config.folder, slugs, started, display, report=report, may_be_partial=True)
    return 1 if failed else code


def _announce(plan: Plan, prices: Prices, seconds: float) -> tuple[list[Stage], list[Job]]:
    """Log what the search will do in ``seconds``; return its stages and the models, the most promising first."""
    stages, candidates = stages_and_order(plan, prices, seconds)
    for line in search_plan_lines(plan, candidates, stages, prices, seconds):
        log.info(line)
    return stages, candidates


def _no_check() -> None:
    """Do nothing: a plan writes nothing and holds no lock."""


@dataclass
class Halving:
    """The state of a successive halving: the remaining stages and the remaining models.

    Parameters
    ----------
    plan
        All models on all images.
    prices
        The expected cost of each model, corrected after each stage by the measured times.
    stages
        The stages that are left, the next one first.
    candidates
        The remaining models, the most promising first.
    end
        When the time is up, on the clock of ``time.monotonic``.
    note
        The record of the search; it is completed here.
    is_first
        Whether no stage has finished yet.
    compared
        The number of models with an accuracy after the first stage.
    level
        The part of the error rate that each stage spends.
    """

    plan: Plan
    prices: Prices
    stages: list[Stage]
    candidates: list[Job]
    end: float
    note: SearchHistory
    is_first: bool = True
    compared: int = 0
    level: float = field(init=False)

    def __post_init__(self) -> None:
        """Divide the error rate over the stages that may drop a model: all but the last."""
        self.level = ERROR_RATE / max(1, len(self.stages) - 1)

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
        """Measure the candidates on the images of the next stage, and choose the candidates of the stage after it.

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
        assert stage.sample is not None
        self._choose(part.subset, stage.sample, rows, stage_record)
        if not self.candidates:
            folder = part.config.folder
            log.warning(
                f"none of {counted(len(rows), 'model')} could be measured: dsmi-zoo status --out {folder}"
            )
        return bool(self.candidates)

    def _choose(
        self, subset: Subset, sample: Sample, rows: pd.DataFrame, stage_record: SearchStage
    ) -> None:
        """Choose the candidates of the next stage: those that are not clearly worse, as time allows."""
        self.prices = self.prices.corrected(rows, self.candidates)
        rows = _rows_of(rows, self.candidates)
        hits = _hits(rows)
        self.compared = self.compared or len(hits)
        is_contender: dict[Key, bool] = {}
        if hits:
            of_models = np.array(list(hits.values()))
            weights = weights_in_stage(subset, self.plan.subset, sample)
            found = may_be_best(of_models, weights, level=self.level, compared=self.compared)
            # The most accurate first, because time may not be enough for all.
            order = np.argsort(-(of_models @ weights), kind="stable")
            keys = list(hits)
            is_contender = {keys[i]: bool(found[i]) for i in order}
            stage_record.contenders = int(found.sum())
            alone = tied_for_first(list(of_models[order]), weights)
            stage_record.contenders_alone = int(alone.sum())
        contenders, dropped = _contenders(self.candidates, is_contender)
        quantity = quantity_in_stage(subset, self.plan.config.metric)
        stage_record.dropped = [
            _dropped(job, why, hits.get(row_key(job)), quantity) for job, why in dropped
        ]
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
                stage_record.dropped.append(
                    _dropped(job, NO_TIME, hits.get(row_key(job)), quantity)
                )
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
    """Raise InputError if OUT or a stage was written with other settings."""
    record_of_same_run(plan)
    for stage in stages_of(plan.subset, plan.config.metric)[:-1]:
        if (stage_folder(plan.config, stage) / "run.json").exists():
            record_of_same_run(part_of_plan(plan, stage, ()))


def _earlier_note(plan: Plan) -> SearchHistory:
    """Return the note of an earlier search in this OUT, or a new one; add this budget, drop stages of other sizes."""
    config = plan.config
    assert config.compute.budget is not None
    rate = 100 * ERROR_RATE
    try:
        before = read_run(config.folder).search
    except LostRecord:
        before = None
    if before is None:
        return SearchHistory(budget_s=config.compute.budget, metric=config.metric, error_rate=rate)
    ours = {stage.images for stage in stages_of(plan.subset, config.metric)}
    stages = [
        SearchStage(images=stage.images, models=stage.models, seconds=stage.seconds)
        for stage in before.stages
        if stage.images in ours
    ]
    budget = before.budget_s + config.compute.budget
    return SearchHistory(budget_s=budget, stages=stages, metric=config.metric, error_rate=rate)


def part_of_plan(plan: Plan, stage: Stage, jobs: Sequence[Job]) -> Plan:
    """Return the plan of one stage: its images, its folder and the models that are left."""
    if stage.sample is not None:
        # The level of white is that of all images: those of a stage might not suffice to decide it.
        white = getattr(plan.subset.images, "white", None)
        update = {"sample": str(stage.sample), "white": white}
        subset = plan.config.subset.model_copy(update=update)
        folder = stage_folder(plan.config, stage)
        plan = make_plan(plan.config.model_copy(update={"subset": subset, "out": folder}))
    by_slug = {job.slug: job for job in plan.jobs}
    return Plan(plan.config, plan.subset, tuple(by_slug[job.slug] for job in jobs))


def stage_folder(config: RunConfig, stage: Stage) -> Path:
    """Return the folder of a stage's rows, below OUT."""
    sample = stage.sample
    assert sample is not None
    name = f"{sample.most}-a-class" if sample.one_in is None else f"1-in-{sample.one_in}"
    return config.folder / "stages" / name


def weights_in_stage(part: Subset, whole: Subset, sample: Sample) -> np.ndarray:
    """Return the weight of each image of a stage's subset, float64 [images]."""
    taken = part.class_sizes
    of_class = sample.weights(whole.class_sizes, taken)
    return np.repeat(of_class, taken)  # a subset is sorted by class


def measure_part(
    workers: "Workers",
    part: Plan,
    end: float,
    display: Display,
    retry_failed: bool,
    confirm_lock: Callable[[], None],
) -> None:
    """Compute the missing rows of one stage, and start none after ``end``."""
    from dsmi_zoo.pipeline.engine.graph import run_entries

    open_out(part)
    todo = jobs_to_compute(part, retry_failed)
    if todo:
        follow(
            run_entries(workers, part, todo, until=end, confirm_lock=confirm_lock),
            len(todo),
            display,
        )
    touch_record(part.config.folder)


def _rows_of(rows: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """Return the rows of some jobs."""
    wanted = {row_key(job) for job in jobs}
    return rows[[key in wanted for key in zip(rows["model"], rows["img_size"], strict=True)]]


def _hits(rows: pd.DataFrame) -> dict[Key, np.ndarray]:
    """Return which images each measured model's probe classifies correctly, bool [images], by row key."""
    known = rows[rows["status"].eq("ok") & rows["probe_hits"].notna()]
    keys = zip(known["model"], known["img_size"], strict=True)
    return {key: unpack_hits(text) for key, text in zip(keys, known["probe_hits"], strict=True)}


def _contenders(
    jobs: Sequence[Job], is_contender: Mapping[Key, bool]
) -> tuple[list[Job], list[tuple[Job, str]]]:
    """Return the models that may be the best, in the order of ``is_contender``, and why each other one is dropped."""
    job_of = {row_key(job): job for job in jobs}
    contenders = [job_of[key] for key, is_left in is_contender.items() if is_left]
    dropped = []
    for key, job in job_of.items():
        if key not in is_contender:
            dropped.append((job, "failed or not measured in time"))
        elif not is_contender[key]:
            dropped.append((job, "clearly worse"))
    return contenders, dropped


def quantity_in_stage(subset: Subset, metric: Metric) -> Quantity:
    """Return the quantity by which models are ranked, on the images of a stage."""
    classes = np.unique(subset.labels, return_inverse=True)[1]
    return Quantity(metric, classes)


def _dropped(job: Job, reason: str, hits: np.ndarray | None, quantity: Quantity) -> Dropped:
    """Return the record of a model that is dropped: its accuracy so far, if it has one, and why."""
    if hits is None:
        return Dropped(model=str(job.entry), reason=reason)
    low, high = quantity.interval(hits)
    accuracy = quantity.value(hits)
    return Dropped(model=str(job.entry), reason=reason, accuracy=accuracy, low=low, high=high)
