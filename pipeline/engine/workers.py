"""The worker processes behind a Dask client: how many there are, and whether they are alive."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, count
from typing import Any

from distributed import Client

log = logging.getLogger(__name__)

LOST_AFTER_S = 30.0
ASK_EVERY_S = 0.2
NO_HEARTBEAT_S = 240.0  # Dask drops a worker after 300 s, but leaves its process suspended for ever
LOOK_AFTER_HEARTBEATS_S = 10.0
LOG_EMPTY_AFTER_S = (2.0, 60.0, 600.0)  # then every 10 minutes


class WorkersLost(OSError):
    """Raised when the workers are permanently lost; the message says why."""


class Workers:
    """The workers that a client reaches.

    Parameters
    ----------
    client
        Client of the workers' scheduler.
    empty_for_s
        Seconds after which a cluster without workers counts as lost.
    silent_for_s
        Seconds without a heartbeat after which a worker is killed; another one takes over its work.
    """

    def __init__(
        self, client: Client, empty_for_s: float = math.inf, silent_for_s: float = NO_HEARTBEAT_S
    ) -> None:
        self.client, self._silent_for_s = client, silent_for_s
        self._address = client.scheduler_info()["address"]
        self._heard = time.monotonic()
        # Each worker's last heartbeat, and the seconds since.
        self._silence: dict[str, tuple[float, float]] = {}
        self._looked = time.monotonic()
        self._empty_for_s = empty_for_s
        self._empty_since: float | None = None

    def count(self) -> int:
        """Count the worker processes, whatever their threads; call this about once a second.

        Raises
        ------
        WorkersLost
            When the scheduler is gone, or there have been no workers for too long.
        """
        workers = None
        if self.client.status == "running":  # else it is closed, or reconnects
            with suppress(OSError):  # the scheduler does not answer
                workers = len(self.client.nthreads())
                if time.monotonic() - self._looked > LOOK_AFTER_HEARTBEATS_S:
                    self._end_suspended()
        if workers is not None:
            self._heard = time.monotonic()
            self._check_empty(workers)
            return workers
        is_closed = self.client.status in ("closing", "closed")
        if is_closed or time.monotonic() - self._heard > LOST_AFTER_S:
            raise self.lost()
        return 0

    def where(self) -> str:
        """Return the scheduler's address and that of its dashboard, as text."""
        return f"at {self._address}; Dask dashboard: {self.client.dashboard_link}"

    def ask(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Call a function on a worker, as soon as there is one, and return its result."""
        answer = self.client.submit(function, *arguments, pure=False)
        while not answer.done():
            self.count()
            time.sleep(ASK_EVERY_S)
        return answer.result()

    def lost(self) -> WorkersLost:
        """Return the error for a scheduler that is unreachable, or has dropped the run's tasks."""
        return WorkersLost(
            f"the Dask scheduler at {self._address} is gone; finished rows are kept, and the same command goes on once "
            "there is one again (or it was restarted, or somebody has cancelled the tasks)"
        )

    def _check_empty(self, workers: int) -> None:
        """Log that there are no workers, and raise WorkersLost when there have been none for too long."""
        if workers:
            self._empty_since = None
            return
        now = time.monotonic()
        if self._empty_since is None:
            self._empty_since = now
            self._log_times = chain(LOG_EMPTY_AFTER_S, count(1200.0, 600.0))
            self._next_log_s = next(self._log_times)
        empty_s = now - self._empty_since
        if empty_s > self._empty_for_s:
            raise WorkersLost(
                f"no worker at {self._address} for {self._empty_for_s:.0f} s (--workers-within): see why they do not "
                "start; finished rows are kept, and the same command goes on from here"
            )
        if empty_s > self._next_log_s:
            self._next_log_s = next(self._log_times)
            log.info(f"waiting for workers at {self._address}")

    def _end_suspended(self) -> None:
        """Kill workers without a heartbeat: otherwise they and their tasks would be lost permanently."""
        now = time.monotonic()
        # A longer gap means that this process was suspended.
        gap = min(now - self._looked, 2 * LOOK_AFTER_HEARTBEATS_S)
        self._looked = now
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        before, self._silence = self._silence, {}
        for address, known in workers.items():
            beat, silent_s = before.get(address, (None, 0.0))
            is_silent = known["last_seen"] == beat
            self._silence[address] = (known["last_seen"], silent_s + gap if is_silent else 0.0)
            silent_now_s = self._silence[address][1]
            if silent_s <= self._silent_for_s < silent_now_s:
                log.warning(
                    f"the worker at {address} has not been heard of for {self._silent_for_s:.0f} s and is killed"
                )
                self._kill(address)

    def _kill(self, address: str) -> None:
        """Have a worker's nanny kill it, without waiting, because the nanny may be suspended or missing."""

        def ask() -> None:
            with suppress(OSError, ValueError):
                self.client.run(_kill_worker, workers=[address], nanny=True, on_error="ignore")

        threading.Thread(target=ask, daemon=True).start()


def _kill_worker(dask_worker: Any) -> None:
    """Kill the worker of a nanny; Dask calls this in the nanny, and passes it as ``dask_worker``."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)
