"""All entries on a Dask client: subset, views, training and rows, with a bounded number of entries handed out ahead."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

from distributed import Client, Future, as_completed

from data_catalog.errors import DiskFull
from pipeline.config import RunConfig
from pipeline.plan import Job, Plan
from pipeline.task import (
    Done,
    RemeasureJob,
    compute_row,
    failed_row,
    prepare_subset,
    prepare_view,
    prepare_weights,
    remeasure_row,
)
from pipeline.views import drop_oldest_views
from pipeline.waves import evict


class Named(Protocol):
    """A piece of work that ends in files of its own; ``order`` sorts the longest ones first."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def order(self) -> Any:
        """What to sort by."""


AnyJob = TypeVar("AnyJob", bound=Named)


def run_entries(client: Client, plan: Plan, jobs: Sequence[Job], until: float = math.inf) -> Iterator[Done]:
    """Compute the rows of ``jobs``; each is on disk before it is reported here.

    Parameters
    ----------
    until
        When ``time.monotonic()`` has passed this, no further entry is handed out; they go in the order given then, for
        somebody has decided which ones may be missed.

    Raises
    ------
    InputError
        Names an image of the subset that cannot be decoded; then no row is written.
    DiskFull
        When a file cannot be written for lack of space; rows that are finished stay.
    """
    config, subset = plan.config, plan.subset
    width = subset.images.classifier_width
    needed = Counter(job.view for job in jobs)
    commonest = max(needed, key=needed.__getitem__)
    first = next(job for job in jobs if job.view == commonest)
    subset_ready = client.submit(prepare_subset, first, config, subset, pure=False)
    views: dict[Path, Future] = {}

    def submit(job: Job) -> Future:
        if job.view not in views:
            views[job.view] = client.submit(prepare_view, job, config, subset, subset_ready, pure=False)
        weights = client.submit(prepare_weights, job, config, pure=False)
        return client.submit(compute_row, job, config, subset.digest, width, views[job.view], weights, pure=False)

    def fail(job: Job, error: BaseException) -> Done:
        if subset_ready.status == "error":  # without its images no entry can be computed
            raise subset_ready.exception()
        return failed_row(job, config, subset.digest, error)

    view_of = {job.slug: job.view for job in jobs}
    for done in _through_window(client, jobs, submit, fail, until):
        view = view_of[done.slug]
        needed[view] -= 1
        if not needed[view]:
            views.pop(view).release()
            drop_oldest_views(config.compute.cache, config.compute.cache_gb, keep={v for v in needed if needed[v]})
        yield done


def run_in_waves(client: Client, plan: Plan, waves: Sequence[Sequence[Job]]) -> Iterator[Done]:
    """Compute the rows of one wave after the other; a wave's weights are evicted once all of its rows are on disk."""
    for wave in waves:
        yield from run_entries(client, plan, wave)
        evict(wave, plan.config.compute.cache)


def remeasure_entries(client: Client, config: RunConfig, jobs: Sequence[RemeasureJob]) -> Iterator[Done]:
    """Measure kept embeddings anew; each row is on disk before it is reported here."""

    def submit(job: RemeasureJob) -> Future:
        return client.submit(remeasure_row, job, config, pure=False)

    def fail(job: RemeasureJob, error: BaseException) -> Done:
        return failed_row(job, config, "", error)

    yield from _through_window(client, jobs, submit, fail)


def compute_each(client: Client, jobs: Sequence[AnyJob], compute: Callable[[AnyJob], Done]) -> Iterator[Done]:
    """Run ``compute`` on each job; what one of them raises ends it all, and files that are finished stay."""

    def submit(job: AnyJob) -> Future:
        return client.submit(compute, job, pure=False)

    def fail(job: AnyJob, error: BaseException) -> Done:
        raise error

    yield from _through_window(client, jobs, submit, fail)


def _through_window(
    client: Client,
    jobs: Sequence[AnyJob],
    submit: Callable[[AnyJob], Future],
    fail: Callable[[AnyJob, BaseException], Done],
    until: float = math.inf,
) -> Iterator[Done]:
    """Submit the longest jobs first, two for each worker thread at a time; only one if there is a limit of time.

    A worker that dies takes at most its own few tasks along, and the scheduler never holds the whole zoo.
    """
    unlimited = until == math.inf
    waiting = iter(sorted(jobs, key=lambda job: job.order) if unlimited else jobs)
    running: dict[Future, AnyJob] = {}
    finished = as_completed()
    begun = False  # late or not, one entry has its turn

    def hand_out() -> None:
        nonlocal begun
        late, begun = begun and monotonic() > until, True
        if not late and (job := next(waiting, None)) is not None:
            future = submit(job)
            running[future] = job
            finished.add(future)

    for _ in range((2 if unlimited else 1) * sum(client.nthreads().values())):
        hand_out()
    for future in finished:
        job = running.pop(future)
        if future.status == "finished":
            done = future.result()
        elif future.status == "error" and isinstance(future.exception(), DiskFull):
            raise future.exception()
        elif future.status == "error":
            done = fail(job, future.exception())
        else:
            raise ConnectionError(f"the Dask scheduler lost the task of {job.name}; the same command goes on from here")
        del future
        hand_out()
        yield done
