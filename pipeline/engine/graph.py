"""The zoo as tasks that Dask holds: subset, views and weights, and of each entry a row that depends on them."""

import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import distributed
from distributed import Client, Future

from dsmi_zoo._util.errors import DamagedFile, DiskFull, InputError
from dsmi_zoo._util.hashing import content_hash
from dsmi_zoo.data_catalog.datasets.base import LabelledImages

from ..config.run import RunConfig
from ..embedding.views import drop_oldest_views
from ..plan.order import longest_first
from ..plan.plan import Job, Plan
from ..store.run_folder import row_mark
from ..weights.waves import evict
from .attempts import ATTEMPTS, LOST_AT_MOST, Attempts, KilledWorker
from .outcome import Done
from .prepare import prepare_subset, prepare_view, prepare_weights
from .row_content import RemeasureJob
from .task import compute_row, failed_row, remeasure_row
from .window import Window
from .workers import Workers, WorkersLost


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


OrderedJob = TypeVar("OrderedJob", bound=Ordered)
NamedJob = TypeVar("NamedJob", bound=Named)


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
        When ``time.monotonic()`` has passed this, no further entry is begun; they go in the order given then, for
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
    config, samples = plan.config, len(plan.subset.labels) * plan.subset.repeats
    needed = Counter(job.view for job in jobs)
    in_order = longest_first(jobs, samples) if until == math.inf else jobs
    graph = ZooGraph(workers.client, plan, jobs)
    try:
        for job, done in Window(workers, graph, in_order, until, confirm).outcomes():
            needed[job.view] -= 1
            if not needed[job.view]:
                graph.forget_view(job.view)
                still_needed = {view for view, entries in needed.items() if entries}
                drop_oldest_views(config.compute.cache, config.compute.cache_gb, keep=still_needed)
            yield done
    finally:
        graph.close()
    _remove_if_empty(config.folder / "attempts")


def run_in_waves(
    workers: Workers,
    plan: Plan,
    waves: Sequence[Sequence[Job]],
    confirm: Callable[[], None] = lambda: None,
) -> Iterator[Done]:
    """Compute the rows of one wave after the other; a wave's weights are evicted once all of its rows are on disk."""
    for wave in waves:
        yield from run_entries(workers, plan, wave, confirm=confirm)
        evict(wave, plan.config.compute.cache)


def mend_inputs(workers: Workers, plan: Plan) -> None:
    """Write anew what OUT holds of the images, where that is not as it was written; every row may be there."""
    graph = ZooGraph(workers.client, plan, plan.jobs)
    graph.subset.result()
    if plan.config.protocol == "paper":
        for job in {job.view: job for job in plan.jobs}.values():
            graph.view(job, priority=0).result()
    graph.close()


def remeasure_entries(
    workers: Workers,
    config: RunConfig,
    jobs: Sequence[RemeasureJob],
    confirm: Callable[[], None] = lambda: None,
) -> Iterator[Done]:
    """Measure kept embeddings anew; each row is on disk before it is reported here."""
    graph = RemeasureGraph(workers.client, config)
    in_order = sorted(jobs, key=lambda job: job.order)
    for _, done in Window(workers, graph, in_order, confirm=confirm).outcomes():
        yield done
    _remove_if_empty(config.folder / "attempts")


def compute_each(
    workers: Workers, out: Path, jobs: Sequence[OrderedJob], compute: Callable[[OrderedJob], Done]
) -> Iterator[Done]:
    """Run ``compute`` on each job; what one of them raises ends it all, and files that are finished stay."""
    graph = PlainGraph(workers.client, out, compute)
    in_order = sorted(jobs, key=lambda job: job.order)
    for _, done in Window(workers, graph, in_order).outcomes():
        yield done
    _remove_if_empty(out / "attempts")


class _Tasks(Generic[NamedJob]):
    """What the graphs have in common: named tasks, futures that are held while somebody waits, and second tries.

    No two submissions have the same key, so none is answered with what an earlier one came to, in this run or in
    another one on the same scheduler.
    """

    def __init__(self, client: Client, out: Path) -> None:
        self._client, self._out = client, out
        self._run = uuid.uuid4().hex[:8]
        self._number = count(1)
        self._held: dict[str, list[Future]] = {}
        self._again: Counter[str] = Counter()

    def let_go(self, job: NamedJob) -> None:
        """Nobody waits for the tasks of an entry any more; what has not begun will not."""
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
        """Submit ``function(*arguments)`` as the task ``(kind, name, id)``; futures among them are its dependencies."""
        of_this_run = content_hash(str(self._out), identity, self._run, next(self._number))
        return self._client.submit(
            function, *arguments, key=(kind, name, of_this_run), priority=priority
        )

    def hold(self, job: NamedJob, *futures: Future) -> Future:
        """Hold futures for an entry; the last one, its outcome's."""
        self._held[job.name] = list(futures)
        return futures[-1]

    def may_try_again(self, job: NamedJob, error: BaseException) -> bool:
        """Whether an error is no last word: a scheduler of others that blames a task, or a file that can be mended."""
        most = {distributed.KilledWorker: LOST_AT_MOST, DamagedFile: ATTEMPTS}.get(type(error), 0)
        self._again[job.name] += 1
        return self._again[job.name] <= most


class ZooGraph(_Tasks[Job]):
    """Rows of a catalogue's entries: ``weights`` and ``row`` of each, ``view`` for those that share it, one ``subset``.

    Parameters
    ----------
    jobs
        The entries that will be submitted.
    """

    def __init__(self, client: Client, plan: Plan, jobs: Sequence[Job]) -> None:
        super().__init__(client, plan.config.folder)
        self._config, self._images = plan.config, plan.subset
        self._views: dict[Path, Future] = {}
        views = Counter(job.view for job in jobs)
        commonest = max(views, key=views.__getitem__)
        self._first = next(job for job in jobs if job.view == commonest)
        self.subset = self._subset()

    def submit(self, job: Job, priority: int) -> Future:
        """Submit an entry's weights and row, and its view unless others needed it before."""
        attempts = Attempts(self._out, "weights", job.slug)
        prepare = partial(attempts.run, prepare_weights, job, self._config)
        weights = self.task("weights", job.name, job.embedding_id, priority, prepare)
        compute = partial(
            compute_row,
            job,
            self._config,
            self._images.digest,
            self._images.images.classifier_width,
            row_mark(self._out, job.slug),
            self._own_images(job),
        )
        row = self.task(
            "row", job.name, job.row_id, priority, compute, weights, self.view(job, priority)
        )
        return self.hold(job, weights, row)

    def _subset(self) -> Future:
        """The images of the run and their clusters; the commonest view is made in the same pass."""
        attempts = shared_attempts(self._config, "subset", self._images.digest)
        prepare = partial(attempts.run, prepare_subset, self._first, self._config, self._images)
        return self.task("subset", self._images.images.name, self._images.digest, 0, prepare)

    def view(self, job: Job, priority: int) -> Future:
        """The view that an entry needs; a future of it."""
        known = self._views.get(job.view)
        if known is None or known.status in ("error", "cancelled"):
            attempts = shared_attempts(self._config, "view", job.view.stem)
            prepare = partial(attempts.run, prepare_view, job, self._config, self._images)
            name = f"{job.entry.img_size} pixels, {job.view.stem}"
            self._views[job.view] = self.task(
                "view", name, job.view.stem, priority, _after, prepare, self.subset
            )
        return self._views[job.view]

    def forget_view(self, view: Path) -> None:
        """No entry needs it any more."""
        self._views.pop(view).release()

    def failed(self, job: Job, error: BaseException) -> Done | None:
        """The entry's failed row; what stops all entries is raised."""
        may_try_again = self.may_try_again(job, error)
        if self.subset.status == "error":
            if not may_try_again:
                raise _of_the_subset(error)
            self.subset = self._subset()
        if isinstance(error, DiskFull):
            raise error
        if not may_try_again:
            return failed_row(job, self._config, self._images.digest, error)
        if isinstance(error, DamagedFile):
            self._views.pop(job.view, None)  # it is looked at, and made, again
        return None

    def close(self) -> None:
        """Nobody waits for what entries share any more."""
        for future in (self.subset, *self._views.values()):
            future.release()

    def take_back(self, job: Job) -> None:
        """Count no attempt that the user stopped."""
        for kind in ("weights", "row"):
            Attempts(self._out, kind, job.slug).forget()

    def _own_images(self, job: Job) -> LabelledImages | None:
        """The images themselves, if the entry's network may have a transform of its own that is to be used."""
        own_transform = job.entry.builder is not None and self._config.protocol != "paper"
        return self._images.images if own_transform else None


def shared_attempts(config: RunConfig, kind: str, name: str) -> Attempts:
    """The attempts at what many entries need; those of other shares, which may be at it now, are none of ours."""
    share = config.compute.share
    return Attempts(
        config.folder, kind, name if share is None else f"{name}-{share.replace('/', '-of-')}"
    )


class RemeasureGraph(_Tasks[RemeasureJob]):
    """Rows of kept embeddings."""

    def __init__(self, client: Client, config: RunConfig) -> None:
        super().__init__(client, config.folder)
        self._config = config

    def submit(self, job: RemeasureJob, priority: int) -> Future:
        """Submit an entry's row."""
        compute = partial(remeasure_row, job, self._config, row_mark(self._out, job.slug))
        return self.hold(job, self.task("row", job.name, job.row_id, priority, compute))

    def failed(self, job: RemeasureJob, error: BaseException) -> Done | None:
        """The entry's failed row."""
        if isinstance(error, DiskFull):
            raise error
        return None if self.may_try_again(job, error) else failed_row(job, self._config, "", error)

    def take_back(self, job: RemeasureJob) -> None:
        """Count no attempt that the user stopped."""
        Attempts(self._out, "row", job.slug).forget()


class PlainGraph(_Tasks[OrderedJob]):
    """One task a job, and no rows."""

    def __init__(self, client: Client, out: Path, compute: Callable[[OrderedJob], Done]) -> None:
        super().__init__(client, out)
        self._compute = compute

    def submit(self, job: OrderedJob, priority: int) -> Future:
        """Submit a job."""
        attempt = partial(self._attempts(job).run, self._compute, job)
        return self.hold(job, self.task("study", job.name, job.name, priority, attempt))

    def failed(self, job: OrderedJob, error: BaseException) -> Done | None:
        """No job may fail."""
        if self.may_try_again(job, error):
            return None
        raise WorkersLost(f"{job.name}: {error}") if isinstance(error, KilledWorker) else error

    def take_back(self, job: OrderedJob) -> None:
        """Count no attempt that the user stopped."""
        self._attempts(job).forget()

    def _attempts(self, job: OrderedJob) -> Attempts:
        return Attempts(self._out, "study", content_hash(job.name))


def _after(function: Callable[[], Any], *_: object) -> Any:
    """What a task does that waits for others and needs nothing of what they return."""
    return function()


def _of_the_subset(error: BaseException) -> BaseException:
    """What is said when the images cannot be prepared: all entries need them."""
    if isinstance(error, (InputError, DiskFull)):
        return error
    return InputError(
        f"the images cannot be prepared ({type(error).__name__}: {error}); no model was measured"
    )


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
