"""The time that a model may take: its process ends when it is up."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO


class ModelClock:
    """A clock that ends this process when a model's time is up, whatever it does then.

    It is faulthandler's, which also fires while native code holds Python's lock. There is one in a process.

    Parameters
    ----------
    seconds
        The model's time; None for any.
    log
        Where it writes what each thread did when the time was up. The file is there, empty, while the clock runs.
    """

    def __init__(self, seconds: float | None, log: Path) -> None:
        self._left, self._log = seconds, log
        self._file: IO[str] | None = None
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the time pass."""
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
        """Let no time pass, within `running`: the model waits for something that others hold."""
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
