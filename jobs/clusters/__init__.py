"""Kinds of cluster: each module opens a Dask client and closes what it started; or processes, without Dask."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.config import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client

    from ...pipeline.graph import Workers
    from .dask_workers import DaskWorkers

log = logging.getLogger(__name__)


@contextmanager
def open_workers(settings: ComputeSettings, out: Path, client: "Client | None" = None) -> "Iterator[Workers]":
    """Those of a given client, or that the settings name; with ``share``, processes of this one's own, without Dask."""
    if settings.share is not None:
        from .processes import Processes

        with Processes(settings) as processes:
            log.info(f"share {settings.share}: {processes.described()}, without Dask")
            yield processes
        return
    with open_cluster(settings, out, client) as workers:
        yield workers


@contextmanager
def open_cluster(settings: ComputeSettings, out: Path, given: "Client | None" = None) -> "Iterator[DaskWorkers]":
    """Workers of a given client, or of the kind of cluster that the settings name, once the first one is there."""
    from .dask_workers import DaskWorkers, forward_log, without_dasks_own_words

    if given is not None:
        from .existing import refuse_unfit

        refuse_unfit(given, "client", out)
        yield DaskWorkers(given)
        return
    open_client = _kind(settings.cluster)
    with without_dasks_own_words(), open_client(settings, out) as client:
        forward_log(client)
        workers = DaskWorkers(client)
        workers.wait_for_the_first()
        log.info(workers.described())
        yield workers


def _kind(cluster: str) -> "Callable[..., AbstractContextManager]":
    if cluster == "local":
        from .local import local_cluster

        return local_cluster
    if cluster == "cuda":
        from .cuda import cuda_cluster

        return cuda_cluster
    if cluster == "slurm":
        from .slurm import slurm_cluster

        return slurm_cluster
    from .existing import existing_scheduler

    return existing_scheduler
