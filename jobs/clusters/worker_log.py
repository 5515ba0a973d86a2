"""What Dask's processes log: workers' lines of ours are shown here, Dask's own of lost connections are not."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, WorkerPlugin

log = logging.getLogger(__name__)

OURS = "dsmi_zoo"
DETAILS = "dsmi-zoo-details"


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
        self._before = logging.getLogger(OURS).level
        logging.getLogger(OURS).setLevel(logging.DEBUG)

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the plugin is taken out."""
        logging.getLogger(OURS).setLevel(self._before)


@contextmanager
def forwarded_log(client: Client) -> Iterator[None]:
    """For the while, the loggers of this process handle the workers' log: warnings, and details if they are wanted."""
    has_details = log.isEnabledFor(logging.DEBUG)
    if has_details:
        client.register_plugin(_Details(), name=DETAILS)
    client.forward_logging(OURS, level=logging.DEBUG)
    try:
        yield
    finally:
        with suppress(Exception):  # of a scheduler that is gone
            client.unforward_logging(OURS)
            if has_details:
                client.unregister_worker_plugin(DETAILS)
