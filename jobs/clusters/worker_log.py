"""The messages from the logs of Dask and its workers that the command shows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, WorkerPlugin

log = logging.getLogger(__name__)

OURS = "dsmi_zoo"
DETAILS = "dsmi-zoo-details"


@contextmanager
def without_connection_messages() -> Iterator[None]:
    """Silence Dask's connection-lost messages, because ours say the same."""
    loggers = [logging.getLogger(name) for name in ("distributed.client", "distributed.core")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def without_routine_messages() -> Iterator[None]:
    """Silence what Dask logs at INFO, such as each worker's address, even where the caller logs all at INFO."""
    logger = logging.getLogger("distributed")
    level = logger.level
    try:
        logger.setLevel(max(level, logging.WARNING))
        yield
    finally:
        logger.setLevel(level)


class _Details(WorkerPlugin):
    """A plugin that makes each worker, including those that start later, log at level DEBUG."""

    def setup(self, worker: Any) -> None:
        self._before = logging.getLogger(OURS).level
        logging.getLogger(OURS).setLevel(logging.DEBUG)

    def teardown(self, worker: Any) -> None:
        logging.getLogger(OURS).setLevel(self._before)


@contextmanager
def forwarded_log(client: Client) -> Iterator[None]:
    """Forward the workers' log to this process: warnings, and details if this process logs them."""
    has_details = log.isEnabledFor(logging.DEBUG)
    if has_details:
        client.register_plugin(_Details(), name=DETAILS)
    client.forward_logging(OURS, level=logging.DEBUG)
    try:
        yield
    finally:
        with suppress(Exception):  # the scheduler may be lost
            client.unforward_logging(OURS)
            if has_details:
                client.unregister_worker_plugin(DETAILS)
