"""The Dask tasks of a run: one subset, the views, and for each entry its weights and the row that depends on all."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from distributed import Client, Future

from dsmi_zoo._util.errors import DamagedFile, DiskFull, InputError
from dsmi_zoo._util.files import content_hash

from ..config.run import RunConfig
from ..embedding.views import drop_oldest_views
from ..plan.job import Outcome
from ..plan.order import by_network, longest_first
from ..plan.plan import Job, Plan
from ..store.run_folder import row_mark
from ..weights.waves import evict
from .attempts import Attempts, KilledWorker
from .prepare import prepare_subset, prepare_view, prepare_weights
from .row_content import RemeasureJob
from .task import EntryTask, OwnScoresTask, PassTask, RemeasureTask, RowTask
from .window import Graph, Named, Window
from .workers import Workers, WorkersLost


class Ordered(Named, Protocol):
    """A job that can be sorted by its expected duration."""

    @property
    def order(self) -> Any:
        """Sort key: the longest job first."""


OrderedJob = TypeVar("OrderedJob", bound=Ordered)


def run_entries(
    workers: Workers,
    plan: Plan,
    jobs: Sequence[Job],
    until: float = math.inf,
    confirm_lock: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Compute the rows of ``jobs``; each is on disk before it is reported here.

    Parameters
    ----------
    until
        The ``time.monotonic()`` after which no further entry starts. With a limit, entries run in the given order,
        because the caller has decided which ones may be missed.
    confirm_lock
        Called about once a second; an error that it raises ends the run.

    Raises
    ------
    InputError
        If an image of the subset, which the message names, cannot be decoded; then no row is written.
    DiskFull
        When a file cannot be written for lack of space; finished rows stay.
    WorkersLost
        When the workers are permanently lost.
    """
    config, samples = plan.config, len(plan.subset.labels) * plan.subset.repeats
    needed = Counter(job.view for job in jobs)
    layers = Counter(job.network for job in jobs)
    in_order = longest_first(jobs, samples) if until == math.inf else jobs
    in_order = [job for group in by_network(in_order) for job in group]
    graph = ZooGraph(workers.client, plan, jobs)
    try:
        for job, outcome in Window(workers, graph, in_order, until, confirm_lock).outcomes():
            layers[job.network] -= 1
            if not layers[job.network]:
                graph.forget_pass(job.network)
            needed[job.view] -= 1
            if not needed[job.view]:
                graph.forget_view(job.view)
                still_needed = {view for view, entries in needed.items() if entries}
                drop_oldest_views(config.compute.cache, config.compute.cache_gb, keep=still_needed)
            yield outcome
    finally:
        graph.close()
    remove_attempts_folder(config.folder)


def run_in_waves(
    workers: Workers,
    plan: Plan,
    waves: Sequence[Sequence[Job]],
    confirm_lock: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Compute the rows wave by wave, and delete a wave's weights once all of its rows are on disk."""
    for wave in waves:
        yield from run_entries(workers, plan, wave, confirm_lock=confirm_lock)
        evict(wave, plan.config.compute.cache)


def repair_inputs(workers: Workers, plan: Plan) -> None:
    """Repair damaged subset and cluster files in OUT; rows are untouched."""
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
    confirm_lock: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Measure kept embeddings again; each row is on disk before it is reported here."""
    yield from _from_kept(workers, RemeasureGraph(workers.client, config), jobs, confirm_lock)


def add_own_scores(
    workers: Workers,
    config: RunConfig,
    jobs: Sequence[RemeasureJob],
    identities: Sequence[str],
    confirm_lock: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Add own measures, given by their code's identities, to finished rows; each is on disk before it is reported."""
    graph = OwnScoresGraph(workers.client, config, identities)
    yield from _from_kept(workers, graph, jobs, confirm_lock)


def _from_kept(
    workers: Workers,
    graph: "RemeasureGraph",
    jobs: Sequence[RemeasureJob],
    confirm_lock: Callable[[], None],
) -> Iterator[Outcome]:
    in_order = sorted(jobs, key=lambda job: job.order)
    for _, outcome in Window(workers, graph, in_order, confirm_lock=confirm_lock).outcomes():
        yield outcome
    remove_attempts_folder(graph.config.folder)


def compute_each(
    workers: Workers,
    out: Path,
    jobs: Sequence[OrderedJob],
    compute: Callable[[OrderedJob], Outcome],
) -> Iterator[Outcome]:
    """Run ``compute`` on each job; an error in one job ends them all, but finished files are kept."""
    graph = PlainGraph(workers.client, out, compute)
    in_order = sorted(jobs, key=lambda job: job.order)
    for _, outcome in Window(workers, graph, in_order).outcomes():
        yield outcome
    remove_attempts_folder(out)


def remove_attempts_folder(out: Path) -> None:
    """Remove the folder of attempts once all have ended."""
    with suppress(OSError):  # it is not empty, or was never made
        (out / "attempts").rmdir()


class ZooGraph(Graph[Job]):
    """The tasks of a catalogue's entries: ``weights`` and ``row`` for each, shared ``view``s, one ``subset``.

    Layers of one network share its ``weights`` and one ``pass``, which computes the embeddings of all of them.

    Parameters
    ----------
    jobs
        The entries that will be submitted.
    """

    def __init__(self, client: Client, plan: Plan, jobs: Sequence[Job]) -> None:
        super().__init__(client, plan.config.folder)
        self._config, self._images = plan.config, plan.subset
        self._views: dict[Path, Future] = {}
        self._layers = {group[0].network: group for group in by_network(jobs) if len(group) > 1}
        self._passes: dict[str, tuple[Future, Future]] = {}
        views = Counter(job.view for job in jobs)
        commonest = max(views, key=views.__getitem__)
        self._first = next(job for job in jobs if job.view == commonest)
        self.subset = self._submit_subset()

    def submit(self, job: Job, priority: int) -> Future:
        """Submit an entry's weights and row, and its view and pass unless already submitted."""
        view = self.view(job, priority)
        row = self._row_task(job).run
        if job.network in self._layers:
            before = (*self._pass(job.network, priority, view), view)
            return self.hold(job, self.task("row", job.name, job.row_id, priority, row, *before))
        weights = self._weights(job, priority)
        return self.hold(
            job, weights, self.task("row", job.name, job.row_id, priority, row, weights, view)
        )

    def unit(self, job: Job) -> str:
        """Return the network if several of its layers are jobs, else the entry's name."""
        return job.network if job.network in self._layers else job.name

    def _weights(self, job: Job, priority: int) -> Future:
        attempts = Attempts(self._out, "weights", job.slug)
        arguments = attempts.run, prepare_weights, job, self._config
        return self.task("weights", job.name, job.embedding_id, priority, *arguments)

    def _pass(self, network: str, priority: int, view: Future) -> tuple[Future, Future]:
        """Return the futures of the weights and of the pass that the layers of a network share."""
        known = self._passes.get(network)
        if known is None or any(one.status in ("error", "cancelled") for one in known):
            layers = self._layers[network]
            weights = self._weights(layers[0], priority)
            run = PassTask(tuple(map(self._row_task, layers))).run
            name = layers[0].name
            found = self.task("pass", name, network, priority, run, weights, view)
            self._passes[network] = weights, found
        return self._passes[network]

    def forget_pass(self, network: str) -> None:
        """Release the pass and the weights of a network whose rows are all done."""
        for future in self._passes.pop(network, ()):
            future.release()

    def _submit_subset(self) -> Future:
        """Submit the images and their clusters; the commonest view is made in the same pass."""
        digest = self._images.digest
        attempts = shared_attempts(self._config, "subset", digest)
        arguments = self._first, self._config, self._images
        name = self._images.images.name
        return self.task("subset", name, digest, 0, attempts.run, prepare_subset, *arguments)

    def view(self, job: Job, priority: int) -> Future:
        """Return the future of an entry's view, which depends on the subset."""
        known = self._views.get(job.view)
        if known is None or known.status in ("error", "cancelled"):
            self._views[job.view] = self.task(
                "view",
                f"{job.entry.img_size} pixels, {job.view.stem}",
                job.view.stem,
                priority,
                shared_attempts(self._config, "view", job.view.stem).run,
                prepare_view,
                job,
                self._config,
                self._images,
                self.subset,
            )
        return self._views[job.view]

    def forget_view(self, view: Path) -> None:
        """Release a view that no entry needs any more."""
        self._views.pop(view).release()

    def failed(self, job: Job, error: BaseException) -> Outcome | None:
        """Write the entry's failed row, or raise an error that stops the whole run."""
        may_retry = self.may_retry(job, error)
        if self.subset.status == "error":
            if not may_retry:
                if isinstance(error, (InputError, DiskFull)):
                    raise error
                reason = f"{type(error).__name__}: {error}"
                raise InputError(f"the images cannot be prepared ({reason}); no model was measured")
            self.subset = self._submit_subset()
        if isinstance(error, DiskFull):
            raise error
        if not may_retry:
            return self._row_task(job).fail(error)
        if isinstance(error, DamagedFile):
            self._views.pop(job.view, None)  # the next task checks it, and makes it again
        return None

    def close(self) -> None:
        """Release the tasks that entries share."""
        shared = [future for both in self._passes.values() for future in both]
        for future in (self.subset, *self._views.values(), *shared):
            future.release()

    def attempts(self, job: Job) -> list[Attempts]:
        """Return the counters of an entry's weights and row, and of the pass that it shares with other layers."""
        first = self._layers.get(job.network, [job])[0]
        shared = ("weights", "pass") if job.network in self._layers else ("weights",)
        return [
            *(Attempts(self._out, kind, first.slug) for kind in shared),
            Attempts(self._out, "row", job.slug),
        ]

    def _row_task(self, job: Job) -> EntryTask:
        images = self._images.images
        # A builder may bring its own transform, which takes the images themselves.
        may_transform = job.entry.builder is not None and self._config.protocol != "paper"
        return EntryTask(
            job=job,
            config=self._config,
            mark=row_mark(self._out, job.slug),
            subset_hash=self._images.digest,
            orders=self._images.orders,
            images=images if may_transform else None,
        )


def shared_attempts(config: RunConfig, kind: str, name: str) -> Attempts:
    """Return the attempt counter of a task that many entries need; concurrent shares of the run count separately."""
    share = config.compute.share
    of_share = "" if share is None else f"-{share.replace('/', '-of-')}"
    return Attempts(config.folder, kind, f"{name}{of_share}")


class RemeasureGraph(Graph[RemeasureJob]):
    """The tasks that measure kept embeddings again: one ``row`` each."""

    def __init__(self, client: Client, config: RunConfig) -> None:
        super().__init__(client, config.folder)
        self.config = config

    def submit(self, job: RemeasureJob, priority: int) -> Future:
        """Submit an entry's row."""
        row = self._row_task(job).run
        return self.hold(job, self.task("row", job.name, job.row_id, priority, row))

    def failed(self, job: RemeasureJob, error: BaseException) -> Outcome | None:
        """Write the entry's failed row."""
        if isinstance(error, DiskFull):
            raise error
        return None if self.may_retry(job, error) else self._row_task(job).fail(error)

    def attempts(self, job: RemeasureJob) -> list[Attempts]:
        """Return the counter of an entry's row."""
        return [Attempts(self._out, "row", job.slug)]

    def _row_task(self, job: RemeasureJob) -> RowTask:
        return RemeasureTask(job, self.config, row_mark(self._out, job.slug))


class OwnScoresGraph(RemeasureGraph):
    """The tasks that add own measures of kept embeddings to finished rows."""

    def __init__(self, client: Client, config: RunConfig, identities: Sequence[str]) -> None:
        super().__init__(client, config)
        self._identities = tuple(identities)

    def _row_task(self, job: RemeasureJob) -> RowTask:
        mark = row_mark(self._out, job.slug)
        return OwnScoresTask(job, self.config, mark, self._identities)


class PlainGraph(Graph[OrderedJob]):
    """One task per job, without rows."""

    def __init__(self, client: Client, out: Path, compute: Callable[[OrderedJob], Outcome]) -> None:
        super().__init__(client, out)
        self._compute = compute

    def submit(self, job: OrderedJob, priority: int) -> Future:
        """Submit a job."""
        attempt = self.attempts(job)[0].run
        return self.hold(
            job, self.task("study", job.name, job.name, priority, attempt, self._compute, job)
        )

    def failed(self, job: OrderedJob, error: BaseException) -> Outcome | None:
        """Retry the job, or end all jobs: none may fail."""
        if self.may_retry(job, error):
            return None
        raise WorkersLost(f"{job.name}: {error}") if isinstance(error, KilledWorker) else error

    def attempts(self, job: OrderedJob) -> list[Attempts]:
        """Return the counter of a job."""
        return [Attempts(self._out, "study", content_hash(job.name))]
