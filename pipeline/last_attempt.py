"""A call in a process of its own, so that the caller sees how it ends.

``multiprocessing`` would do, but Dask's workers are daemons, which it gives no children.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil
from distributed.protocol.pickle import dumps, loads  # what Dask says between its own processes

from .units import size_in_words

LOOK_EVERY_S = 0.1
SUSPENDED_FOR_S = 240.0
MEMORY_SHARE = 0.95  # as Dask's nanny, which sees its worker only
PIPE_BYTES = 60_000  # a pipe holds 64 KiB that nobody has read yet


class Died(Exception):
    """The process ended before the call came back, in the way that this says."""


def in_a_child(
    function: Callable[..., Any],
    *arguments: Any,
    memory: float | None = None,
    timeout: float | None = None,
) -> Any:
    """Call ``function`` with ``arguments`` in a new process, which ends with this one.

    Parameters
    ----------
    function, arguments
        What can be pickled; so must be what comes back, in less than 60 kB.
    memory
        Bytes; a process that takes 95 % of them is killed.
    timeout
        Seconds that the call may take by its own clock, which stands still while its process is suspended: after so
        long, or 4 minutes, a suspended process is killed.

    Raises
    ------
    Died
        When the process ended itself, or was killed.
    Exception
        What the call raised.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answer:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        with child:
            assert child.stdin is not None
            _send(child.stdin, function, arguments)
            ended = _watched(child, memory, min(timeout or math.inf, SUSPENDED_FOR_S))
        # A process that the call left behind may hold the other end.
        os.set_blocking(reading, False)
        content = answer.read()
    if not content:
        raise Died(ended)
    value, error = loads(content)
    if error is not None:
        raise error
    return value


def _send(channel: IO[bytes], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Hand over Python's path, then the call, which may need it; the channel stays open while this process lives."""
    try:
        call = dumps((function, arguments))
        channel.write(json.dumps([sys.path, len(call)]).encode() + b"\n" + call)
        channel.flush()
    except BrokenPipeError:
        return  # it has ended already; how, is seen next


def _watched(child: "subprocess.Popen[bytes]", memory: float | None, suspended_for_s: float) -> str:
    """Wait for the end of a process, and say how it came; a suspended or an insatiable one is killed."""
    process, suspended_since, why = psutil.Process(child.pid), None, ""
    while child.poll() is None:
        time.sleep(LOOK_EVERY_S)
        try:
            is_suspended = process.status() == psutil.STATUS_STOPPED
            taken = process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
        suspended_since = (suspended_since or time.monotonic()) if is_suspended else None
        if suspended_since is not None and time.monotonic() - suspended_since > suspended_for_s:
            why = f", because it was suspended for {suspended_for_s:.0f} s"
            child.kill()
        elif memory and taken > MEMORY_SHARE * memory:
            why = f", because it took more than {MEMORY_SHARE:.0%} of its {size_in_words(memory)} of memory"
            child.kill()
    code = child.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return how + why


def _answer(writing: int) -> None:
    """What the new process does: make the call, and tell what came of it."""
    channel = os.fdopen(os.dup(0), "rb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # the call has no standard input
    sys.path[:], size = json.loads(channel.readline())
    function, arguments = loads(channel.read(size))
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    process = os.getpid()
    outcome: tuple[Any, Exception | None]
    try:
        outcome = function(*arguments), None
    except Exception as error:
        outcome = None, error
    if os.getpid() == process:  # not one that the call has forked
        os.write(writing, _packed(*outcome))


def _end_with(parent: IO[bytes]) -> None:
    """End this process when its parent has ended: then the channel between them is closed."""
    parent.read()
    os._exit(1)


def _packed(value: Any, error: Exception | None) -> bytes:
    try:
        content = dumps((value, error))
    except Exception as problem:
        content = dumps(
            (None, RuntimeError(f"{error or value!r} cannot be handed over: {problem}"[:1000]))
        )
    if len(content) > PIPE_BYTES:
        content = dumps(
            (None, RuntimeError(f"{type(error or value).__name__}: {error or value}"[:1000]))
        )
    return bytes(content)


if __name__ == "__main__":
    _answer(int(sys.argv[1]))
    os._exit(0)  # whatever threads there are
