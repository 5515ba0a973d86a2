"""The worker processes behind a Dask client: how many there are, and whether they are alive."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed import Client

log = logging.getLogger(__name__)

GONE_AFTER_S = 30.0
ASK_EVERY_S = 0.2
NO_HEARTBEAT_S = 240.0  # Dask itself drops a worker after 300 s, and leaves the process as it is: suspended, for ever
LOOK_AFTER_HEARTBEATS_S = 10.0
TOLD_EMPTY_AFTER_S = (2.0, 60.0, 600.0)  # and every 10 minutes from then on


class WorkersLost(OSError):
    """The workers are gone for good, for the reason given."""


class Workers:
    """The workers that a client reaches.

    Parameters
    ----------
    client
        Of their scheduler.
    empty_for_s
        Seconds after which a cluster without workers counts as lost.
    silent_for_s
        Seconds without a heartbeat after which a worker is killed; another one takes over what it did.
    """

    def __init__(
        self, client: Client, empty_for_s: float = math.inf, silent_for_s: float = NO_HEARTBEAT_S
    ) -> None:
        self.client, self._silent_for_s = client, silent_for_s
        self._address = client.scheduler_info()["address"]
        self._heard = time.monotonic()
        # Of each worker: its last heartbeat, and seconds since.
        self._silence: dict[str, tuple[float, float]] = {}
        self._looked = time.monotonic()
        self._empty = _Emptiness(self._address, empty_for_s)

    def count(self) -> int:
        """Worker processes, whatever their threads; to be called about once a second.

        Raises
        ------
        WorkersLost
            When the scheduler is gone, or there have been no workers for too long.
        """
        workers = self._counted()
        if workers is not None:
            self._heard = time.monotonic()
            self._empty.look(workers)
        elif (
            self.client.status in ("closing", "closed")
            or time.monotonic() - self._heard > GONE_AFTER_S
        ):
            raise self.gone()
        return workers or 0

    def where(self) -> str:
        """Where they are, and where one can look on."""
        return f"at {self._address}; Dask dashboard: {self.client.dashboard_link}"

    def ask(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """What a worker answers, as soon as there is one."""
        answer = self.client.submit(function, *arguments, pure=False)
        while not answer.done():
            self.count()
            time.sleep(ASK_EVERY_S)
        return answer.result()

    def gone(self) -> WorkersLost:
        """What is said of a scheduler that cannot be reached any more, or has let go of the run's tasks."""
        return WorkersLost(
            f"the Dask scheduler at {self._address} is gone; finished rows are kept, and the same command goes on once "
            "there is one again (or it was restarted, or somebody has cancelled the tasks)"
        )

    def _counted(self) -> int | None:
        """None when the scheduler does not answer."""
        if self.client.status != "running":
            return None
        try:
            workers = len(self.client.nthreads())
            if time.monotonic() - self._looked > LOOK_AFTER_HEARTBEATS_S:
                self._end_suspended()
        except OSError:
            return None
        return workers

    def _end_suspended(self) -> None:
        """Kill workers whose heart has stopped: they and the tasks that they hold would be lost for good."""
        now = time.monotonic()
        # After a longer one, this process was suspended.
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
        """Have a worker's nanny kill it, without waiting: the nanny may be suspended too, or there may be none."""

        def ask() -> None:
            with suppress(OSError, ValueError):
                self.client.run(_kill_worker, workers=[address], nanny=True, on_error="ignore")

        threading.Thread(target=ask, daemon=True).start()


class _Emptiness:
    """Since when a cluster has had no workers, and what is said of it."""

    def __init__(self, address: str, at_most_s: float) -> None:
        self._address, self._at_most_s = address, at_most_s
        self._since: float | None = None
        self._told = 0

    def look(self, workers: int) -> None:
        """Take note of how many there are; raise WorkersLost when there have been none for too long."""
        if workers:
            self._since, self._told = None, 0
            return
        now = time.monotonic()
        self._since = self._since or now
        empty_s = now - self._since
        if empty_s > self._at_most_s:
            raise WorkersLost(
                f"no worker at {self._address} for {self._at_most_s:.0f} s (--workers-within): see why they do not "
                "start; finished rows are kept, and the same command goes on from here"
            )
        if empty_s > self._next_word_s():
            self._told += 1
            log.info(f"waiting for workers at {self._address}")

    def _next_word_s(self) -> float:
        further = max(0, self._told - len(TOLD_EMPTY_AFTER_S) + 1)
        return TOLD_EMPTY_AFTER_S[min(self._told, len(TOLD_EMPTY_AFTER_S) - 1)] + further * 600.0


def _kill_worker(dask_worker: Any) -> None:
    """Called in the nanny of a worker, by Dask, with that nanny."""
    if dask_worker.pid is not None:
        os.kill(dask_worker.pid, signal.SIGKILL)
