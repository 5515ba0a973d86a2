"""Locks: a lease between machines, for file systems without file locks, and ``flock`` within one machine."""

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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from .errors import InputError

log = logging.getLogger(__name__)

BEAT_S = 10.0
STALE_AFTER_S = 180.0  # longer than a network file system caches a modification time
MAX_GAP_S = 5.0  # between two looks at a lock; a longer gap means that this process was stopped, perhaps the owner, too

# Errors of a rename onto another lock. ENOENT: NFS lost the reply to the first attempt, and retried.
NOT_RENAMED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENOENT)
GONE = (FileNotFoundError, NotADirectoryError)
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

FILE_NAME = re.compile(
    r"(?P<machine>host=(?P<host>[^,]*),boot=[^,]*,space=[^,]*),pid=(?P<pid>\d{1,9}),start=(?P<start>\d*),claim=[0-9a-f]{32}"
)


@dataclass(frozen=True)
class _Seen:
    """A lock as it was found: its file, its last beat, and its owner.

    ``machine`` is empty for a lock of an earlier version, which was a file without an owner's name.
    """

    file: Path
    touched_ns: int
    machine: str = ""
    host: str = ""
    pid: str = ""
    start: str = ""


class LockHeldError(Exception):
    """Raised for a lock that another process holds; names the process and its last beat."""

    def __init__(self, seen: _Seen, beat_s: float) -> None:
        who = f"process {seen.pid} on {seen.host}" if seen.machine else "an unknown process"
        super().__init__(f"{who}, heard of {beat_s:.0f} s ago")


class Claim:
    """A lock that this process holds, until another process finds it stale."""

    def __init__(self, lock: Path) -> None:
        pid = os.getpid()
        _, start = _state_and_start(pid) or ("", "")
        self._lock = lock
        self._file = lock / f"{_machine()},pid={pid},start={start},claim={uuid.uuid4().hex}"
        self._released = threading.Event()
        self._heart: threading.Thread | None = None

    def is_lost(self) -> bool:
        """Return whether another process has taken the lock over."""
        try:
            os.utime(self._file)  # asks the file server; a stat may be answered from a cache
        except GONE:
            return True
        except OSError:  # an unreachable file system says nothing about the lock
            return False
        return False

    def _take(self) -> bool:
        """Put the lock in its place unless another one is there; return whether it worked."""
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
            _remove(aside, file)  # nothing is there if it was renamed
        return self._file.exists()

    def _start_heart(self, beat_s: float) -> None:
        arguments = self._file, self._released, beat_s
        self._heart = threading.Thread(target=_beat, args=arguments, daemon=True)
        self._heart.start()

    def _release(self) -> None:
        self._released.set()
        if self._heart is not None and self._heart.ident is not None:
            self._heart.join()
        with suppress(OSError):  # a lock that cannot be removed is soon stale, without a heart
            _remove(self._lock, self._file)


@contextmanager
def exclusive(
    lock: Path,
    *,
    wait: bool = True,
    beat_s: float = BEAT_S,
    stale_after_s: float = STALE_AFTER_S,
    poll_s: float = 0.1,
) -> Iterator[Claim]:
    """Hold the lock ``lock``; wait while another process holds it.

    The lock is a folder that is created, touched every ``beat_s`` and removed at the end. It is taken over when its
    owner is a dead process of this machine, or when it has not been touched for ``stale_after_s``, measured by the
    waiting process's clock, because two machines' clocks may differ. Time for which the waiting process itself was
    stopped does not count.

    Raises
    ------
    LockHeldError
        When another process holds it and ``wait`` is False.
    InputError
        When something that is not a lock is in its place.
    """
    before: _Seen | None = None
    untouched_s = looked = 0.0
    with _released_at_end(Claim(lock)) as claim:
        while not claim._take():
            seen = _look(lock)
            held = None if wait or seen is None else _held(lock, seen, stale_after_s)
            if held is not None:
                raise held
            now = time.monotonic()
            gap = min(now - looked, MAX_GAP_S)
            untouched_s = untouched_s + gap if seen == before else 0.0
            before, looked = seen, now
            if seen is not None and (not wait or _is_dead(seen) or untouched_s > stale_after_s):
                _remove(lock, seen.file)
            else:
                time.sleep(poll_s)
        claim._start_heart(beat_s)
        yield claim


def acquired(lock: Path) -> AbstractContextManager[Claim]:
    """Hold the lock ``lock`` as `exclusive` does, but raise LockHeldError while another process holds it."""
    return exclusive(lock, wait=False, poll_s=0.01)


def holder(lock: Path, stale_after_s: float = STALE_AFTER_S) -> LockHeldError | None:
    """Return a lock's holder; None if the lock is free, or its owner is dead or, elsewhere, silent for too long.

    The current time comes from the lock's file system, because two machines' clocks may differ.
    """
    seen = _look(lock)
    return None if seen is None else _held(lock, seen, stale_after_s)


@contextmanager
def _released_at_end(claim: Claim) -> Iterator[Claim]:
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


def _is_free(lock: Path) -> bool:
    """Return whether no lock is there; remove an empty folder, left by a process that died between two steps."""
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
    """Return the lock as it is now, or None."""
    try:
        is_folder = stat.S_ISDIR(lock.lstat().st_mode)
        file = next(lock.iterdir(), None) if is_folder else lock
        if file is None:
            return None
        touched_ns = file.lstat().st_mtime_ns
    except GONE:
        return None
    named = FILE_NAME.fullmatch(file.name)
    if named is not None:
        return _Seen(file, touched_ns, **named.groupdict())
    if is_folder:
        raise InputError(f"{lock} is not a lock: it holds {file.name}; move it away")
    return _Seen(file, touched_ns)


def _held(lock: Path, seen: _Seen, stale_after_s: float) -> LockHeldError | None:
    """Return the holder of the lock that was seen, or None if it is no longer held."""
    if _is_dead(seen):
        return None
    silent_s = _file_system_time(lock.parent) - seen.touched_ns / 1e9
    # A living process of this machine holds its lock, even if the clock was set meanwhile.
    if seen.machine == _machine() or abs(silent_s) < stale_after_s:
        return LockHeldError(seen, max(silent_s, 0.0))
    return None


def _file_system_time(folder: Path) -> float:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # a read-only folder
        return time.time()


def _remove(lock: Path, file: Path) -> None:
    """Remove a lock's file, and its folder unless the next lock is already in its place."""
    with suppress(*GONE, IsADirectoryError):
        file.unlink()
    with suppress(OSError):
        lock.rmdir()


def _is_dead(seen: _Seen) -> bool:
    """Return whether the owner was a process of this machine and has ended; False where that is unknown."""
    if seen.machine != _machine():
        return False
    try:
        os.kill(int(seen.pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    now = _state_and_start(int(seen.pid))
    if now is None:
        return False
    state, start = now
    is_another = seen.start not in ("", start)
    # A zombie is dead, even if its parent has not read its exit code.
    return is_another or state in "ZX"


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Return a process's state and its start in clock ticks since boot, or None where the system hides them."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = line.rpartition(")")[2].split()
    return fields[0], fields[19]


def _machine() -> str:
    """Identify this host, its boot (hosts may share a name) and its process numbering (containers have their own)."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"host={quote(socket.gethostname(), safe='')[:100]},boot={boot_id()},space={space}"


def boot_id() -> str:
    """Return the identifier of this machine's current boot; "" where the system hides it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@contextmanager
def machine_lock(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of this name among the user's processes on this machine; wait while another process holds it.

    Parameters
    ----------
    name
        Any text.
    shared
        Whether processes that also pass True may hold it at the same time.

    Raises
    ------
    PermissionError
        When the folder of locks is not the user's own.
    """
    folder = _folder()
    path = folder / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:24]
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            _warn_once(folder)
        yield


@cache
def _warn_once(folder: Path) -> None:
    log.warning(
        f"{folder} is on a disk without locks: processes cannot wait for each other; set TMPDIR to another"
    )


def _folder() -> Path:
    """Return a folder that only this user can write to; others may write beside it."""
    folder = Path(tempfile.gettempdir()) / f"dsmi-zoo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{folder} is not a folder that only you can write to; remove it, or set TMPDIR"
        )
    return folder
