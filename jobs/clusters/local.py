"""Workers on this machine: one-thread processes behind TLS on the loopback address, which other users share."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import dask
import psutil
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.deploy.cluster import Cluster
from distributed.security import Security

from dsmi_zoo._util import forkserver
from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.forkserver import environment_with, sigint_blocked
from dsmi_zoo.pipeline.config.compute import MODELS, ComputeSettings
from dsmi_zoo.pipeline.engine.workers import WorkersLost

from .machine import (
    blas_threads,
    chosen_gpus,
    default_per_gpu,
    default_workers,
    usable_cores,
    visible_gpus,
)

log = logging.getLogger(__name__)

SCHEDULING = {
    "distributed.scheduler.allowed-failures": 10_000,  # attempts are counted in OUT
    "distributed.scheduler.worker-saturation": 1.0,
    # A row's task goes to the worker that holds its weights' path; stealing moves it to an idle one.
    "distributed.scheduler.work-stealing": True,
    "distributed.admin.low-level-log-length": 1000,  # keeps the driver's memory independent of the zoo
    # The dashboard's profiler took a fifth of a small model's time at its default of 100 samples per second.
    "distributed.worker.profile.interval": "200ms",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

START_TRIES = 3

# Dask's nannies set this for their workers, but the server that workers fork from starts before any nanny.
HASH_SEED = {"PYTHONHASHSEED": "6640"}


class LostWorkersComeBack:
    """Mixin for a Dask cluster whose lost workers are replaced, by their nanny or by Slurm.

    Dask would remove the worker's place after a while, and fails if several workers end at once.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Update the workers when some arrive or one leaves; Dask calls this."""
        with suppress(KeyError):  # the worker left already
            Cluster._update_worker_status(cast(Cluster, self), op, msg)


class LocalCluster(LostWorkersComeBack, SpecCluster):
    """Worker processes on this machine."""


@contextmanager
def local_cluster(settings: ComputeSettings, modules: tuple[str, ...] = MODELS) -> Iterator[Client]:
    """Start one worker per core (fewer when memory is short); they share the cores for BLAS and torch.

    Workers see no GPU, because several processes would use it at the same time.
    """
    workers = settings.workers or default_workers(usable_cores())
    if visible_gpus():
        log.info("GPUs are not used: --cluster auto or cuda would")
    names = [f"cpu-{number}" for number in range(workers)]
    with local_processes(settings, dict.fromkeys(names, ""), modules) as client:
        yield client


@contextmanager
def cuda_cluster(settings: ComputeSettings, modules: tuple[str, ...] = MODELS) -> Iterator[Client]:
    """Start ``per_gpu`` workers for each visible GPU, or for the first ``workers`` GPUs; each worker sees one GPU.

    Raises
    ------
    InputError
        When there is no GPU, or fewer than ``workers``.
    """
    gpus = chosen_gpus(settings.workers)
    per_gpu = settings.per_gpu or default_per_gpu(
        usable_cores(), len(gpus), psutil.virtual_memory().available
    )
    gpu_of = {
        f"gpu-{number}-{process}": gpu
        for process in range(per_gpu)
        for number, gpu in enumerate(gpus)
    }
    with local_processes(settings, gpu_of, modules) as client:
        yield client


@contextmanager
def local_processes(
    settings: ComputeSettings, gpu_of: Mapping[str, str], modules: tuple[str, ...]
) -> Iterator[Client]:
    """Start a scheduler and workers on this machine, one thread each, that accept no client without credentials.

    Parameters
    ----------
    gpu_of
        The value of ``CUDA_VISIBLE_DEVICES`` for each worker, by the worker's name.
    modules
        The modules that workers import before they start.
    """
    security = Security.temporary()
    common = {"protocol": "tls://", "host": "127.0.0.1", "security": security}
    options = {
        **common,
        "nthreads": 1,
        "silence_logs": logging.CRITICAL,
        "memory_limit": int(settings.worker_memory or 0),
    }

    def worker(gpu: str) -> dict[str, Any]:
        return {"cls": Nanny, "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpu}}}

    scheduler = {"cls": Scheduler, "options": {**common, "dashboard_address": "127.0.0.1:0"}}

    def start() -> LocalCluster:
        return LocalCluster(
            workers={name: worker(gpu) for name, gpu in gpu_of.items()},
            worker=worker(""),  # for workers that `adapt` or `scale` would add
            scheduler=scheduler,
            security=security,
            silence_logs="critical",
        )

    _refuse_full_shared_memory()  # before the imports of the server that workers fork from, which take seconds
    with on_this_machine(settings, max(1, len(gpu_of)), modules):
        with sigint_blocked():
            cluster = _started(start)
        with cluster, Client(cluster) as client:
            yield client


def _started(start: Callable[[], LocalCluster]) -> LocalCluster:
    """Start a cluster; retry if a worker or its fork server was killed while starting."""
    for _ in range(START_TRIES):
        try:
            return start()
        except RuntimeError as error:  # Dask's; it has closed the cluster
            problem = error
            log.debug(f"the workers did not start: {error}")
    raise WorkersLost(f"no worker could be started on this machine: {problem.__cause__ or problem}")


@contextmanager
def on_this_machine(
    settings: ComputeSettings, workers: int, modules: tuple[str, ...]
) -> Iterator[None]:
    """Configure Dask for ``workers`` processes on this machine that import ``modules``.

    Besides `SCHEDULING`, this sets how processes start, and the number of BLAS threads before a process loads BLAS.
    Dask leaves these variables in this process's environment, where the next cluster would find them.
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


def _refuse_full_shared_memory() -> None:
    """Raise InputError if no semaphore can be created: Dask hides this error when its processes raise it."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        raise InputError(
            f"/dev/shm: {error.strerror}; processes keep their semaphores there, so make room"
        ) from None
