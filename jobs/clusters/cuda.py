"""A worker for each GPU of this machine, which sees that one alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security

from ...data_catalog.errors import InputError
from ...pipeline.config import ComputeSettings
from .local import on_this_machine
from .machine import deaf_to_interrupts, visible_gpus


@contextmanager
def cuda_cluster(settings: ComputeSettings, out: Path) -> Iterator[Client]:
    """One one-thread worker a visible GPU, or the first ``workers`` of them.

    Raises
    ------
    InputError
        When there is no GPU, or fewer than ``workers``.
    """
    gpus = visible_gpus()
    if not gpus:
        raise InputError(
            "--cluster cuda: no GPU is visible (nvidia-smi -L, CUDA_VISIBLE_DEVICES); --cluster local uses CPUs"
        )
    if settings.workers is not None and settings.workers > len(gpus):
        raise InputError(f"--workers {settings.workers}: only {len(gpus)} GPUs are visible")
    gpus = gpus[: settings.workers]
    security = Security.temporary()
    common = {"protocol": "tls://", "host": "127.0.0.1", "security": security}
    workers = {
        f"gpu-{number}": {
            "cls": Nanny,
            "options": {
                **common,
                "nthreads": 1,
                "silence_logs": logging.CRITICAL,
                "memory_limit": int(settings.worker_memory or 0),
                "env": {"CUDA_VISIBLE_DEVICES": gpu},
            },
        }
        for number, gpu in enumerate(gpus)
    }
    scheduler = {"cls": Scheduler, "options": {**common, "dashboard_address": "127.0.0.1:0"}}
    with on_this_machine(len(gpus)):
        with deaf_to_interrupts():
            cluster = SpecCluster(scheduler=scheduler, workers=workers, security=security, silence_logs="critical")
        with cluster, Client(cluster) as client:
            yield client
