"""A call in a process of its own, so that the caller sees how it ends."""

import math
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import psutil
from distributed.protocol.pickle import dumps, loads  # what Dask says between its own processes

from dsmi_zoo._util.forkserver import Forked, Spawned, child_process
from dsmi_zoo._util.text import size_in_words

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
    reading, writing = Pipe(duplex=False)
    with reading:
        with writing:
            child = child_process(_answer, writing, dumps((function, arguments)))
        ended = _watched(child, memory, min(timeout or math.inf, SUSPENDED_FOR_S))
        # A process that the call left behind may hold the other end.
        if not reading.poll():
            raise Died(ended)
        try:
            content = reading.recv_bytes()
        except EOFError:
            raise Died(ended) from None
    value, error = loads(content)
    if error is not None:
        raise error
    return value


def _watched(child: Forked | Spawned, memory: float | None, suspended_for_s: float) -> str:
    """Wait for the end of a process, and say how it came; a suspended or an insatiable one is killed."""
    suspended_since, why = None, ""
    while child.poll() is None:
        time.sleep(LOOK_EVERY_S)
        try:
            process = psutil.Process(child.pid)
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
    assert code is not None
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return how + why


def _answer(channel: Connection, call: bytes) -> None:
    """What the new process does: make the call, and tell what came of it."""
    function, arguments = loads(call)
    process = os.getpid()
    outcome: tuple[Any, Exception | None]
    try:
        outcome = function(*arguments), None
    except Exception as error:
        outcome = None, error
    if os.getpid() == process:  # not one that the call has forked
        channel.send_bytes(_packed(*outcome))
    os._exit(0)  # whatever threads there are


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
