"""How often work was begun and not ended, noted in OUT, so that it outlives the processes that die of it.

Dask tries a task again whose worker died; nobody else counts. So the same rule holds under every scheduler: who finds
two beginnings without an end makes the last attempt, in a process of its own, with nothing else of the run on its
machine. No entry fails for what another one did to its worker or its machine.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from dsmi_zoo._util.locks import machine_lock

from .last_attempt import Died, in_a_child

ATTEMPTS = 3
LOST_AT_MOST = 9  # beginnings of which nobody saw the end: a machine that dies leaves no witness

# A worker with several threads does one thing at a time: the clock of a model and torch's defaults are its process's.
_ONE_AT_A_TIME = Lock()


class KilledWorker(Exception):
    """Work whose worker process died each time."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at one piece of work, each a file ``OUT/attempts/<kind>-<slug>.<number>`` until it has ended."""

    out: Path
    kind: str
    slug: str
    timeout: float | None = None  # seconds that the work may take, if somebody said so

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, in this process or, for the last time, in one of its own.

        Raises
        ------
        KilledWorker
            When it has ended its process each time.
        Exception
            What the call raised.
        """
        with _ONE_AT_A_TIME:
            number = self._begin()
            try:
                return self._attempt(number, function, arguments)
            finally:
                self.forget()

    def unfinished(self) -> int:
        """How many attempts have begun and not ended; one that goes on counts too."""
        return sum(self._note(number).exists() for number in range(1, LOST_AT_MOST + 2))

    def forget(self) -> None:
        """Count no attempt that has begun so far: the work is done, or its worker was stopped on purpose."""
        for number in range(1, LOST_AT_MOST + 2):
            self._note(number).unlink(missing_ok=True)

    def _attempt(
        self, number: int, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        if number > LOST_AT_MOST:
            raise KilledWorker(
                f"its worker was lost {number - 1} times, and nobody saw why: killed with its machine, or out of memory"
            )
        if number < ATTEMPTS:
            with _beside_others(self.out):
                return function(*arguments)
        with _alone(self.out):
            try:
                return in_a_child(
                    function, *arguments, memory=_memory_limit(), timeout=self.timeout
                )
            except Died as died:
                raise KilledWorker(
                    f"its worker process died {number} times, the last time {died}, with nothing else running: out of "
                    "memory, killed, or ended by the model's own code"
                ) from None

    def _begin(self) -> int:
        """Note a beginning; its number. Creating a file that must be new is certain on network file systems, too."""
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
    """Bytes that this worker may take; its nanny does not see the process of a last attempt."""
    from distributed import get_worker

    try:
        return get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):  # not in a task of Dask's, or a worker without a limit
        return None


@contextmanager
def _beside_others(out: Path) -> Iterator[None]:
    """Work together with others of the run on this machine, but let one pass that wants to be alone."""
    with machine_lock(f"{out} gate", shared=True):
        pass
    with machine_lock(f"{out} work", shared=True):
        yield


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Work when all others of the run on this machine have come to an end; none begins meanwhile."""
    with ExitStack() as held:
        held.enter_context(machine_lock(f"{out} gate"))
        held.enter_context(machine_lock(f"{out} work"))
        yield
