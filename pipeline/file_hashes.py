"""SHA-256 of files, and whether a file is still the one whose hash was noted."""

import hashlib
import time
from pathlib import Path

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
