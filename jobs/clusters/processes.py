"""Worker processes without Dask, for a share of a run in a batch job of its own."""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process
from typing import Any, Self

import psutil

from ...pipeline.config import ComputeSettings
from ..progress import counted
from .machine import blas_threads, deaf_to_interrupts, default_workers, environment_with, usable_cores, visible_gpus

log = logging.getLogger(__name__)

SUSPENDED_FOR_S = 240.0


class Processes:
    """`dsmi_zoo.pipeline.graph.Workers` on this machine: one a visible GPU, else one a core; a context manager.

    Each is a pool of its own, so that one which dies takes no other along.
    """

    def __init__(self, settings: ComputeSettings) -> None:
        self._gpus = visible_gpus()
        self._size = settings.workers or len(self._gpus) or default_workers(usable_cores())
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._suspended: dict[int, float] = {}  # since when, by process
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
        self._end_suspended()
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
        for place, future in list(self._futures.items()):
            if future is result:
                self._kill(place)

    def _kill(self, place: int) -> None:
        pool = self._pools.get(place)  # one that has just died is gone already
        for process in list((pool._processes or {}).values()) if pool is not None else ():
            process.kill()

    def _end_suspended(self) -> None:
        """Kill processes that have been suspended for long; nobody else would notice."""
        now = time.monotonic()
        suspended = {child.pid for child in psutil.Process().children() if _is_suspended(child)}
        self._suspended = {pid: self._suspended.get(pid, now) for pid in suspended}
        for pid, since in self._suspended.items():
            if now - since > SUSPENDED_FOR_S:
                log.warning(f"process {pid} has been suspended for {SUSPENDED_FOR_S:.0f} s; starting another")
                with suppress(psutil.Error):
                    psutil.Process(pid).kill()

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


def _is_suspended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _end_with_parent() -> None:
    """A driver that is killed cannot stop its processes; they look themselves."""
    parent = parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
