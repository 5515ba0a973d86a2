"""Files that appear whole or not at all."""

import errno
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..data_catalog.errors import DiskFull, InputError

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
