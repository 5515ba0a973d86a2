"""All entries on the workers at hand: subset, views and rows, one task a worker, whatever happens to it."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from ..data_catalog.errors import DamagedFile, DiskFull
from ..data_catalog.images import LabelledImages
from .config import RunConfig
from .cost import DECODE_S
from .order import Expectation, longest_first
from .plan import Job, Plan
from .task import (
    Done,
    RemeasureJob,
    compute_row,
    failed_row,
    prepare_subset,
    prepare_view,
    remeasure_row,
)
from .traces import Trace, Traces
from .views import drop_oldest_views
from .waves import evict

ATTEMPTS = 3
LOOK_EVERY_S = 1.0
ENDS_WITHIN_S = 60.0  # what does not end when it is killed, ends by no means that a driver has


class Named(Protocol):
    """A piece of work that ends in files of its own."""

    @property
    def name(self) -> str:
        """For people; no two have the same."""


class Ordered(Named, Protocol):
    """Work that knows how long it takes beside its like."""

    @property
    def order(self) -> Any:
        """Sorts the longest first."""


AnyJob = TypeVar("AnyJob", bound=Named)
OrderedJob = TypeVar("OrderedJob", bound=Ordered)
Task = tuple[Callable[..., Any], tuple[Any, ...]]


class Result(Protocol):
    """What a submitted task becomes, as in `concurrent.futures`."""

    def add_done_callback(self, fn: Callable[[Any], object]) -> object:
        """Call ``fn`` with this, from any thread, once the task has ended."""

    def result(self) -> Any:
        """What it returned; raises what it raised."""


class Workers(Protocol):
    """Processes that each do one task at a time."""

    def count(self) -> int:
        """How many there are now.

        Raises
        ------
        WorkersLost
            When none can come any more.
        """

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Result:
        """Run a task on a worker that is free."""

    def deaths(self, error: Exception) -> int:
        """How many workers died of a task that raised ``error``; 0 for an exception of the task's own.

        Raises
        ------
        WorkersLost
            When ``error`` says so.
        """

    def end(self, result: Result) -> None:
        """Kill the process that does a task, for it does not answer; returns at once."""


class WorkersLost(OSError):
    """The workers are gone for good, for the reason given."""


class KilledWorker(Exception):
    """A model whose worker process died each time."""


def run_entries(
    workers: Workers,
    plan: Plan,
    jobs: Sequence[Job],
    until: float = math.inf,
    confirm: Callable[[], None] = lambda: None,
) -> Iterator[Done]:
    """Compute the rows of ``jobs``; each is on disk before it is reported here.

    Parameters
    ----------
    until
        When ``time.monotonic()`` has passed this, no further entry is handed out; they go in the order given then, for
        somebody has decided which ones may be missed.
    confirm
        Called about once a second; what it raises ends the run.

    Raises
    ------
    InputError
        Names an image of the subset that cannot be decoded; then no row is written.
    DiskFull
        When a file cannot be written for lack of space; rows that are finished stay.
    WorkersLost
        When the workers are gone for good.
    """
    config, subset = plan.config, plan.subset
    width = subset.images.classifier_width
    needed = Counter(job.view for job in jobs)
    commonest = max(needed, key=needed.__getitem__)
    first = next(job for job in jobs if job.view == commonest)
    samples = len(subset.labels) * subset.repeats
    expectation, decoding = Expectation(samples), samples * DECODE_S
    by_slug = {job.slug: job for job in jobs}

    def stages(job: Job) -> Sequence[_Stage]:
        return (
            _Stage("subset", (prepare_subset, (first, config, subset)), vital=True),
            _Stage(job.view, (prepare_view, (job, config, subset))),
        )

    def seconds(job: Job) -> float:
        return expectation.seconds(job) + (0.0 if job.view.exists() else decoding)

    dispatch = _Dispatch(
        workers,
        jobs,
        work=lambda job: (compute_row, (job, config, subset.digest, width, _own_images(job, plan))),
        fail=lambda job, error: failed_row(job, config, subset.digest, error),
        traces=Traces(config),
        stages=stages,
        order=longest_first(seconds) if until == math.inf else None,
        until=until,
        confirm=confirm,
    )
    for done in dispatch.run():
        job = by_slug[done.slug]
        expectation.learn(job, done)
        needed[job.view] -= 1
        if not needed[job.view]:
            drop_oldest_views(config.compute.cache, config.compute.cache_gb, keep={v for v in needed if needed[v]})
        yield done


def _own_images(job: Job, plan: Plan) -> LabelledImages | None:
    """The subset's images, if the entry's network may have a transform of its own that is to be used."""
    own_transform = job.entry.builder is not None and plan.config.protocol != "paper"
    return plan.subset.images if own_transform else None


def run_in_waves(
    workers: Workers, plan: Plan, waves: Sequence[Sequence[Job]], confirm: Callable[[], None] = lambda: None
) -> Iterator[Done]:
    """Compute the rows of one wave after the other; a wave's weights are evicted once all of its rows are on disk."""
    for wave in waves:
        yield from run_entries(workers, plan, wave, confirm=confirm)
        evict(wave, plan.config.compute.cache)


def mend_inputs(workers: Workers, plan: Plan) -> None:
    """Write anew what OUT holds of the images, where that is not as it was written; every row may be there."""
    workers.submit(prepare_subset, plan.jobs[0], plan.config, plan.subset).result()
    if plan.config.protocol == "paper":
        for job in {job.view: job for job in plan.jobs}.values():
            workers.submit(prepare_view, job, plan.config, plan.subset).result()


def remeasure_entries(
    workers: Workers, config: RunConfig, jobs: Sequence[RemeasureJob], confirm: Callable[[], None] = lambda: None
) -> Iterator[Done]:
    """Measure kept embeddings anew; each row is on disk before it is reported here."""
    yield from _Dispatch(
        workers,
        jobs,
        work=lambda job: (remeasure_row, (job, config)),
        fail=lambda job, error: failed_row(job, config, "", error),
        traces=Traces(config),
        order=lambda job: job.order,
        confirm=confirm,
    ).run()


def compute_each(workers: Workers, jobs: Sequence[OrderedJob], compute: Callable[[OrderedJob], Done]) -> Iterator[Done]:
    """Run ``compute`` on each job; what one of them raises ends it all, and files that are finished stay."""

    def fail(job: OrderedJob, error: Exception) -> Done:
        raise WorkersLost(f"{job.name}: {error}") if isinstance(error, KilledWorker) else error

    yield from _Dispatch(
        workers, jobs, work=lambda job: (compute, (job,)), fail=fail, order=lambda job: job.order
    ).run()


@dataclass(frozen=True)
class _Stage:
    """What several entries wait for, done once, when the first has its turn; without a vital one none can go on."""

    name: Hashable
    task: Task = field(compare=False)
    vital: bool = field(default=False, compare=False)


@dataclass(eq=False)
class _Unit(Generic[AnyJob]):
    """What a worker does at a time: an entry's row, or a stage for the entries that wait."""

    task: Task
    job: AnyJob | None = None
    stage: _Stage | None = None
    alone: bool = False
    trace: Trace | None = None


class _Dispatch(Generic[AnyJob]):
    """Hands entries to workers, one task a worker, and brings back each entry's outcome once.

    An entry whose worker died goes to the end of the queue; its last attempt is made while nothing else runs, so that
    no entry fails for what another one did to its worker or its machine.
    """

    def __init__(
        self,
        workers: Workers,
        jobs: Sequence[AnyJob],
        *,
        work: Callable[[AnyJob], Task],
        fail: Callable[[AnyJob, Exception], Done],
        traces: Traces | None = None,
        stages: Callable[[AnyJob], Sequence[_Stage]] = lambda job: (),
        order: Callable[[AnyJob], Any] | None = None,
        until: float = math.inf,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers, self._traces, self._confirm = workers, traces, confirm
        self._work: Callable[[AnyJob], Task] = work
        self._fail: Callable[[AnyJob, Exception], Done] = fail
        self._stages: Callable[[AnyJob], Sequence[_Stage]] = stages
        self._order: Callable[[AnyJob], Any] | None = order
        self._until = until
        self._queue: list[tuple[Any, int, AnyJob]] = [(0, number, job) for number, job in enumerate(jobs)]
        self._sort()
        self._alone: list[AnyJob] = []
        self._suspects: list[AnyJob] = []
        self._deaths: Counter[Hashable] = Counter()
        self._again: list[_Unit[AnyJob]] = []
        self._passed: set[Hashable] = set()
        self._broken: dict[Hashable, Exception] = {}
        self._waiting: dict[Hashable, list[tuple[Any, int, AnyJob]]] = {}
        self._damaged: Counter[Hashable] = Counter()
        self._running: dict[_Unit[AnyJob], Result] = {}
        self._given_up: dict[_Unit[AnyJob], Result] = {}  # their workers are as good as gone
        self._ended: SimpleQueue[_Unit[AnyJob]] = SimpleQueue()
        self._reported: list[Done] = []
        self._begun = False  # late or not, one entry has its turn
        self._finished = 0

    def run(self) -> Iterator[Done]:
        """Each entry's outcome, as it comes."""
        capacity, looked = self._workers.count(), monotonic()
        while True:
            while len(self._running) < capacity - len(self._given_up) and (unit := self._next()) is not None:
                self._start(unit)
            while self._reported:
                yield self._reported.pop(0)
                self._finished += 1
                if self._finished.bit_count() == 1:  # whenever their number has doubled: they tell more of the others
                    self._sort()
            if not self._running and (self._is_late() or not self._is_left()):
                return
            if not self._running and 0 < capacity <= len(self._given_up):
                raise WorkersLost(
                    "no worker answers any more, and none can be killed; finished rows are kept, and the same command "
                    "goes on from here"
                )
            with suppress(Empty):
                self._end(self._ended.get(timeout=LOOK_EVERY_S))
            if monotonic() - looked > LOOK_EVERY_S:
                self._confirm()
                self._end_overdue()
                capacity, looked = self._workers.count(), monotonic()

    def _is_late(self) -> bool:
        return self._begun and monotonic() > self._until

    def _is_left(self) -> bool:
        return bool(self._queue or self._again or self._suspects or self._alone or self._reported)

    def _start(self, unit: _Unit[AnyJob]) -> None:
        function, arguments = unit.task
        if self._traces is not None and unit.job is not None:
            unit.trace = self._traces.begin(unit.job)
        result = self._workers.submit(function, *arguments)
        self._running[unit] = result
        result.add_done_callback(partial(_put, self._ended, unit))

    def _next(self) -> _Unit[AnyJob] | None:
        """What a free worker does next, or None if that has to wait."""
        if self._is_late():
            return None
        if self._again:
            return self._again.pop()
        while self._queue:
            rank, number, job = heapq.heappop(self._queue)
            unit = self._unit((rank, number, job))
            if unit is not None:
                return unit
        if self._suspects and not self._waiting:
            return self._unit((0, 0, self._suspects.pop(0)))
        if self._alone and not self._running:
            job = self._alone.pop(0)
            return _Unit(self._work(job), job=job, alone=True)
        return None

    def _unit(self, item: tuple[Any, int, AnyJob]) -> _Unit[AnyJob] | None:
        """The entry's row, or the stage that it has to wait for; None when somebody makes that already."""
        job = item[-1]
        for stage in self._stages(job):
            if stage.name in self._broken:
                self._reported.append(self._fail(job, self._broken[stage.name]))
                return None
            if stage.name in self._waiting:
                self._waiting[stage.name].append(item)
                return None
            if stage.name not in self._passed:
                self._waiting[stage.name] = [item]
                return _Unit(stage.task, stage=stage)
        self._begun = True
        return _Unit(self._work(job), job=job)

    def _end_overdue(self) -> None:
        """Kill the workers of models that had their time: a suspended process cannot end itself."""
        if self._traces is None:
            return
        for unit, result in list(self._running.items()):
            job, trace = unit.job, unit.trace
            if job is None or trace is None or not self._traces.is_overdue(job, trace):
                continue
            if not trace.ended:
                trace.ended = monotonic()
                self._workers.end(result)
            elif monotonic() - trace.ended > ENDS_WITHIN_S:
                self._given_up[unit] = self._running.pop(unit)
                self._reported.append(self._fail(job, self._traces.too_long(job, trace)))

    def _end(self, unit: _Unit[AnyJob]) -> None:
        if self._given_up.pop(unit, None) is not None:
            return
        value, error = _outcome(self._running.pop(unit))
        if unit.stage is not None:
            self._end_stage(unit, unit.stage, error)
        elif unit.job is not None:
            done = value if error is None else self._after(unit, unit.job, error)
            if done is not None:
                self._reported.append(done)

    def _end_stage(self, unit: _Unit[AnyJob], stage: _Stage, error: Exception | None) -> None:
        if error is not None and (died := self._workers.deaths(error)):
            self._deaths[stage.name] += died
            if self._deaths[stage.name] < ATTEMPTS:
                self._again.append(_Unit(unit.task, stage=stage))
                return
            error = KilledWorker(f"the worker that made its view died {self._deaths[stage.name]} times")
        if error is None:
            self._passed.add(stage.name)
        elif stage.vital or isinstance(error, DiskFull):
            raise error
        else:
            self._broken[stage.name] = error
        self._queue += self._waiting.pop(stage.name)
        self._sort()  # what waited for it takes less time now

    def _after(self, unit: _Unit[AnyJob], job: AnyJob, error: Exception) -> Done | None:
        """The outcome of an entry whose task wrote no row that we know of; None when it gets another attempt."""
        died = self._workers.deaths(error)
        if not died:
            if isinstance(error, DiskFull):
                raise error
            return None if self._is_made_again(job, error) else self._fail(job, error)
        left = self._traces.outcome(job, unit.trace) if self._traces and unit.trace else None
        if left is not None:
            return self._fail(job, left) if isinstance(left, Exception) else left
        self._deaths[job.name] += died
        if unit.alone:
            return self._fail(job, _killed(self._deaths[job.name]))
        (self._suspects if self._deaths[job.name] < ATTEMPTS - 1 else self._alone).append(job)
        return None

    def _is_made_again(self, job: AnyJob, error: Exception) -> bool:
        """Whether an entry goes back into the queue, and to its stages, because something of theirs is damaged."""
        stages = self._stages(job)
        self._damaged[job.name] += 1
        if not isinstance(error, DamagedFile) or not stages or self._damaged[job.name] > ATTEMPTS:
            return False
        self._passed -= {stage.name for stage in stages}
        self._queue.append((0, -self._damaged.total(), job))  # no two numbers are the same
        self._sort()
        return True

    def _sort(self) -> None:
        if self._order is not None:
            self._queue = [(self._order(job), number, job) for _, number, job in self._queue]
        heapq.heapify(self._queue)


def _put(ended: "SimpleQueue[Any]", unit: object, result: object) -> None:
    ended.put(unit)


def _outcome(result: Result) -> tuple[Any, Exception | None]:
    try:
        return result.result(), None
    except Exception as error:
        return None, error


def _killed(deaths: int) -> KilledWorker:
    return KilledWorker(
        f"its worker process died {deaths} times, the last time with nothing else running: out of memory, killed, or "
        "ended by the model's own code"
    )
