"""Preloaded by Dask's workers in a job: before its end they begin no more tasks, finish theirs, and leave.

Dask's ``--lifetime`` counts from the start of a process, which may not be the job's first, and waits for no task.
"""

import asyncio
import os
import time
from typing import Any

from distributed.core import Status

RETIRES_AT = "DSMI_ZOO_RETIRES_AT"
LOOK_EVERY_S = 0.5


async def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker starts; the environment says when it retires, in seconds since 1970."""
    retires_at = os.environ.get(RETIRES_AT)
    if retires_at is not None:
        worker.retiring = asyncio.create_task(_retire(worker, float(retires_at)))


async def _retire(worker: Any, at: float) -> None:
    await asyncio.sleep(at - time.time())
    while worker.status != Status.running:  # it has only just started
        await asyncio.sleep(LOOK_EVERY_S)
    worker.status = Status.paused  # gets and begins no further task
    while worker.state.executing:
        await asyncio.sleep(LOOK_EVERY_S)
    await worker.close_gracefully(reason="its job will end soon")
