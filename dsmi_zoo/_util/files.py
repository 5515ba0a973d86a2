"""Write files atomically, verify them against checksums, and hash files, settings and arrays."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import DiskFull, InputError
from .locks import exclusive

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Errors from a file system that cannot flush a folder, or a folder that may be written but not read.
NO_FOLDER_FLUSH = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
)
NO_NOTE = "has no checksum beside it"
YOUNG_S = 2.0  # the coarsest resolution of modification times

_hashes: dict[tuple[Path, int, int, int], str] = {}


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file, then rename it: readers see the old content or the new one, never a part.

    When this returns, the file survives a power cut.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        move(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise disk_full(path) from None
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{path} is a folder where a file belongs; move it away") from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON-able value atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False))


def flush(path: Path) -> None:
    """Flush a file to disk; if it is renamed before that, a crash may leave its name without its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the file system can; until then, a crash may undo a rename."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and flush their names to disk."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(new):
        flush_folder(one.parent)


def move(source: Path, target: Path) -> None:
    """Rename a flushed file, or a folder of such files, so that the new name survives a power cut."""
    source.replace(target)
    flush_folder(target.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file to ``target`` where the file system allows it, else copy it; either way atomically.

    Files of a run are replaced, never modified in place, so replacing one link leaves the other unchanged.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        os.link(source.resolve(), temporary)
        move(temporary, target)
    except OSError:
        with source.open("rb") as content:
            write_atomically(target, lambda file: shutil.copyfileobj(content, file))
    finally:
        temporary.unlink(missing_ok=True)  # a rename onto a link to the same file leaves both names


def disk_full(path: Path) -> DiskFull:
    """Return the error for a file that does not fit on the disk."""
    return DiskFull(f"{path}: no space left; make room, and the same command goes on from here")


def sweep_temporary(folder: Path, older_than_s: float = 3600) -> None:
    """Remove files that killed processes left half-written; those younger than the limit may still be in use."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_problem(path: Path, wanted: str) -> str:
    """Compare a file with its recorded SHA-256; return what differs, or "".

    A process reads a file once, and again only after a change of its inode, size or modification time. A file younger
    than the resolution of modification times is always read. Damage that changes none of them is found by the next
    process.
    """
    state = path.stat()
    key = path, state.st_ino, state.st_size, state.st_mtime_ns
    sha256 = _hashes.get(key)
    if sha256 is None:
        sha256 = file_sha256(path)
        if time.time() - state.st_mtime > YOUNG_S:
            _hashes[key] = sha256
    if sha256 == wanted:
        return ""
    return f"its SHA-256 is {sha256[:12]}..., not {wanted[:12]}... as noted"


def write_checksummed(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically, with its checksum beside it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_atomically(temporary, write)
        move_checksummed(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_checksummed(temporary: Path, path: Path) -> None:
    """Rename a complete file to ``path``, with its checksum beside it.

    The checksum is written first: a process killed between the two leaves a mismatch, and the file is made again.
    """
    flush(temporary)
    note = {"size": temporary.stat().st_size, "sha256": file_sha256(temporary)}
    write_json(note_path(path), note)
    move(temporary, path)


def damage_problem(path: Path, *, needs_note: bool = True) -> str:
    """Compare a file with its checksum; return what differs, or "".

    The size is compared every time, the content as in `hash_problem`. ``needs_note=False`` trusts files without a
    checksum, which early versions wrote.
    """
    try:
        size = path.stat().st_size
        note = json.loads(note_path(path).read_text(encoding="utf-8"))
        wanted_size, wanted_sha256 = note["size"], note["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        if not path.is_file():
            return "is missing"
        return NO_NOTE if needs_note else ""
    if size != wanted_size:
        return f"holds {size} bytes, not {wanted_size} as written"
    try:
        return hash_problem(path, wanted_sha256)
    except FileNotFoundError:  # removed meanwhile, to make room
        return "is missing"


def make_unless_intact(path: Path, what: str, remedy: str, make: Callable[[], None]) -> None:
    """Make a file that is missing or damaged; of several processes one makes it, and the others wait.

    Parameters
    ----------
    what, remedy
        The beginning and the end of the warning about a damaged file.
    make
        Writes the file and its checksum.
    """
    if not damage_problem(path):
        return
    with exclusive(path.with_suffix(".lock")):
        problem = damage_problem(path)
        if not problem:
            return
        if path.exists():
            log.warning(f"{what} {path}: {problem}; {remedy}")
        make()


def remove_checksummed(path: Path) -> None:
    """Remove a file and its checksum."""
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def note_path(path: Path) -> Path:
    """Return the path of a file's checksum."""
    return path.with_name(f"{path.name}.json")


def content_hash(*parts: Any) -> str:
    """Hash JSON-able values to 16 hexadecimal digits, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_sha256(array: np.ndarray) -> str:
    """Hash an array's type, shape and values."""
    import numpy as np

    content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
