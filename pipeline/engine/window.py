"""A rolling window of entries on a Dask client: each is submitted once there is room, and its outcome brought back."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Generic, Protocol, TypeVar

from distributed import Future

from .outcome import Done
from .workers import Workers

LOOK_EVERY_S = 1.0
READ_WITHIN_S = 10.0  # a result of a few bytes; its worker may have died meanwhile
AHEAD = 2  # entries for each worker: the next one's weights and view are there when its turn comes

AnyJob = TypeVar("AnyJob")
TakenJob = TypeVar("TakenJob", contravariant=True)


class Graph(Protocol[TakenJob]):
    """How entries become tasks of Dask."""

    def submit(self, job: TakenJob, priority: int) -> Future:
        """Submit an entry's tasks, and return the future of its outcome, a ``Done``."""

    def failed(self, job: TakenJob, error: BaseException) -> Done | None:
        """What became of an entry whose task raised an error: its outcome; None when it is to be submitted again.

        What this raises ends the run.
        """

    def let_go(self, job: TakenJob) -> None:
        """Nobody waits for the tasks of an entry any more."""

    def take_back(self, job: TakenJob) -> None:
        """The user stops an entry in the middle of its work; the attempt does not count."""


class Window(Generic[AnyJob]):
    """Entries on their way.

    Parameters
    ----------
    workers
        Where they are computed.
    graph
        What is submitted for each.
    jobs
        Submitted in this order; an earlier one comes first on the workers, too.
    until
        When ``time.monotonic()`` has passed this, no further entry is begun; but one has its turn in any case.
    confirm
        Called about once a second; what it raises ends the run.
    """

    def __init__(
        self,
        workers: Workers,
        graph: Graph[AnyJob],
        jobs: Sequence[AnyJob],
        until: float = math.inf,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers, self._graph, self._until, self._confirm = workers, graph, until, confirm
        self._jobs = list(enumerate(jobs))
        self._jobs.reverse()
        self._running: dict[Future, tuple[int, AnyJob]] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()
        # What waits on a worker begins, however late it is.
        self._ahead = AHEAD if until == math.inf else 1
        self._room, self._looked = 0, -math.inf
        self._has_begun = False

    def outcomes(self) -> Iterator[tuple[AnyJob, Done]]:
        """Each entry with its outcome, as it comes."""
        try:
            while self._running or self._jobs:
                self._look()
                if not self._fill():
                    return
                ended = self._next_ended()
                if ended is not None:
                    yield ended
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            for _, job in self._running.values():
                self._graph.take_back(job)
            raise
        finally:
            for _, job in self._running.values():
                self._graph.let_go(job)

    def _look(self) -> None:
        """About once a second: is this still our run, and how many workers are there?"""
        if monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._confirm()
        workers = self._workers.count()
        self._room = self._ahead * max(workers, 1)  # a cluster may grow only where there is work
        self._looked = monotonic()

    def _fill(self) -> bool:
        """Submit entries while there is room; False when there is none left, or no time."""
        while self._jobs and len(self._running) < self._room:
            if self._has_begun and monotonic() > self._until:
                break
            self._submit(*self._jobs.pop())
        return bool(self._running)

    def _submit(self, number: int, job: AnyJob) -> None:
        self._has_begun = True
        self._watch(self._graph.submit(job, -number), number, job)

    def _watch(self, future: Future, number: int, job: AnyJob) -> None:
        self._running[future] = number, job
        future.add_done_callback(self._ended.put)

    def _next_ended(self) -> tuple[AnyJob, Done] | None:
        """The next entry that has an outcome; None when there is none yet."""
        try:
            future = self._ended.get(timeout=LOOK_EVERY_S)
        except Empty:
            return None
        number, job = self._running.pop(future)
        try:
            done = self._outcome(future, job)
        except BaseException:
            self._running[future] = number, job
            raise
        if done is None and future.status == "error":
            self._graph.let_go(job)
            self._submit(number, job)
        elif done is None:  # its worker died before it was read; Dask computes it again
            self._watch(future, number, job)
        else:
            self._graph.let_go(job)
            return job, done
        return None

    def _outcome(self, future: Future, job: AnyJob) -> Done | None:
        if future.status == "cancelled":
            raise self._workers.gone()
        if future.status == "error":
            return self._graph.failed(job, future.exception())
        if future.status != "finished":
            return None
        try:
            done: Done = future.result(timeout=READ_WITHIN_S)
        except (TimeoutError, CancelledError):
            return None
        return done
