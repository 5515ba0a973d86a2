"""Workers on this machine: one-thread processes that listen on the loopback address only."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import psutil
from distributed import Client, LocalCluster

from pipeline.config import ComputeSettings

WORKER_MEMORY = 1.5 * 2**30  # torch, timm and a small model with room for its embedding
BLAS_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def local_cluster(settings: ComputeSettings) -> Iterator[Client]:
    """One worker a core (fewer when memory is short), the cores shared out among them for BLAS and torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_memory = int(psutil.virtual_memory().available / WORKER_MEMORY)
    workers = settings.workers or max(1, min(cores, by_memory))
    # Dask sets these to 1 unless told otherwise, and eigenvalues on one of many idle cores crawl.
    threads = dict.fromkeys(BLAS_THREADS, str(max(1, cores // workers)))
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": threads}),
        _started_deaf_to_interrupts(
            LocalCluster,
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _started_deaf_to_interrupts(start: Callable[..., LocalCluster], **arguments: Any) -> LocalCluster:
    """A terminal sends Ctrl-C to the workers too; the driver alone answers it, and stops them in order."""
    if threading.current_thread() is not threading.main_thread():
        return start(**arguments)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes that start now inherit it
    try:
        return start(**arguments)
    finally:
        signal.signal(signal.SIGINT, before)
