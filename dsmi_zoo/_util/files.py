"""Atomic writes, checksummed files, and hashes of files."""

import errno
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .errors import DiskFull, InputError
from .locks import exclusive

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name, then rename it: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    except OSError as error:
        raise disk_full(path) if error.errno in NO_SPACE else error from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise disk_full(path) from None
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{path} is a folder where a file belongs; move it away") from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def flush(path: Path) -> None:
    """Have a file's content on the disk before it is renamed: otherwise the name may survive a crash without it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def disk_full(path: Path) -> DiskFull:
    """What to say when ``path`` cannot be written for lack of space."""
    return DiskFull(f"{path}: no space left; make room, and the same command goes on from here")


def sweep_temporary(folder: Path, older_than_s: float = 3600) -> None:
    """Remove what a killed process left half-written, unless it is young enough to be in use."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


YOUNG_S = 2.0  # a file system notes the time of a change to a hundredth of a second, or only to two seconds

_hashes: dict[tuple[Path, int, int, int], str] = {}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits; it is read each time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_problem(path: Path, wanted: str) -> str:
    """How a file differs from the SHA-256 that was noted for it; empty when it does not.

    A file is read once a process, and again when its inode, size or time of change is another, or was so young that a
    second change would have left it the same. Damage on the disk that leaves all three as they were is found by the
    next process.
    """
    state = path.stat()
    key = path, state.st_ino, state.st_size, state.st_mtime_ns
    sha256 = _hashes.get(key)
    if sha256 is None:
        sha256 = file_sha256(path)
        if time.time() - state.st_mtime > YOUNG_S:
            _hashes[key] = sha256
    return (
        ""
        if sha256 == wanted
        else f"its SHA-256 is {sha256[:12]}..., not {wanted[:12]}... as noted"
    )


log = logging.getLogger(__name__)

NO_NOTE = "nothing says what it should hold"


def write_sealed(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, with its note."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_atomically(temporary, write)
        seal(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def seal(temporary: Path, path: Path) -> None:
    """Let a file that is complete appear as ``path``, with its note.

    The note comes first: a process that is killed between the two leaves a file that its note contradicts, which is
    made again, never one without.
    """
    flush(temporary)
    note = {"size": temporary.stat().st_size, "sha256": file_sha256(temporary)}
    write_atomically(note_path(path), lambda file: file.write(json.dumps(note).encode()))
    temporary.replace(path)


def damage(path: Path) -> str:
    """How a file differs from what was written; empty when it does not.

    Its size is looked at every time, its content once a process for each time of change.
    """
    note = _note(path)
    try:
        size = path.stat().st_size
        if note is None:
            return NO_NOTE
        if size != note["size"]:
            return f"holds {size} bytes, not {note['size']} as written"
        return hash_problem(path, note["sha256"])
    except FileNotFoundError:  # perhaps only now, for lack of room
        return "is missing"


def noted_damage(path: Path) -> str:
    """The same of a file that the first versions wrote, too: they noted nothing, and what they wrote is believed."""
    problem = damage(path)
    return "" if problem == NO_NOTE else problem


def make_unless_whole(path: Path, what: str, remedy: str, make: Callable[[], None]) -> None:
    """Have a file made if it is missing or damaged; of several processes one makes it, and the others wait.

    Parameters
    ----------
    what, remedy
        How the one line begins and ends that is said of a damaged file.
    make
        Writes and seals it.
    """
    if not damage(path):
        return
    with exclusive(path.with_suffix(".lock")):
        problem = damage(path)
        if not problem:
            return
        if path.exists():
            log.warning(f"{what} {path}: {problem}; {remedy}")
        make()


def remove_sealed(path: Path) -> None:
    """Remove a file and its note."""
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def note_path(path: Path) -> Path:
    """Where the note of a file stands."""
    return path.with_name(f"{path.name}.json")


def _note(path: Path) -> dict[str, Any] | None:
    if not note_path(path).is_file():
        return None
    try:
        note = json.loads(note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_note = (
        isinstance(note, dict)
        and isinstance(note.get("size"), int)
        and isinstance(note.get("sha256"), str)
    )
    return note if is_note else None
