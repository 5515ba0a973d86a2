"""The time limit of a model: its process ends when the time is up."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO


class ModelClock:
    """A clock that ends this process when a model's time is up, whatever the process is doing.

    It uses faulthandler's timer, which also fires while native code holds Python's lock. A process has one such timer.

    Parameters
    ----------
    seconds
        The time limit; None for no limit.
    log
        The file of the threads' tracebacks when the time is up. It is empty while the clock runs.
    """

    def __init__(self, seconds: float | None, log: Path) -> None:
        self._left, self._log = seconds, log
        self._file: IO[str] | None = None
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the clock."""
        if self._left is None:
            yield
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as self._file:
            self._start()
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._file = None
                self._log.unlink(missing_ok=True)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the clock, within `running`, while the model waits for something that others hold."""
        if self._left is None or self._file is None:
            yield
            return
        faulthandler.cancel_dump_traceback_later()
        self._left -= monotonic() - self._since
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        assert self._left is not None
        assert self._file is not None
        self._since = monotonic()
        faulthandler.dump_traceback_later(max(self._left, 0.001), exit=True, file=self._file)


def timed_out(log: Path) -> bool:
    """Return whether the clock ended an attempt: it writes the log only then."""
    return log.exists() and log.stat().st_size > 0


def timeout_error(limit_s: float | None, log: Path) -> TimeoutError:
    """Return the error of a model whose time is up."""
    return TimeoutError(f"took longer than --model-timeout {limit_s:g} s; see {log}")
