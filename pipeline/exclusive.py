"""One process at a time, also on file systems where file locks succeed without locking."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BEAT_S = 10.0
STALE_AFTER_S = 180.0  # longer than a network file system may show an old time of change


@contextmanager
def exclusive(
    lock: Path, *, beat_s: float = BEAT_S, stale_after_s: float = STALE_AFTER_S, poll_s: float = 0.1
) -> Iterator[None]:
    """Hold the lock file ``lock``: made by exclusive create, touched regularly, removed at the end.

    Waits while another process holds it. A lock whose owner on this machine is dead, or that nobody touched for
    ``stale_after_s`` on the waiting process's own clock (clocks of two machines may differ), is taken over.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    token = _new_token()
    seen: tuple[str, int] | None = None
    since = time.monotonic()
    while not _create(lock, token):
        now = _look(lock)
        if now != seen:
            seen, since = now, time.monotonic()
        if now is not None and (_owner_is_dead(now[0]) or time.monotonic() - since > stale_after_s):
            _break(lock, now[0])
        else:
            time.sleep(poll_s)
    with _kept(lock, token, beat_s):
        yield


class Held(Exception):
    """A lock that another process holds.

    Attributes
    ----------
    host, pid
        Who holds it.
    beat_s
        Seconds since its last beat.
    """

    def __init__(self, token: str, beat_s: float) -> None:
        machine, _, rest = token.partition(" ")
        self.host, self.pid, self.beat_s = machine.partition("/")[0], rest.partition(" ")[0], beat_s
        super().__init__(f"process {self.pid} on {self.host}, heard of {beat_s:.0f} s ago")


class Claim:
    """A lock that this process holds, until another one finds it stale."""

    def __init__(self, lock: Path, token: str) -> None:
        self._lock, self._token = lock, token

    def is_lost(self) -> bool:
        """Whether another process has taken the lock over."""
        held = _look(self._lock)
        return held is None or held[0] != self._token


def holder(lock: Path, stale_after_s: float = STALE_AFTER_S) -> Held | None:
    """Who holds a lock; None when it is free, its owner on this machine dead, or without a beat for too long.

    The time is told by the file system of the lock, by a file that is written for it: no two machines' clocks agree.
    """
    held = _look(lock)
    if held is None or _owner_is_dead(held[0]):
        return None
    probe = lock.with_name(f"{lock.name}.{uuid.uuid4().hex}")
    probe.touch()
    age = (probe.stat().st_mtime_ns - held[1]) / 1e9
    probe.unlink()
    return Held(held[0], max(age, 0.0)) if age < stale_after_s else None


@contextmanager
def claimed(lock: Path, *, beat_s: float = BEAT_S, stale_after_s: float = STALE_AFTER_S) -> Iterator[Claim]:
    """Hold the lock file ``lock`` as `exclusive` does, but do not wait for it.

    Raises
    ------
    Held
        When another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    token = _new_token()
    while not _create(lock, token):
        other = holder(lock, stale_after_s)
        if other is not None:
            raise other
        held = _look(lock)
        if held is not None:
            _break(lock, held[0])
    with _kept(lock, token, beat_s):
        yield Claim(lock, token)


def _new_token() -> str:
    return f"{_machine()} {os.getpid()} {uuid.uuid4().hex}"


@contextmanager
def _kept(lock: Path, token: str, beat_s: float) -> Iterator[None]:
    """Touch a lock that was made regularly, and remove it at the end."""
    released = threading.Event()
    heart = threading.Thread(target=_beat, args=(lock, token, released, beat_s), daemon=True)
    heart.start()
    try:
        yield
    finally:
        released.set()
        heart.join()
        held = _look(lock)
        if held is not None and held[0] == token:
            lock.unlink(missing_ok=True)


def _create(lock: Path, token: str) -> bool:
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(token)
    return True


def _look(lock: Path) -> tuple[str, int] | None:
    """The owner's token and the time of the last beat; None when the lock is free."""
    try:
        return lock.read_text(), lock.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _beat(lock: Path, token: str, released: threading.Event, beat_s: float) -> None:
    while not released.wait(beat_s):
        held = _look(lock)
        if held is None or held[0] != token:
            return
        with suppress(FileNotFoundError):
            os.utime(lock)


def _break(lock: Path, token: str) -> None:
    """Remove the lock of ``token``. Of several that want to, one renames it; a fresh lock is put back."""
    aside = lock.with_name(f"{lock.name}.{uuid.uuid4().hex}")
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text() != token:
        with suppress(OSError):
            os.link(aside, lock)
    aside.unlink()


def _owner_is_dead(token: str) -> bool:
    machine, _, rest = token.partition(" ")
    pid = rest.partition(" ")[0]
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _machine() -> str:
    """This host and, as containers on one host count processes anew, its numbering of processes."""
    try:
        numbering = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbering = "pid"
    return f"{socket.gethostname()}/{numbering}"
