"""Preloaded by Dask's nannies in a job: each gives its worker process a GPU of the job, and an address to listen at."""

import itertools
from typing import Any

from ..machine import visible_gpus

# The nannies of a job are objects of one process.
_PROCESSES = itertools.count()


def dask_setup(nanny: Any) -> None:
    """Called by Dask for each nanny, before its worker process starts."""
    gpus = visible_gpus()
    if gpus:
        nanny.env["CUDA_VISIBLE_DEVICES"] = gpus[next(_PROCESSES) % len(gpus)]
    if nanny.worker_kwargs["interface"] is None:
        # The nanny has found the address from which it reaches the scheduler; a worker would listen at every one.
        nanny.worker_kwargs["host"] = nanny.ip
