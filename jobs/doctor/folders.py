"""Whether a run can write to its folders, and whether its locks and rows are safe there."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ...data_catalog.words import counted
from ...pipeline.units import size_in_words
from .findings import Finding

WRITTEN_BYTES = 8 * 2**20
SLOW_BYTES_A_SECOND = 5e6
LITTLE_SPACE, TOO_LITTLE_SPACE = 20e9, 1e9
IN_MEMORY = ("tmpfs", "ramfs")
TRIAL = ".dsmi-zoo-doctor-"


@dataclass(frozen=True)
class Probe:
    """What a folder turned out to be good for; ``links`` says why hard links cannot be made, or nothing."""

    was_there: bool
    file_system: str
    free: int
    bytes_a_second: float
    locks: bool
    renames: bool
    links: str


def probe_folder(folder: Path) -> Probe:
    """Try what a run does in its folders, in one of our own below ``folder``; nothing stays.

    Raises
    ------
    OSError
        When nothing can be written there.
    """
    with (
        existing(folder) as was_there,
        tempfile.TemporaryDirectory(prefix=TRIAL, dir=folder) as trial,
    ):
        file, second = Path(trial) / "file", Path(trial) / "second"
        seconds = write_and_sync(file)
        second.write_text("second")
        second.replace(file)
        renames = file.read_text() == "second" and not second.exists()
        try:
            os.link(file, second)
            links = ""
        except OSError as error:
            links = error.strerror or str(error)
        return Probe(
            was_there=was_there,
            file_system=_file_system(folder),
            free=shutil.disk_usage(folder).free,
            bytes_a_second=WRITTEN_BYTES / seconds,
            locks=refuses_second_creation(file),
            renames=renames,
            links=links,
        )


def writable_findings(what: str, folder: Path) -> list[Finding]:
    """Whether a run can write to a folder, and whether its locks and rows are safe there."""
    try:
        return folder_findings(what, folder, probe_folder(folder))
    except OSError as error:
        found = f"{folder}: cannot be written: {error.strerror or error}"
        do = f"make it writable, make room, or choose another --{what.lower()}"
        return [Finding(level="problem", what=what, found=found, do=do)]


def folder_findings(what: str, folder: Path, probe: Probe) -> list[Finding]:
    """What a probe says, in words."""
    seen = "there" if probe.was_there else "not there yet, can be made"
    known = f"{probe.file_system}, " if probe.file_system else ""
    level: Literal["ok", "note", "problem"] = "ok"
    do = ""
    if probe.free < TOO_LITTLE_SPACE:
        level, do = "problem", f"make room, or choose another --{what.lower()}"
    elif probe.file_system in IN_MEMORY:
        level, do = "note", "it lies in memory and goes with the machine"
    elif probe.free < LITTLE_SPACE:
        level, do = "note", "embeddings of the 1,002-model zoo take about 13 GB, its weights 295 GB"
    findings = [
        Finding(
            level=level,
            what=what,
            found=f"{folder}: {seen}; {known}{size_in_words(probe.free)} free",
            do=do,
        ),
        Finding(
            level="ok" if probe.bytes_a_second >= SLOW_BYTES_A_SECOND else "note",
            what=what,
            found=f"writes {probe.bytes_a_second / 1e6:.0f} MB/s ({WRITTEN_BYTES / 1e6:.0f} MB, synced to the disk)",
            do=""
            if probe.bytes_a_second >= SLOW_BYTES_A_SECOND
            else "slow: is it a network drive for small files?",
        ),
    ]
    works = [*(["exclusive create"] if probe.locks else []), *(["rename"] if probe.renames else [])]
    works += [] if probe.links else ["hard links"]
    if works:
        findings.append(Finding(level="ok", what=what, found=f"works: {', '.join(works)}"))
    elsewhere = f"choose a --{what.lower()} on another file system"
    if not probe.locks:
        found, do = (
            "exclusive create succeeds on a file that exists",
            f"locks do not hold there: {elsewhere}",
        )
        findings.append(Finding(level="problem", what=what, found=found, do=do))
    if not probe.renames:
        found, do = "a rename does not replace a file", f"rows would be lost there: {elsewhere}"
        findings.append(Finding(level="problem", what=what, found=found, do=do))
    if probe.links:
        do = "`dsmi-zoo merge` copies embeddings there"
        findings.append(
            Finding(level="note", what=what, found=f"no hard links: {probe.links}", do=do)
        )
    return findings


def data_findings(folder: Path) -> list[Finding]:
    """Whether the images' folder is there and holds a file that can be read."""
    do = "choose a --data-root that this machine sees, and has mounted"
    try:
        entries = sum(1 for _ in folder.iterdir())
        with_files = ((base, files) for base, _, files in os.walk(folder) if files)
        base, files = next(with_files, ("", []))
        file = Path(base) / files[0] if files else None
        if file is None:
            return [Finding(level="problem", what="data", found=f"{folder}: holds no file", do=do)]
        with file.open("rb") as content:
            content.read(2**16)
    except OSError as error:
        found = f"{folder}: cannot be read: {error.strerror or error}"
        return [Finding(level="problem", what="data", found=found, do=do)]
    kind = _file_system(folder)
    found = f"{folder}: {counted(entries, 'entry')}, can be read{f'; {kind}' if kind else ''}"
    return [Finding(level="ok", what="data", found=found)]


@contextmanager
def existing(folder: Path) -> Iterator[bool]:
    """Make a folder for the while, unless it is there; yields whether it was."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield not made
    finally:
        for path in made:
            with suppress(OSError):  # somebody has begun to use it
                path.rmdir()


def write_and_sync(path: Path) -> float:
    """Write `WRITTEN_BYTES` that cannot be compressed, to the disk itself; returns the seconds that it took."""
    content = os.urandom(WRITTEN_BYTES)
    started = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def refuses_second_creation(path: Path) -> bool:
    """Whether the exclusive create of a file that exists fails, as locks need it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return True
    return False


def _file_system(folder: Path) -> str:
    path = folder.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else ""
