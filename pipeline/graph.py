"""All entries on a Dask client: subset, views, training and rows, with a bounded number of entries handed out ahead."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from distributed import Client, Future, as_completed

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
from pipeline.waves import evict

AnyJob = TypeVar("AnyJob", Job, RemeasureJob)


def run_entries(client: Client, plan: Plan, jobs: Sequence[Job]) -> Iterator[Done]:
    """Compute the rows of ``jobs``; each is on disk before it is reported here."""
    config, subset = plan.config, plan.subset
    subset_ready = client.submit(prepare_subset, config.folder, subset, config.subset.seed, pure=False)
    views: dict[str, Future] = {}

    def submit(job: Job) -> Future:
        view = views.get(str(job.view))
        if view is None:
            view = views[str(job.view)] = client.submit(prepare_view, job, subset, pure=False)
        weights = client.submit(prepare_weights, job, config, pure=False)
        return client.submit(compute_row, job, config, subset.digest, subset_ready, view, weights, pure=False)

    yield from _through_window(client, jobs, submit, config, subset.digest)


def run_in_waves(client: Client, plan: Plan, waves: Sequence[Sequence[Job]]) -> Iterator[Done]:
    """Compute the rows of one wave after the other; a wave's weights are evicted once all of its rows are on disk."""
    for wave in waves:
        yield from run_entries(client, plan, wave)
        evict(wave, plan.config.compute.cache)


def remeasure_entries(client: Client, config: RunConfig, jobs: Sequence[RemeasureJob]) -> Iterator[Done]:
    """Measure kept embeddings anew; each row is on disk before it is reported here."""

    def submit(job: RemeasureJob) -> Future:
        return client.submit(remeasure_row, job, config, pure=False)

    yield from _through_window(client, jobs, submit, config, "")


def _through_window(
    client: Client,
    jobs: Sequence[AnyJob],
    submit: Callable[[AnyJob], Future],
    config: RunConfig,
    subset_digest: str,
) -> Iterator[Done]:
    """Submit the longest jobs first, two for each worker thread at a time.

    A worker that dies takes at most its own few tasks along, and the scheduler never holds the whole zoo.
    """
    waiting = iter(sorted(jobs, key=lambda job: -job.cost))
    running: dict[Future, AnyJob] = {}
    finished = as_completed()

    def hand_out() -> None:
        if (job := next(waiting, None)) is not None:
            future = submit(job)
            running[future] = job
            finished.add(future)

    for _ in range(2 * sum(client.nthreads().values())):
        hand_out()
    for future in finished:
        job = running.pop(future)
        if future.status == "finished":
            done = future.result()
        elif future.status == "error":
            done = failed_row(job, config, subset_digest, future.exception())
        else:
            raise ConnectionError(f"the Dask scheduler lost the task of {job.name}; the same command goes on from here")
        del future
        hand_out()
        yield done
