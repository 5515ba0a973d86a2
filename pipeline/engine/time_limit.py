"""A model's time limit, which ends its process when the time is up; and GPU turns, for which waiting does not count."""

import faulthandler
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING

from dsmi_zoo._util.locks import machine_lock

if TYPE_CHECKING:
    import torch


class ModelClock:
    """A clock that ends this process when a model's time is up, whatever the process is doing.

    It uses faulthandler's timer, which also fires while native code holds Python's lock. A process has one such timer.

    Parameters
    ----------
    seconds
        The time limit; None for no limit.
    log
        The file that receives the threads' tracebacks when the time is up. It is empty while the clock runs.
    """

    def __init__(self, seconds: float | None, log: Path) -> None:
        self._left, self._log = seconds, log
        self._file: IO[str] | None = None
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the clock within the context."""
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
        """Stop the clock, within `running`, while the model waits for a resource that another process holds."""
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


@contextmanager
def gpu_turn(model: "torch.nn.Module", device: "torch.device", clock: ModelClock) -> Iterator[None]:
    """Wait until no other process of the user uses the device, then use it alone.

    The model may be moved there within the turn. Its weights are dropped at the end, so that two models are never in
    the memory together. Waiting does not count as the model's time. The CPU needs no turns.
    """
    if device.type == "cpu":
        yield
        return
    turn = machine_lock(f"device {device_name(device)}")
    with clock.stopped():
        turn.__enter__()
    try:
        yield
    finally:
        with suppress(Exception):  # a user's own network may fail to move
            model.to("meta")
        gc.collect()
        if device.type == "cuda":
            import_module("torch").cuda.empty_cache()
        turn.__exit__(None, None, None)


def device_name(device: "torch.device") -> str:
    """Return a name of the device that all processes on this machine share, even if they number devices differently."""
    if device.type != "cuda":
        return device.type
    properties = import_module("torch").cuda.get_device_properties(device)
    return str(getattr(properties, "uuid", os.environ.get("CUDA_VISIBLE_DEVICES")))
