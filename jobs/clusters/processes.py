"""Worker processes without Dask, for a share of a run in a batch job of its own."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import Any, Self

from ...pipeline.config import ComputeSettings
from ..progress import counted
from .machine import blas_threads, deaf_to_interrupts, default_workers, environment_with, usable_cores, visible_gpus


class Processes:
    """`dsmi_zoo.pipeline.graph.Workers` on this machine: one a visible GPU, else one a core; a context manager.

    Each is a pool of its own, so that one which dies takes no other along.
    """

    def __init__(self, settings: ComputeSettings) -> None:
        self._gpus = visible_gpus()
        self._size = settings.workers or len(self._gpus) or default_workers(usable_cores())
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._futures: dict[int, Future[Any]] = {}  # by the place of the process that is busy with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in active_children():
            process.terminate()
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def count(self) -> int:
        """As many as were asked for; a dead one has a successor at its next task."""
        return self._size

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run a task in a process that is free."""
        place = min(set(range(self._size)) - set(self._futures))
        with deaf_to_interrupts(), environment_with(self._of(place)):
            if place not in self._pools:
                self._pools[place] = ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent)
            future = self._pools[place].submit(function, *arguments)
        self._futures[place] = future
        future.add_done_callback(lambda done: self._free(place, done))
        return future

    def deaths(self, error: Exception) -> int:
        """1 for a process that died."""
        return int(isinstance(error, BrokenProcessPool))

    def end(self, result: Any) -> None:
        """Kill the process that does a task."""
        for place, future in self._futures.items():
            if future is result:
                for process in self._pools[place]._processes.values():
                    process.kill()

    def described(self) -> str:
        """How many, and on what."""
        kind = f"{counted(min(self._size, len(self._gpus)), 'GPU')}" if self._gpus else "CPU"
        return f"{counted(self._size, 'worker')} on {kind}"

    def _free(self, place: int, done: Future[Any]) -> None:
        if not done.cancelled() and isinstance(done.exception(), BrokenProcessPool):
            self._pools.pop(place).shutdown(wait=False)
        self._futures.pop(place, None)

    def _of(self, place: int) -> dict[str, str]:
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[place % len(self._gpus)]} if self._gpus else {}
        return blas_threads(self._size) | gpu


def _end_with_parent() -> None:
    """A driver that is killed cannot stop its processes; they look themselves."""
    parent = parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
