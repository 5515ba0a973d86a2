"""The workers of a Dask client, one task each at a time."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Future, KilledWorker, WorkerPlugin

from ...pipeline.graph import WorkersLost
from ..progress import counted

log = logging.getLogger(__name__)

SILENT_FOR_S = 30.0
NO_HEARTBEAT_S = 240.0  # Dask itself drops a worker after 300 s, and leaves the process as it is: suspended, for ever
LOOK_AFTER_HEARTBEATS_S = 10.0


@contextmanager
def without_dasks_own_words() -> Iterator[None]:
    """For the while, what Dask's client would log of lost connections is not said: our own messages tell it."""
    loggers = [logging.getLogger(name) for name in ("distributed.client", "distributed.core")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Details(WorkerPlugin):
    """Lets a worker, also one that comes later, log what is below INFO."""

    def setup(self, worker: Any) -> None:
        """Called by Dask when a worker starts."""
        logging.getLogger("dsmi_zoo").setLevel(logging.DEBUG)


def forward_log(client: Client) -> None:
    """Have the workers' log handled by the loggers of this process: warnings, and details if they are wanted."""
    if log.isEnabledFor(logging.DEBUG):
        client.register_plugin(_Details(), name="dsmi-zoo-details")
    client.forward_logging("dsmi_zoo", level=logging.DEBUG)


def _kill_worker(dask_worker: Any) -> None:
    """Called in the nanny of a worker, by Dask, with that nanny."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)


class DaskWorkers:
    """`dsmi_zoo.pipeline.graph.Workers` on a Dask client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._address = client.scheduler_info()["address"]
        self._heard = time.monotonic()
        self._silence: dict[str, tuple[float, float]] = {}  # of each worker: its last heartbeat, and seconds since
        self._looked = time.monotonic()

    def count(self) -> int:
        """Worker processes, whatever their threads: a model that dies takes its whole process along."""
        try:
            if self.client.status == "running":
                workers = len(self.client.nthreads())
                self._heard = time.monotonic()
                if self._heard - self._looked > LOOK_AFTER_HEARTBEATS_S:
                    self._end_suspended()
                return workers
        except OSError:
            pass
        if self.client.status in ("closing", "closed") or time.monotonic() - self._heard > SILENT_FOR_S:
            raise self._gone()
        return 0

    def _gone(self) -> WorkersLost:
        return WorkersLost(
            f"the Dask scheduler at {self._address} is gone; finished rows are kept, and the same command goes on once "
            "there is one again"
        )

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Hand out a task; the scheduler gives it to a worker that is free."""
        return self.client.submit(function, *arguments, pure=False)

    def deaths(self, error: Exception) -> int:
        """A scheduler of ours reports each death; another one tries as often as it was told first."""
        if isinstance(error, CancelledError):
            raise self._gone()
        return 1 + error.allowed_failures if isinstance(error, KilledWorker) else 0

    def end(self, result: Any) -> None:
        """Kill the process that does a task; its nanny starts another."""
        with suppress(OSError):  # of a scheduler that is away: `count` says so when it stays away
            for address, keys in self.client.processing().items():
                if result.key in keys:
                    self._kill(address)

    def _end_suspended(self) -> None:
        """Kill workers whose heart has stopped: they and the tasks that they hold would be lost for good."""
        now = time.monotonic()
        gap = min(now - self._looked, 2 * LOOK_AFTER_HEARTBEATS_S)  # after a longer one, this process was suspended
        self._looked = now
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        before, self._silence = self._silence, {}
        for address, known in workers.items():
            beat, silent_s = before.get(address, (None, 0.0))
            is_silent = known["last_seen"] == beat
            self._silence[address] = (known["last_seen"], silent_s + gap if is_silent else 0.0)
            if silent_s <= NO_HEARTBEAT_S < self._silence[address][1]:
                log.warning(f"the worker at {address} has not been heard of for {NO_HEARTBEAT_S:.0f} s and is killed")
                self._kill(address)

    def _kill(self, address: str) -> None:
        """Have a worker's nanny kill it, without waiting: the nanny may be suspended too, or there may be none."""

        def ask() -> None:
            with suppress(OSError, ValueError):
                self.client.run(_kill_worker, workers=[address], nanny=True, on_error="ignore")

        threading.Thread(target=ask, daemon=True).start()

    def wait_for_the_first(self) -> None:
        """Wait until there is a worker, and say so while it takes long."""
        waited = 0
        while self.count() == 0:
            if waited in (2, 60) or (waited and waited % 600 == 0):
                log.info(f"waiting for the first worker at {self._address}")
            waited += 1
            time.sleep(1)

    def described(self) -> str:
        """How many there are, and where one can look on."""
        workers = counted(self.count(), "worker")
        return f"{workers} at {self._address}; Dask dashboard: {self.client.dashboard_link}"
