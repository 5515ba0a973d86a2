"""What a child process inherits, environment variables and blocked signals, and the memory of this one."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def environment_with(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that start meanwhile, then restore them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the processes and threads that start meanwhile.

    A terminal sends Ctrl-C to all processes of a command, and the driver alone answers it. In the main thread a
    SIGTERM, which ends the children, is postponed until they have started.
    """
    postponed: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # no other may set a handler
        handler = signal.signal(signal.SIGTERM, lambda number, frame: postponed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in postponed:
            signal.raise_signal(number)


def peak_resident() -> int | None:
    """Return the most bytes of memory that this process has held since Linux reset its peak; None elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    line = next(lines, None)
    return None if line is None else 1024 * int(line.split()[1])
