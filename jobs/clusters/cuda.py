"""Workers for the GPUs of this machine, several processes for each, which take turns on it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security

from dsmi_zoo._util.processes import sigint_blocked
from dsmi_zoo.pipeline.config.preloaded import MODELS
from dsmi_zoo.pipeline.config.run import ComputeSettings

from .local import LostWorkersComeBack, on_this_machine
from .machine import chosen_gpus, default_per_gpu, usable_cores


class GpuWorkers(LostWorkersComeBack, SpecCluster):
    """Worker processes of this machine's GPUs."""


@contextmanager
def cuda_cluster(
    settings: ComputeSettings, out: Path, modules: tuple[str, ...] = MODELS
) -> Iterator[Client]:
    """``per_gpu`` one-thread workers for each visible GPU, or for the first ``workers`` of them; each sees one GPU.

    Raises
    ------
    InputError
        When there is no GPU, or fewer than ``workers``.
    """
    gpus = chosen_gpus(settings.workers)
    per_gpu = settings.per_gpu or default_per_gpu(
        usable_cores(), len(gpus), psutil.virtual_memory().available
    )
    security = Security.temporary()
    common = {"protocol": "tls://", "host": "127.0.0.1", "security": security}
    options = {
        **common,
        "nthreads": 1,
        "silence_logs": logging.CRITICAL,
        "memory_limit": int(settings.worker_memory or 0),
    }
    workers = {
        f"gpu-{number}-{process}": {
            "cls": Nanny,
            "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpu}},
        }
        for process in range(per_gpu)
        for number, gpu in enumerate(gpus)
    }
    scheduler = {"cls": Scheduler, "options": {**common, "dashboard_address": "127.0.0.1:0"}}
    with on_this_machine(settings, len(workers), modules):
        with sigint_blocked():
            cluster = GpuWorkers(
                scheduler=scheduler, workers=workers, security=security, silence_logs="critical"
            )
        with cluster, Client(cluster) as client:
            yield client
