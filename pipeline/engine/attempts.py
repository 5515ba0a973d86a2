"""Attempts at a piece of work, counted in OUT, so that the count survives the processes that the work kills.

Dask retries a task when its worker died; other schedulers count differently or not at all. One rule holds under all of
them: the first two attempts run in the worker; from the third on, each runs in a child process, with nothing else of
the run on its machine. If that child dies, the entry has failed; if the worker itself vanishes, the next attempt runs
alone again, up to the ninth. So no entry fails because another one killed its worker or its machine.
"""

import math
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
from distributed.protocol.pickle import dumps, loads  # as Dask's processes use

from dsmi_zoo._util.forkserver import Forked, Spawned, child_process
from dsmi_zoo._util.locks import machine_lock
from dsmi_zoo._util.text import size_in_words

ATTEMPTS = 3  # from this one on, each runs alone in a child process, whose death is final
LOST_AT_MOST = 9  # attempts whose worker may vanish, as with its machine, before the entry fails

LOOK_EVERY_S = 0.1
SUSPENDED_FOR_S = 240.0
MEMORY_SHARE = 0.95  # as in Dask's nanny, which watches only its worker
PIPE_BYTES = 60_000  # an unread pipe holds 64 KiB

# A worker with several threads runs one task at a time: a model's clock and torch's defaults belong to the process.
_ONE_AT_A_TIME = Lock()


class KilledWorker(Exception):
    """Raised when the child process of an attempt died, or too many workers vanished."""


class ChildProcessDied(Exception):
    """Raised when the process ended before the call returned; the message says how."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at one piece of work.

    Each leaves a file ``OUT/attempts/<kind>-<slug>.<number>`` until its call has returned or raised; a file left over
    means that its process died.
    """

    out: Path
    kind: str
    slug: str
    timeout: float | None = None  # seconds; the work's own clock enforces it

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(*arguments)`` in this process or, from the third attempt on, in a new process.

        Raises
        ------
        KilledWorker
            When the child process died, or the workers of nine attempts vanished.
        Exception
            What the call raised.
        """
        gate, work = f"{self.out} gate", f"{self.out} work"
        with _ONE_AT_A_TIME:
            number = self._begin()
            try:
                if number > LOST_AT_MOST:
                    raise KilledWorker(
                        f"its worker was lost {number - 1} times, and nobody saw why: killed with its machine, or out "
                        "of memory"
                    )
                if number < ATTEMPTS:
                    with machine_lock(gate, shared=True):
                        pass  # let an attempt that runs alone go first: shared locks would starve it
                    with machine_lock(work, shared=True):
                        return function(*arguments)
                with machine_lock(gate), machine_lock(work):
                    return call_in_child(
                        function, *arguments, memory=_memory_limit(), timeout=self.timeout
                    )
            except ChildProcessDied as died:
                raise KilledWorker(
                    f"its worker process died {number} times, the last time {died}, with nothing else running: out of "
                    "memory, killed, or ended by the model's own code"
                ) from None
            finally:
                self.forget()

    def unfinished(self) -> int:
        """Count the attempts that have not ended, including one that is under way."""
        return sum(self._note(number).exists() for number in range(1, LOST_AT_MOST + 2))

    def forget(self) -> None:
        """Delete the record of all attempts, because the work is done or its worker was stopped on purpose."""
        for number in range(1, LOST_AT_MOST + 2):
            self._note(number).unlink(missing_ok=True)

    def _begin(self) -> int:
        """Record a new attempt and return its number; exclusive creation is safe on network file systems, too."""
        self._note(1).parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            try:
                with self._note(number).open("x") as file:
                    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            except FileExistsError:
                continue
            return number
        raise AssertionError

    def _note(self, number: int) -> Path:
        return self.out / "attempts" / f"{self.kind}-{self.slug}.{number}"


def _memory_limit() -> float | None:
    """Return this worker's memory limit in bytes, which its nanny does not enforce on a child of the worker."""
    from distributed import get_worker

    try:
        return get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):  # not in a Dask task, or a worker without a limit
        return None


def call_in_child(
    function: Callable[..., Any],
    *arguments: Any,
    memory: float | None = None,
    timeout: float | None = None,
) -> Any:
    """Call ``function`` with ``arguments`` in a new process, which ends with this one.

    Parameters
    ----------
    function, arguments
        Must be picklable; so must the result, in less than 60 kB.
    memory
        Bytes; a process that takes 95% of them is killed.
    timeout
        Seconds of suspension, at most 240, after which the process is killed; running time is not limited.

    Raises
    ------
    ChildProcessDied
        When the process ended itself, or was killed.
    Exception
        What the call raised.
    """
    reading, writing = Pipe(duplex=False)
    with reading:
        with writing:
            child = child_process(_answer, writing, dumps((function, arguments)))
        ended = _watch(child, memory, min(timeout or math.inf, SUSPENDED_FOR_S))
        # Do not wait for the end of the file: a process that the call left behind may hold the pipe open.
        if not reading.poll():
            raise ChildProcessDied(ended)
        try:
            content = reading.recv_bytes()
        except EOFError:
            raise ChildProcessDied(ended) from None
    value, error = loads(content)
    if error is not None:
        raise error
    return value


def _watch(child: Forked | Spawned, memory: float | None, suspended_for_s: float) -> str:
    """Wait for a process to end, and say how it did; kill it if it is suspended or takes too much memory."""
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
    """Make the call in the new process, and send back its result or error."""
    function, arguments = loads(call)
    process = os.getpid()
    value, error = None, None
    try:
        value = function(*arguments)
    except Exception as raised:
        error = raised
    if os.getpid() == process:  # not in a process that the call forked
        channel.send_bytes(_pack(value, error))
    os._exit(0)  # even if threads are still running


def _pack(value: Any, error: Exception | None) -> bytes:
    try:
        content = dumps((value, error))
    except Exception as problem:
        message = f"{error or value!r} cannot be handed over: {problem}"
        content = dumps((None, RuntimeError(message[:1000])))
    if len(content) > PIPE_BYTES:
        message = f"{type(error or value).__name__}: {error or value}"
        content = dumps((None, RuntimeError(message[:1000])))
    return bytes(content)
