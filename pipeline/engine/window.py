"""A rolling window of entries on a Dask client: each is submitted once there is room, and its outcome collected."""

import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import distributed
from distributed import Client, Future

from dsmi_zoo._util.errors import DamagedFile
from dsmi_zoo._util.files import content_hash

from ..plan.job import Outcome
from .attempts import ATTEMPTS, LOST_AT_MOST, Attempts
from .workers import Workers

LOOK_EVERY_S = 1.0
READ_WITHIN_S = 10.0  # for a result of a few bytes, whose worker may have died
AHEAD = 2  # entries per worker: the next one's weights and view are prepared meanwhile


class Named(Protocol):
    """A job with a unique name."""

    @property
    def name(self) -> str:
        """The job's display name."""


AnyJob = TypeVar("AnyJob", bound=Named)


class Graph(Generic[AnyJob]):
    """Base class that turns jobs into Dask tasks and handles failed ones.

    Task keys are unique, so that Dask never answers a submission with the result of an earlier one, in this run or in
    another run on the same scheduler.
    """

    def __init__(self, client: Client, out: Path) -> None:
        self._client, self._out = client, out
        self._run = uuid.uuid4().hex[:8]
        self._number = count(1)
        self._held: dict[str, list[Future]] = {}
        self._errors: Counter[str] = Counter()

    def submit(self, job: AnyJob, priority: int) -> Future:
        """Submit a job's tasks, and return the future of its outcome."""
        raise NotImplementedError

    def failed(self, job: AnyJob, error: BaseException) -> Outcome | None:
        """Return the outcome of a job whose task raised an error; None to submit it again.

        An error raised here ends the run.
        """
        raise NotImplementedError

    def attempts(self, job: AnyJob) -> list[Attempts]:
        """Return the counters of attempts at a job's own tasks."""
        raise NotImplementedError

    def unit(self, job: AnyJob) -> str:
        """Return a key that jobs with a shared task have in common: together they take the room of one."""
        return job.name

    def release(self, job: AnyJob) -> None:
        """Release a job's tasks; those that have not started never will."""
        for future in self._held.pop(job.name, []):
            future.release()

    def task(
        self,
        kind: str,
        name: str,
        identity: str,
        priority: int,
        function: Callable[..., Any],
        *arguments: Any,
    ) -> Future:
        """Submit ``function(*arguments)`` as the task ``(kind, name, id)``, dependent on futures in the arguments."""
        of_this_run = content_hash(str(self._out), identity, self._run, next(self._number))
        return self._client.submit(
            function, *arguments, key=(kind, name, of_this_run), priority=priority
        )

    def hold(self, job: AnyJob, *futures: Future) -> Future:
        """Hold a job's futures until it is released; return the last one."""
        self._held[job.name] = list(futures)
        return futures[-1]

    def may_retry(self, job: AnyJob, error: BaseException) -> bool:
        """Return whether to retry: some schedulers blame a task for its worker's death, and files can be remade."""
        most = {distributed.KilledWorker: LOST_AT_MOST, DamagedFile: ATTEMPTS}.get(type(error), 0)
        self._errors[job.name] += 1
        return self._errors[job.name] <= most


class Window(Generic[AnyJob]):
    """The jobs that are currently submitted to the workers.

    Parameters
    ----------
    workers
        The workers that compute the jobs.
    graph
        The graph that submits each job's tasks.
    jobs
        The jobs in order of submission, and of priority on the workers.
    until
        The ``time.monotonic()`` after which no further job starts, unless none has started.
    confirm_lock
        Called about once a second; an error that it raises ends the run.
    """

    def __init__(
        self,
        workers: Workers,
        graph: Graph[AnyJob],
        jobs: Sequence[AnyJob],
        until: float = math.inf,
        confirm_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers, self._graph, self._until, self._confirm = workers, graph, until, confirm_lock
        self._jobs = list(enumerate(jobs))
        self._jobs.reverse()
        self._running: dict[Future, tuple[int, AnyJob]] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()
        # With a time limit, no job is queued in advance: a queued job starts even after the limit.
        self._ahead = AHEAD if until == math.inf else 1
        self._room, self._looked = 0, -math.inf
        self._has_begun = False

    def outcomes(self) -> Iterator[tuple[AnyJob, Outcome]]:
        """Yield each job with its outcome, as it ends."""
        try:
            while self._running or self._jobs:
                self._update_room()
                self._submit_next()
                if not self._running:
                    return
                try:
                    future = self._ended.get(timeout=LOOK_EVERY_S)
                except Empty:
                    continue
                number, job = self._running[future]
                outcome = self._outcome(future, job)
                del self._running[future]
                if outcome is not None:
                    self._graph.release(job)
                    yield job, outcome
                elif future.status == "error":
                    self._graph.release(job)
                    self._watch(self._graph.submit(job, -number), number, job)
                else:  # its worker died before the result was read; Dask computes it again
                    self._watch(future, number, job)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            for _, job in self._running.values():
                for attempts in self._graph.attempts(job):
                    attempts.forget()  # the user stopped them
            raise
        finally:
            for _, job in self._running.values():
                self._graph.release(job)

    def _update_room(self) -> None:
        """Confirm the lock and count the workers, at most once a second."""
        if monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._confirm()
        workers = self._workers.count()
        self._room = self._ahead * max(workers, 1)  # a cluster may grow only if there is work
        self._looked = monotonic()

    def _submit_next(self) -> None:
        units = {self._graph.unit(job) for _, job in self._running.values()}
        while self._jobs:
            unit = self._graph.unit(self._jobs[-1][1])
            if unit not in units and len(units) >= self._room:
                return
            if self._has_begun and monotonic() > self._until:
                return
            self._has_begun = True
            units.add(unit)
            number, job = self._jobs.pop()
            self._watch(self._graph.submit(job, -number), number, job)

    def _watch(self, future: Future, number: int, job: AnyJob) -> None:
        self._running[future] = number, job
        future.add_done_callback(self._ended.put)

    def _outcome(self, future: Future, job: AnyJob) -> Outcome | None:
        if future.status == "cancelled":
            raise self._workers.lost()
        if future.status == "error":
            return self._graph.failed(job, future.exception())
        if future.status != "finished":
            return None
        try:
            outcome: Outcome = future.result(timeout=READ_WITHIN_S)
        except (TimeoutError, CancelledError):
            return None
        return outcome
