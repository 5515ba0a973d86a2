"""The workers of a Dask client, one task each at a time."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future, KilledWorker, WorkerPlugin

from ...pipeline.graph import WorkersLost
from ..progress import counted

log = logging.getLogger(__name__)

SILENT_FOR_S = 30.0


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


def tell_details(client: Client) -> None:
    """Have the workers' log, details too, handled by the loggers of this process."""
    client.register_plugin(_Details(), name="dsmi-zoo-details")
    client.forward_logging("dsmi_zoo", level=logging.DEBUG)


class DaskWorkers:
    """`dsmi_zoo.pipeline.graph.Workers` on a Dask client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._address = client.scheduler_info()["address"]
        self._heard = time.monotonic()

    def count(self) -> int:
        """Worker processes, whatever their threads: a model that dies takes its whole process along."""
        try:
            if self.client.status == "running":
                workers = len(self.client.nthreads())
                self._heard = time.monotonic()
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
