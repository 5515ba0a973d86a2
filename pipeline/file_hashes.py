"""SHA-256 of files, and whether a file is still the one whose hash was noted."""

import hashlib
from functools import cache
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits; it is read each time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_problem(path: Path, wanted: str) -> str:
    """How a file differs from the SHA-256 that was noted for it; empty when it does not.

    A file is read once a process, and again when its inode, size or time of change is another: damage on the disk that
    leaves all three as they were is found by the next process.
    """
    state = path.stat()
    found = _sha256_of_state(path, state.st_ino, state.st_size, state.st_mtime_ns)
    return "" if found == wanted else f"its SHA-256 is {found[:12]}..., not {wanted[:12]}... as noted"


@cache
def _sha256_of_state(path: Path, _inode: int, _size: int, _changed_ns: int) -> str:
    return file_sha256(path)
