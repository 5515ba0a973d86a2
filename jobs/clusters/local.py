"""Workers on this machine: one-thread processes behind TLS on the loopback address, which other users share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import dask
from distributed import Client, LocalCluster
from distributed.deploy.cluster import Cluster

from dsmi_zoo._util import forkserver
from dsmi_zoo._util.processes import environment_with, sigint_blocked
from dsmi_zoo.pipeline.config.preloaded import MODELS
from dsmi_zoo.pipeline.config.run import ComputeSettings

from .machine import (
    blas_threads,
    default_workers,
    usable_cores,
    visible_gpus,
)

log = logging.getLogger(__name__)

SCHEDULING = {
    "distributed.scheduler.allowed-failures": 10_000,  # OUT counts the attempts
    "distributed.scheduler.worker-saturation": 1.0,
    # A row goes to a worker that holds its weights' path; stealing takes it to one that has nothing to do.
    "distributed.scheduler.work-stealing": True,
    "distributed.admin.low-level-log-length": 1000,  # the driver's memory does not grow with the zoo
    # The dashboard's profiler: a hundred samples a second of deep stacks took a fifth of a small model's time.
    "distributed.worker.profile.interval": "200ms",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

# Of all workers, as Dask's nannies have it; the server that they fork from starts before a nanny says so.
HASH_SEED = {"PYTHONHASHSEED": "6640"}


class LostWorkersComeBack:
    """Part of a Dask cluster: a lost worker has a successor, from its nanny or from Slurm.

    Dask would close the worker's place after a while, and stumbles if several end at once.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Called by Dask when workers come or one goes."""
        with suppress(KeyError):  # already gone
            Cluster._update_worker_status(cast(Cluster, self), op, msg)


class LocalWorkers(LostWorkersComeBack, LocalCluster):
    """Worker processes of this machine."""


@contextmanager
def local_cluster(
    settings: ComputeSettings, out: Path, modules: tuple[str, ...] = MODELS
) -> Iterator[Client]:
    """One worker a core (fewer when memory is short), the cores shared out among them for BLAS and torch.

    They see no GPU: several processes would use one at the same time.
    """
    workers = settings.workers or default_workers(usable_cores())
    if visible_gpus():
        log.info("GPUs are not used: --cluster auto or cuda would")
    with (
        environment_with({"CUDA_VISIBLE_DEVICES": ""}),
        on_this_machine(settings, workers, modules),
        processes_here(settings, n_workers=workers) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def on_this_machine(
    settings: ComputeSettings, workers: int, modules: tuple[str, ...]
) -> Iterator[None]:
    """Dask's settings for ``workers`` processes here, which need ``modules``.

    Besides `SCHEDULING`, these are how processes start, and threads for BLAS before a process loads it. Dask puts the
    threads into the environment of this process and leaves them there, where the next cluster would find them.
    """
    threads = blas_threads(workers)
    with environment_with(threads | HASH_SEED):
        forks = settings.start_method == "fork" and forkserver.start(modules)
        of_dask = {
            "distributed.nanny.pre-spawn-environ": threads,
            "distributed.worker.multiprocessing-method": forkserver.METHOD if forks else "spawn",
            **SCHEDULING,
        }
        with dask.config.set(of_dask):
            yield


def processes_here(settings: ComputeSettings, **workers: object) -> LocalCluster:
    """A scheduler and workers on this machine, one thread each, that let in nobody without credentials."""
    with sigint_blocked():
        return LocalWorkers(
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=True,
            dashboard_address="127.0.0.1:0",
            memory_limit=int(settings.worker_memory or 0),
            silence_logs=logging.CRITICAL,
            **workers,
        )
