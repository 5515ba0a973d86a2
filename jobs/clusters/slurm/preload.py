"""Dask's preload in a Slurm job: nannies assign GPUs and addresses; workers retire before the job ends.

Dask's ``--lifetime`` counts from the start of a process, which may not be the job's first, and waits for no task.
"""

import asyncio
import itertools
import os
import time
from typing import Any

from distributed import Nanny
from distributed.core import Status

from ..machine import visible_gpus

RETIRES_AT = "DSMI_ZOO_RETIRES_AT"
LOOK_EVERY_S = 0.5
# All nannies of a job are objects of one process.
_PROCESSES = itertools.count()


async def dask_setup(server: Any) -> None:
    """Prepare a nanny, before its worker process starts, or a worker; called by Dask."""
    if isinstance(server, Nanny):
        _assign(server)
        return
    retires_at = os.environ.get(RETIRES_AT)  # seconds since 1970
    if retires_at is not None:
        server.retiring = asyncio.create_task(_retire(server, float(retires_at)))


def _assign(nanny: Any) -> None:
    """Give a worker process one GPU of the job, and an address to listen at."""
    gpus = visible_gpus()
    if gpus:
        nanny.env["CUDA_VISIBLE_DEVICES"] = gpus[next(_PROCESSES) % len(gpus)]
    if nanny.worker_kwargs["interface"] is None:
        # By default a worker listens at every address; the nanny knows the one from which it reaches the scheduler.
        nanny.worker_kwargs["host"] = nanny.ip


async def _retire(worker: Any, at: float) -> None:
    """Wait until ``at``, begin no more tasks, finish the running ones, and leave."""
    await asyncio.sleep(at - time.time())
    while worker.status != Status.running:  # it may have only just started
        await asyncio.sleep(LOOK_EVERY_S)
    worker.status = Status.paused
    while worker.state.executing:
        await asyncio.sleep(LOOK_EVERY_S)
    await worker.close_gracefully(reason="its job will end soon")
