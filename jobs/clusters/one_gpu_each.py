"""Preloaded by Dask's nannies in a job with GPUs: each worker process sees one of them alone."""

import itertools
from typing import Any

from .machine import visible_gpus

# The nannies of a job are objects of one process.
_PROCESSES = itertools.count()


def dask_setup(nanny: Any) -> None:
    """Called by Dask for each nanny, before its worker process starts: give it the next of the GPUs, in turn."""
    gpus = visible_gpus()
    if gpus:
        nanny.env["CUDA_VISIBLE_DEVICES"] = gpus[next(_PROCESSES) % len(gpus)]
