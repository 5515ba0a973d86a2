"""Dask's scheduler, workers and client in one process, on a clock that jumps from one event to the next.

Import this module before ``distributed``: it replaces the functions of ``time``, which Dask looks up on import.
Tasks are coroutines that sleep; an hour of sleep passes in the time that Dask needs for its decisions.
"""

import asyncio
import os
import selectors
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future as Outcome
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

_now_s = 1e6
_real_sleep = time.sleep


def now() -> float:
    """Return the seconds of the virtual clock."""
    return _now_s


time.time = time.monotonic = time.perf_counter = now  # type: ignore[assignment]

import dask  # noqa: E402
from distributed import Client, Scheduler, Worker  # noqa: E402
from distributed.client import Future  # noqa: E402
from tornado.ioloop import IOLoop  # noqa: E402

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.limit": "1000 days",
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.idle-timeout": None,
    "distributed.comm.timeouts.connect": "1000 days",
    "distributed.scheduler.dashboard.status.task-stream-length": 10,
}
# Added to the clock at every poll; without it, a timer shorter than the clock's resolution would never fire
ROUNDING_S = 1e-8
SETTLED_AFTER = 20  # idle polls of a millisecond each; after them, the loop waits for a short timer
SHORT_S = 0.002


class ReaderAwareQueue(SimpleQueue):  # type: ignore[type-arg]
    """A queue that knows whether its one reader waits; the reader waits forever, whatever the timeout."""

    def __init__(self) -> None:
        self._put, self._dealt_with = 0, -1

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next item; a call means that the previous one has been processed."""
        self._dealt_with += 1
        return super().get()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item."""
        self._put += 1
        super().put(item)

    def is_waited_for(self) -> bool:
        """Return whether the reader has processed all items and waits for more."""
        return self._put == self._dealt_with


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector that sets the clock to the loop's next timer instead of waiting, once the queue's reader waits too."""

    def __init__(self, queue: ReaderAwareQueue) -> None:
        super().__init__()
        self._queue, self._looks = queue, 0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return events; if there are none and nothing else to do, make the clock jump."""
        global _now_s
        _now_s += ROUNDING_S
        nobody_works = self._queue.is_waited_for()
        events = super().select(0)
        if events or timeout == 0:
            self._looks = 0
            return events
        self._looks += 1
        if timeout is not None and nobody_works:
            _now_s += max(timeout, 1e-6)
            return []
        if timeout is not None and self._looks > SETTLED_AFTER:
            _now_s += min(timeout, SHORT_S)
            self._looks = 0
            return []
        _real_sleep(0.001 if self._looks > 2 else 0)
        return super().select(0)


class _ImmediateExecutor:
    """An executor that calls immediately."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Outcome[Any]:
        """Call the function now."""
        outcome: Outcome[Any] = Outcome()
        outcome.set_result(function(*arguments))
        return outcome


async def _in_the_loop(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call the function in the loop; Dask calls it in a thread, during which the clock would jump."""
    return function(*arguments, **named)


for _module in [module for name, module in sys.modules.items() if name.startswith("distributed")]:
    if hasattr(_module, "offload"):
        _module.offload = _in_the_loop  # type: ignore[attr-defined]


def with_cluster(
    workers: int, drive: Callable[[Client, ReaderAwareQueue], Any], settings: Mapping[str, Any]
) -> Any:
    """Call ``drive`` in a thread with a client of ``workers`` single-threaded workers, and return its result.

    Workers are named 0, 1, ...; ``drive`` may wait only for the queue. ``settings`` are Dask's.
    """
    queue = ReaderAwareQueue()
    loop = asyncio.SelectorEventLoop(_JumpingSelector(queue))
    Future._cb_executor, Future._cb_executor_pid = _ImmediateExecutor(), os.getpid()
    asyncio.set_event_loop(loop)
    with (
        TemporaryDirectory() as own,
        dask.config.set({"temporary-directory": own} | QUIET | dict(settings)),
    ):
        return loop.run_until_complete(_with_cluster(workers, drive, queue))


async def _with_cluster(
    workers: int, drive: Callable[[Client, ReaderAwareQueue], Any], queue: ReaderAwareQueue
) -> Any:
    scheduler = await Scheduler(protocol="inproc", dashboard=False, dashboard_address="127.0.0.1:0")
    there = [
        Worker(scheduler.address, nthreads=1, name=number, memory_limit=0, dashboard=False)
        for number in range(workers)
    ]
    await asyncio.gather(*there)
    for server in (scheduler, *there):
        for name, callback in server.periodic_callbacks.items():
            if name != "stealing":
                callback.stop()  # heartbeats of hundreds of workers: millions of events
    io_loop = IOLoop.current()

    def in_its_thread() -> Any:
        with Client(scheduler.address, loop=io_loop, set_as_default=False) as client:
            return drive(client, queue)

    answer = await asyncio.get_running_loop().run_in_executor(None, in_its_thread)
    await asyncio.gather(*(worker.close(nanny=False) for worker in there))
    await scheduler.close()
    return answer
