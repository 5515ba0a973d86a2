"""Locks of one machine, held by its kernel: they end with the process that holds them, however it ends.

Between machines they mean nothing; for what several share, see ``exclusive``.
"""

import errno
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

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
