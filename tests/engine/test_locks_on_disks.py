"""Locks on disks that are full, read-only, or fail for a while."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_locks import THERE, a_lock_of

from dsmi_zoo._util.locks import LockHeldError, acquired, exclusive
from dsmi_zoo.jobs.runs.driver_lock import drivers, drivers_folder


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system with room for 8 kB in 20 inodes; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=20", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_full_disk_leaves_no_half_made_lock(small: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small / "big").write_bytes(bytes(10_000))
    with exclusive(small / "lock"), pytest.raises(LockHeldError), acquired(small / "lock"):
        pass
    with suppress(OSError):  # until no inode is left
        for number in range(30):
            (small / str(number)).touch()
    with pytest.raises(OSError, match="No space left"):
        exclusive(small / "lock").__enter__()
    (small / "0").unlink()
    # There is room for the lock's folder, but not for the file in it.
    with pytest.raises(OSError, match="No space left"):
        exclusive(small / "lock").__enter__()
    assert not list(small.glob("lock*"))


def test_the_holder_of_a_lock_is_found_on_a_read_only_disk(small: Path) -> None:
    a_lock_of(drivers_folder(small) / "whole.lock", THERE, 7)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert str(drivers(small)["whole"]).startswith("process 7 on there, heard of ")


def test_a_heart_beats_on_after_errors_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []
    real = os.utime

    def failing(path: Path, *arguments: Any) -> None:
        touched.append(str(path))
        if len(touched) <= 3:
            raise OSError(errno.ESTALE, "stale file handle")
        real(path, *arguments)

    monkeypatch.setattr(os, "utime", failing)
    with exclusive(tmp_path / "lock", beat_s=0.01) as claim:
        deadline = time.monotonic() + 10
        while len(touched) < 8:
            assert time.monotonic() < deadline, "the heart has stopped"
            time.sleep(0.01)
        assert not claim.is_lost()


def test_a_process_that_cannot_start_a_heart_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="can't start"):
        exclusive(tmp_path / "lock").__enter__()
    assert list(tmp_path.iterdir()) == []
