"""Locks: a lease between machines, which needs no file locks, and ``flock`` within one."""

import errno
import fcntl
import hashlib
import logging
import os
import re
import socket
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import quote

from .errors import InputError

BEAT_S = 10.0
STALE_AFTER_S = 180.0  # longer than a network file system may show an old time of change
LONGEST_GAP_S = 5.0  # between two looks at a lock; after a longer one, this process and perhaps the owner were stopped

# A rename that finds another lock in its place. ENOENT: the answer to the first attempt was lost, and NFS tried again.
NOT_RENAMED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENOENT)
GONE = (FileNotFoundError, NotADirectoryError)

FILE_NAME = re.compile(
    r"(?P<machine>host=(?P<host>[^,]*),boot=[^,]*,space=[^,]*),pid=(?P<pid>\d{1,9}),start=(?P<start>\d*),claim=[0-9a-f]{32}"
)


class Held(Exception):
    """A lock that another process holds.

    Attributes
    ----------
    host, pid
        Who holds it; None for a lock that an earlier version left, a file.
    beat_s
        Seconds since its last beat.
    """

    def __init__(self, owner: "Owner | None", beat_s: float) -> None:
        self.host: str | None = owner.host if owner else None
        self.pid: str | None = owner.pid if owner else None
        self.beat_s = beat_s
        who = f"process {self.pid} on {self.host}" if owner else "an unknown process"
        super().__init__(f"{who}, heard of {beat_s:.0f} s ago")


class Claim:
    """A lock that this process holds, until another one finds it stale."""

    def __init__(self, lock: Path) -> None:
        self._lock, self._file = lock, lock / _new_file_name()
        self._released = threading.Event()
        self._heart: threading.Thread | None = None

    def is_lost(self) -> bool:
        """Whether another process has taken the lock over."""
        try:
            os.utime(self._file)  # asks the server, where a look would be answered from a cache
        except GONE:
            return True
        except OSError:  # a file system that does not answer says nothing about the lock
            return False
        return False

    def _take(self) -> bool:
        """Put the lock in its place, unless another one is there."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        if not _is_free(self._lock):
            return False
        aside = self._lock.with_name(f"{self._lock.name}.{uuid.uuid4().hex}")
        file = aside / self._file.name
        try:
            aside.mkdir()
            file.touch()
            aside.rename(self._lock)
        except OSError as error:
            if error.errno not in NOT_RENAMED:
                raise
        finally:
            _remove(aside, file)  # unless it was renamed
        return self._file.exists()

    def _beat(self, beat_s: float) -> None:
        self._heart = threading.Thread(
            target=_beat, args=(self._file, self._released, beat_s), daemon=True
        )
        self._heart.start()

    def _release(self) -> None:
        self._released.set()
        if self._heart is not None and self._heart.ident is not None:
            self._heart.join()
        with suppress(OSError):  # what cannot be removed has no heart any more, and is soon stale
            _remove(self._lock, self._file)


@contextmanager
def exclusive(
    lock: Path, *, beat_s: float = BEAT_S, stale_after_s: float = STALE_AFTER_S, poll_s: float = 0.1
) -> Iterator[Claim]:
    """Hold the lock ``lock``: put there unless one is there, touched regularly, removed at the end.

    Waits while another process holds it. A lock whose owner on this machine is dead, or that nobody touched for
    ``stale_after_s`` on the waiting process's own clock (clocks of two machines may differ), is taken over.

    Raises
    ------
    InputError
        When something stands in its place that is no lock.
    """
    watch = _Watch()
    with _released_at_the_end(Claim(lock)) as claim:
        while not claim._take():
            seen = _look(lock)
            if seen is not None and (
                _is_dead(seen.owner) or watch.seconds_untouched(seen) > stale_after_s
            ):
                _remove(lock, seen.file)
            else:
                time.sleep(poll_s)
        claim._beat(beat_s)
        yield claim


@contextmanager
def claimed(
    lock: Path, *, beat_s: float = BEAT_S, stale_after_s: float = STALE_AFTER_S
) -> Iterator[Claim]:
    """Hold the lock ``lock`` as `exclusive` does, but do not wait for it.

    Raises
    ------
    Held
        When another process holds it.
    InputError
        When something stands in its place that is no lock.
    """
    with _released_at_the_end(Claim(lock)) as claim:
        while not claim._take():
            seen = _look(lock)
            if seen is None:  # released just now
                time.sleep(0.01)
                continue
            held = _held(lock, seen, stale_after_s)
            if held is not None:
                raise held
            _remove(lock, seen.file)
        claim._beat(beat_s)
        yield claim


def holder(lock: Path, stale_after_s: float = STALE_AFTER_S) -> Held | None:
    """Who holds a lock; None when it is free, its owner dead, or on another machine and without a beat for too long.

    The time is told by the file system of the lock, by a file that is written for it: no two machines' clocks agree.
    """
    seen = _look(lock)
    return None if seen is None else _held(lock, seen, stale_after_s)


@contextmanager
def _released_at_the_end(claim: Claim) -> Iterator[Claim]:
    process = os.getpid()
    try:
        yield claim
    finally:
        if os.getpid() == process:  # a forked child leaves its parent's lock alone
            claim._release()


def _beat(file: Path, released: threading.Event, beat_s: float) -> None:
    while not released.wait(beat_s):
        try:
            os.utime(file)
        except GONE:
            return
        except OSError:  # the file system may answer again before the lock is stale
            continue


@dataclass(frozen=True)
class Owner:
    """A process that holds a lock; ``machine`` is this host, booted once, and one numbering of its processes."""

    machine: str
    host: str
    pid: str
    start: str


@dataclass(frozen=True)
class _Seen:
    """A lock as it was found: its file, the time of the last beat, its owner (None: unknown, of an earlier version)."""

    file: Path
    touched_ns: int
    owner: Owner | None


class _Watch:
    """For how long a lock stays untouched on this process's own clock, not counting the time that it was stopped."""

    def __init__(self) -> None:
        self._seen: _Seen | None = None
        self._seconds = self._looked = 0.0

    def seconds_untouched(self, seen: _Seen) -> float:
        now = time.monotonic()
        gap = min(now - self._looked, LONGEST_GAP_S)
        self._seconds = self._seconds + gap if seen == self._seen else 0.0
        self._seen, self._looked = seen, now
        return self._seconds


def _is_free(lock: Path) -> bool:
    """Whether no lock is there; an empty folder, left by a process that died between two steps, is removed."""
    try:
        lock.rmdir()
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's, in a folder such as /tmp
        return _look(lock) is None
    except OSError as error:
        if error.errno not in NOT_RENAMED:
            raise
        return False
    return True


def _look(lock: Path) -> _Seen | None:
    """The lock as it is now; None when there is none."""
    try:
        is_folder = stat.S_ISDIR(lock.lstat().st_mode)
        file = next(lock.iterdir(), None) if is_folder else lock
        if file is None:
            return None
        touched_ns = file.lstat().st_mtime_ns
    except GONE:
        return None
    named = FILE_NAME.fullmatch(file.name)
    if named is None and is_folder:
        raise InputError(f"{lock} is no lock, as it holds {file.name}; move it away")
    owner = Owner(named["machine"], named["host"], named["pid"], named["start"]) if named else None
    return _Seen(file, touched_ns, owner)


def _held(lock: Path, seen: _Seen, stale_after_s: float) -> Held | None:
    """Who holds the lock that was seen; None when nobody does any more."""
    if _is_dead(seen.owner):
        return None
    silent_s = _file_system_time(lock.parent) - seen.touched_ns / 1e9
    is_here = seen.owner is not None and seen.owner.machine == _machine()
    # A process of this machine that exists is at work, whatever a clock says that was set meanwhile.
    return (
        Held(seen.owner, max(silent_s, 0.0)) if is_here or abs(silent_s) < stale_after_s else None
    )


def _file_system_time(folder: Path) -> float:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # a folder that may only be read
        return time.time()


def _remove(lock: Path, file: Path) -> None:
    """Remove a lock's file, and its folder, unless the next lock is in that place already."""
    with suppress(*GONE, IsADirectoryError):
        file.unlink()
    with suppress(OSError):
        lock.rmdir()


def _new_file_name() -> str:
    pid = os.getpid()
    _, start = _state_and_start(pid) or ("", "")
    return f"{_machine()},pid={pid},start={start},claim={uuid.uuid4().hex}"


def _is_dead(owner: Owner | None) -> bool:
    """Whether the owner was a process of this machine and is none any more; False where that cannot be known."""
    if owner is None or owner.machine != _machine():
        return False
    try:
        os.kill(int(owner.pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    now = _state_and_start(int(owner.pid))
    if now is None:
        return False
    state, start = now
    is_another = owner.start not in ("", start)
    # A zombie is dead, though nobody has asked for its exit code.
    return is_another or state in "ZX"


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """A process's state and when it started, in clock ticks since boot; None where the system does not say."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = line.rpartition(")")[2].split()
    return fields[0], fields[19]


def _machine() -> str:
    """This host, its boot (two hosts may have one name) and its numbering of processes (containers have their own)."""
    boot = space = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"host={quote(socket.gethostname(), safe='')[:100]},boot={boot},space={space}"


log = logging.getLogger(__name__)

NOT_TO_BE_HAD = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def machine_lock(name: str, *, shared: bool = False) -> Iterator[None]:
    """Wait for the lock of this name among the user's processes on this machine, and hold it.

    Parameters
    ----------
    name
        Any text.
    shared
        Hold it together with others that share it.

    Raises
    ------
    OSError
        When the folder of locks is not the user's own.
    """
    path = _folder() / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:24]
    with path.open("a") as file:
        _take(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _take(file: IO[str], how: int) -> None:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in NOT_TO_BE_HAD:
            raise
        _tell_once(str(Path(file.name).parent))


@cache
def _tell_once(folder: str) -> None:
    log.warning(
        f"{folder} is on a disk without locks: processes cannot wait for each other; set TMPDIR to another"
    )


def _folder() -> Path:
    """A folder that only this user can write to; others may write beside it."""
    folder = Path(tempfile.gettempdir()) / f"dsmi-zoo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{folder} is not a folder that only you can write to; remove it, or set TMPDIR"
        )
    return folder
