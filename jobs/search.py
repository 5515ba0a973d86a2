"""A search on a budget of time: all models on few images first, the clearly worse dropped, the others on more."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..data_catalog.errors import InputError
from ..data_catalog.subset import Subset
from ..data_catalog.words import counted
from ..pipeline.config import RunConfig
from ..pipeline.cost import Cost, affordable, corrected, estimate, resnet18_rate, wall_seconds
from ..pipeline.order import by_promise
from ..pipeline.plan import Job, Plan, make_plan
from ..pipeline.record import Dropped, LostRecord, Passed, SearchNote
from ..pipeline.store import read_results, read_run, write_run
from ..pipeline.units import size_in_words
from ..pipeline.weights import remote_weights
from ..reports.ranking import rank
from .clusters import open_workers
from .driving import driving
from .folder import make_writable, open_out, stored_run, touch_record
from .progress import SILENT, Display, duration, follow
from .run import conclude, missing, sizes_to_download, within_max_download

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from distributed import Client

    from ..pipeline.workers import Workers

SHRINK = 3
CAUTION = 1.5  # by so much estimates from another device's published figures may be short
FEWEST = 5  # images of a class: below, every accuracy is mostly noise


@dataclass(frozen=True)
class Stage:
    """One pass over the models that are left; ``images_per_class`` None stands for the run's own choice of images."""

    images_per_class: int | None
    images: int


def stages_of(subset: Subset) -> list[Stage]:
    """The stages up to all images of ``subset``; each has a third of the images of the one that follows."""
    _, smallest = _rarest(subset)
    found = [Stage(None, len(subset.labels))]
    while smallest // SHRINK >= FEWEST:
        smallest //= SHRINK
        found.insert(0, Stage(smallest, smallest * subset.n_classes))
    return found


def _rarest(subset: Subset) -> tuple[int, int]:
    """The class of the fewest images, and how many those are."""
    labels, counts = np.unique(subset.labels, return_counts=True)
    return int(labels[counts.argmin()]), int(counts.min())


@dataclass(frozen=True)
class Prices:
    """What each entry costs on the workers at hand, by slug."""

    costs: Mapping[str, Cost]
    workers: int
    repeats: int

    def seconds(self, jobs: Sequence[Job], images: int) -> float:
        """Time until all are done."""
        return wall_seconds(self._of(jobs), images, images * self.repeats, self.workers)

    def affordable(self, jobs: Sequence[Job], images: int, seconds: float) -> list[Job]:
        """As many of the first of them as can be done in ``seconds``, but one at least."""
        found = affordable(self._of(jobs), images, images * self.repeats, self.workers, seconds)
        return [job for job, _ in found] or list(jobs[:1])

    def download(self, jobs: Sequence[Job]) -> int:
        """Bytes to download; weights that entries share count once."""
        return sum({remote_weights(job.entry): self.costs[job.slug].download for job in jobs}.values())

    def corrected(self, rows: pd.DataFrame, jobs: Sequence[Job]) -> "Prices":
        """The prices as the rows have measured them."""
        ok = rows[rows["status"] == "ok"].to_dict("records")
        measured = {(row["model"], row["img_size"]): row for row in ok}
        known = {job.slug: measured.get(_key(job)) for job in jobs}
        costs = {slug: corrected(self.costs[slug], row) for slug, row in known.items() if row is not None}
        return replace(self, costs={**self.costs, **costs})

    def _of(self, jobs: Sequence[Job]) -> list[tuple[Job, Cost]]:
        return [(job, self.costs[job.slug]) for job in jobs]


def search(
    config: RunConfig,
    display: Display = SILENT,
    *,
    only_plan: bool = False,
    retry_failed: bool = False,
    client: "Client | None" = None,
) -> int:
    """Find the best models for the images within ``config.compute.budget`` seconds, and write their report.

    The last stage's rows are OUT's own; those of the stages before stand in ``OUT/stages``.

    Returns
    -------
    int
        The exit code: 0, or 1 when a model of the last stage failed.
    """
    assert config.compute.budget is not None
    started = monotonic()
    end = started + config.compute.budget
    with display.status("Reading catalogue and images"):
        plan = make_plan(config)
    _refuse_what_cannot_be_searched(plan)
    sizes = sizes_to_download(plan, display)
    plan = within_max_download(plan, sizes)
    with ExitStack() as opened:
        confirm: Callable[[], None] = lambda: None  # noqa: E731
        if not only_plan:
            make_writable(config.folder)
            confirm = opened.enter_context(driving(config.folder))
        workers = opened.enter_context(open_workers(config.compute, config.folder, client))
        prices = _prices(workers, plan, sizes, display)
        stages, left = _course(plan, prices, end - monotonic())
        for line in _announced(plan, left, stages, prices, end - monotonic()):
            log.info(line)
        if only_plan:
            return 0
        note = _note_before(config)
        begun = False
        while stages:
            part = _part(plan, stages[0], left)
            began = monotonic()
            until = began + (end - began) / len(stages)
            _measure(workers, part, until, display, retry_failed, confirm)
            rows = read_results(part.config.folder)
            if not begun:
                tried = set(zip(rows["model"], rows["img_size"], strict=True))
                note.left_out = [str(job.entry) for job in left if _key(job) not in tried]
                left = [job for job in left if _key(job) in tried]
            begun = True
            passed = note.stage(stages.pop(0).images)
            passed.models = len(rows)
            passed.seconds += monotonic() - began
            if not stages:
                break
            prices = prices.corrected(rows, left)
            contenders, passed.dropped = _contenders(rows, left)
            if not contenders:
                failed = part.config.folder
                log.warning(f"none of {counted(len(rows), 'model')} could be measured: dsmi-zoo status --out {failed}")
                return 1
            left = prices.affordable(contenders, stages[0].images, (end - monotonic()) / len(stages))
            if len(left) == 1 or prices.seconds(contenders, stages[-1].images) <= end - monotonic():
                del stages[:-1]  # nothing is left to drop, or no need to
                left = prices.affordable(contenders, stages[0].images, end - monotonic())
            passed.dropped += [_dropped(rows, job, "no time left") for job in contenders if job not in left]
            expected = duration(prices.seconds(left, stages[0].images))
            log.info(f"{counted(len(passed.dropped), 'model')} dropped; {len(left)} left, "
                  f"now on {stages[0].images} images, about {expected}")  # fmt: skip
    write_run(config.folder, read_run(config.folder).model_copy(update={"search": note}))
    if note.left_out:
        log.info(f"{counted(len(note.left_out), 'model')} had no turn; more --budget goes on from here")
    slugs = {job.slug for job in left}
    report = config.compute.write_report
    return conclude(config.folder, slugs, started, display, report=report, may_be_partial=True)


def _refuse_what_cannot_be_searched(plan: Plan) -> None:
    """Raise InputError before anything is computed: OUT or a stage of other settings, or a class of one image."""
    rarest, images = _rarest(plan.subset)
    if images < 2:
        name = plan.subset.images.class_names.get(rarest, rarest)
        raise InputError(f"class {name} has {images} image; a search ranks by a probe, which needs 2 of every class")
    stored_run(plan)
    for stage in stages_of(plan.subset)[:-1]:
        if (_folder(plan.config, stage) / "run.json").exists():
            stored_run(_part(plan, stage, ()))


def _note_before(config: RunConfig) -> SearchNote:
    """What an earlier search in this OUT noted, with this one's budget added."""
    assert config.compute.budget is not None
    try:
        before = read_run(config.folder).search
    except LostRecord:
        before = None
    if before is None:
        return SearchNote(budget_s=config.compute.budget)
    stages = [Passed(images=stage.images, models=stage.models, seconds=stage.seconds) for stage in before.stages]
    return SearchNote(budget_s=before.budget_s + config.compute.budget, stages=stages)


def _prices(workers: "Workers", plan: Plan, sizes: Mapping[str, int | None], display: Display) -> Prices:
    with display.status("Measuring the speed of this machine"):
        workers.ask(resnet18_rate)  # a cluster may start its workers only when there is something to do
        rates = list(workers.client.run(resnet18_rate).values())
    rate = sum(rates) / len(rates)
    costs = {job.slug: estimate(job, rate, sizes.get(remote_weights(job.entry) or "") or 0) for job in plan.jobs}
    return Prices(costs, workers.count(), plan.config.repeats)


def _course(plan: Plan, prices: Prices, seconds: float) -> tuple[list[Stage], list[Job]]:
    """The stages to take, and the models, the most promising first; one stage is enough where all of it fits."""
    stages = stages_of(plan.subset)
    costs = [prices.seconds([job], stages[-1].images) for job in plan.jobs]
    order = by_promise(costs, [job.entry.top1 for job in plan.jobs])
    jobs = [plan.jobs[i] for i in order]
    begun = (plan.config.folder / "stages").exists()
    if not begun and CAUTION * prices.seconds(jobs, stages[-1].images) <= seconds:
        return stages[-1:], jobs
    return stages, jobs


def _announced(
    plan: Plan, jobs: Sequence[Job], stages: Sequence[Stage], prices: Prices, seconds: float
) -> Iterator[str]:
    """What the search will do, before it does anything."""
    first, *later = stages
    fit = prices.affordable(jobs, first.images, seconds / len(stages))
    by_accuracy = any(job.entry.top1 is not None for job in jobs)
    first_ones = "those that no cheaper one beats in published top-1" if by_accuracy else "the cheapest"
    yield (
        f"budget {duration(plan.config.compute.budget or 0)}: first {counted(len(jobs), 'model')} on {first.images} "
        f"images, {first_ones} first; about {len(fit)} fit, in about {duration(prices.seconds(fit, first.images))}, "
        f"with {size_in_words(prices.download(fit))} to download, after {duration(_gone(plan, seconds))} of starting"
    )
    if not later and len(fit) < len(jobs):
        _, smallest = _rarest(plan.subset)
        yield f"on all images at once: the smallest class has {smallest}; stages need {SHRINK * FEWEST} images a class"
    if later:
        numbers = ", then ".join(str(stage.images) for stage in later)
        yield f"after that, without those that are clearly worse and as time allows, on {numbers} images"


def _gone(plan: Plan, left: float) -> float:
    return max((plan.config.compute.budget or 0) - left, 0)


def _part(plan: Plan, stage: Stage, jobs: Sequence[Job]) -> Plan:
    """The plan of one stage: its images, its folder and the models that are left."""
    chosen = [job.slug for job in jobs]
    if stage.images_per_class is not None:
        subset = plan.config.subset.model_copy(update={"images_per_class": stage.images_per_class})
        folder = _folder(plan.config, stage)
        plan = make_plan(plan.config.model_copy(update={"subset": subset, "out": folder}))
    by_slug = {job.slug: job for job in plan.jobs}
    return Plan(plan.config, plan.subset, tuple(by_slug[slug] for slug in chosen))


def _folder(config: RunConfig, stage: Stage) -> Path:
    return config.folder / "stages" / f"{stage.images_per_class}-a-class"


def _measure(
    workers: "Workers",
    part: Plan,
    end: float,
    display: Display,
    retry_failed: bool,
    confirm: Callable[[], None],
) -> None:
    from ..pipeline.graph import run_entries

    todo = missing(part, open_out(part), retry_failed)
    if todo:
        follow(run_entries(workers, part, todo, until=end, confirm=confirm), len(todo), display)
    touch_record(part.config.folder)


def _contenders(rows: pd.DataFrame, jobs: Sequence[Job]) -> tuple[list[Job], list[Dropped]]:
    """The models that the rows cannot tell from the best one, the most accurate first; and the others, and why."""
    by_name = {_key(job): job for job in jobs}
    theirs = rows[[key in by_name for key in zip(rows["model"], rows["img_size"], strict=True)]]
    ranked = {(m.model, m.img_size): m for m in rank(theirs).models}
    contenders = [by_name[name] for name, m in ranked.items() if m.tied_for_first]
    dropped = [
        _dropped(rows, job, "clearly worse" if name in ranked else "failed or not measured in time")
        for name, job in by_name.items()
        if job not in contenders
    ]
    return contenders, dropped


def _key(job: Job) -> tuple[str, int | None]:
    """What names the entry's row."""
    return job.entry.model, job.entry.img_size


def _dropped(rows: pd.DataFrame, job: Job, reason: str) -> Dropped:
    found = rows[(rows["model"] == job.entry.model) & (rows["img_size"] == job.entry.img_size)]
    accuracy, low, high = (
        None if found.empty or pd.isna(found.iloc[0][name]) else float(found.iloc[0][name])
        for name in ("probe_accuracy", "probe_low", "probe_high")
    )
    return Dropped(model=str(job.entry), reason=reason, accuracy=accuracy, low=low, high=high)
