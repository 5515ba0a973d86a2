"""Checks of this machine: cores, memory, libraries and folders."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.pipeline.weights.hub import is_offline

from ..clusters.machine import WORKER_MEMORY, usable_cores, visible_gpus
from .gpus import ask_torch, gpu_findings, nvidia_driver
from .report import Finding, Folders

# What is sent from one to the other is unpickled by name.
MUST_AGREE = (
    "dsmi-zoo",
    "dask",
    "distributed",
)


def library_findings() -> list[Finding]:
    """Python, and whether every library that dsmi-zoo requires is there and new enough."""
    from packaging.requirements import Requirement

    findings = [
        Finding(level="ok", what="Python", found=f"{platform.python_version()}, {sys.executable}")
    ]
    lacking, there = [], {}
    for line in importlib.metadata.requires("dsmi-zoo") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = version_of(requirement.name)
        there[requirement.name] = version
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement} ({version or 'not installed'})")
    if lacking:
        do = "pip install " + " ".join(f"'{line.partition(' (')[0]}'" for line in lacking)
        return [
            *findings,
            Finding(
                level="problem", what="libraries", found=f"lacking: {', '.join(lacking)}", do=do
            ),
        ]
    shown = ", ".join(
        f"{name} {there[name]}" for name in ("timm", "dask", "distributed") if name in there
    )
    return [
        *findings,
        Finding(level="ok", what="libraries", found=f"all {len(there)} are new enough; {shown}"),
    ]


def slurm_finding(wanted: bool) -> Finding:
    """Whether `--cluster slurm` could be used from here."""
    jobqueue, sbatch = version_of("dask-jobqueue"), shutil.which("sbatch")
    if jobqueue and sbatch:
        return Finding(level="ok", what="Slurm", found=f"{sbatch}, dask-jobqueue {jobqueue}")
    lacking = [
        *(["no sbatch on PATH"] if not sbatch else []),
        *(["no dask-jobqueue"] if not jobqueue else []),
    ]
    steps = [
        *(
            ["--cluster slurm needs them here, and `submit slurm` on the nodes too"]
            if not wanted
            else []
        ),
        *(["use a login node"] if wanted and not sbatch else []),
        *(["pip install 'dsmi-zoo[slurm]'"] if not jobqueue else []),
    ]
    return Finding(
        level="problem" if wanted else "note",
        what="Slurm",
        found=", ".join(lacking),
        do="; ".join(steps),
    )


def versions() -> dict[str, str]:
    """Versions that must, or should, be the same on all machines of a run."""
    return library_versions() | {
        name: version_of(name) or "not installed" for name in ("dask", "distributed")
    }


def version_findings(there: Mapping[str, str], here: Mapping[str, str], host: str) -> list[Finding]:
    """Where the versions of this machine differ from those of ``host``, which hands out the work."""
    findings = []
    for name, version in here.items():
        other = there.get(name, "not installed")
        if version == other:
            continue
        found = f"{name} {version} here, {other} on {host}"
        major_differs = name == "python" and version.split(".")[:2] != other.split(".")[:2]
        if name in MUST_AGREE or major_differs:
            do = "set up both alike, or name the node's Python in the --profile (python = ...)"
            findings.append(Finding(level="problem", what="versions", found=found, do=do))
        else:
            do = "numbers may differ in their last digits; each row says which version computed it"
            findings.append(Finding(level="note", what="versions", found=found, do=do))
    return findings or [Finding(level="ok", what="versions", found=f"as on {host}")]


def version_of(name: str) -> str | None:
    """A library's installed version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


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


HUB_ANSWERS_WITHIN_S = 5.0


def check_machine(folders: Folders, *, wants_gpu: bool, wants_slurm: bool = False) -> list[Finding]:
    """All that can be told about this machine alone."""
    return [
        *library_findings(),
        slurm_finding(wants_slurm),
        *capacity_findings(),
        *gpu_findings(nvidia_driver(), ask_torch(), visible_gpus(), wants_gpu=wants_gpu),
        *writable_findings("cache", folders.cache),
        *(writable_findings("OUT", folders.out) if folders.out else ()),
        *(data_findings(folders.data_root) if folders.data_root else ()),
        hub_finding(),
    ]


def capacity_findings() -> list[Finding]:
    """Cores and memory that this process may use; batch systems and containers give less than the machine has."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    cores, all_cores = usable_cores(), os.cpu_count() or 1
    limited = f", limited to the time of {CPU_COUNT}" if cores > CPU_COUNT else ""
    memory = psutil.virtual_memory()
    most = min(MEMORY_LIMIT, memory.total)
    free = min(most, memory.available)
    enough, needed = free >= WORKER_MEMORY, size_in_words(WORKER_MEMORY)
    return [
        Finding(level="ok", what="cores", found=f"{cores} of {all_cores} usable{limited}"),
        Finding(
            level="ok" if enough else "problem",
            what="memory",
            found=f"{size_in_words(free)} free of {size_in_words(most)} usable",
            do=""
            if enough
            else f"a worker takes {needed}: end other programs, or ask for more memory",
        ),
    ]


def hub_finding() -> Finding:
    """Whether weights can be downloaded from here, by one request with a short limit."""
    from huggingface_hub import constants

    if is_offline():
        found = "HF_HUB_OFFLINE is set: weights come from the cache alone"
        return Finding(level="ok", what="hub", found=found)
    problem = _hub_problem(constants.ENDPOINT)
    if not problem:
        return Finding(level="ok", what="hub", found=f"{constants.ENDPOINT} answers")
    do = (
        "`dsmi-zoo prefetch` where it answers, then HF_HUB_OFFLINE=1 here; "
        "digits and checkpoints of your own need none"
    )
    return Finding(
        level="note", what="hub", found=f"{constants.ENDPOINT} does not answer ({problem})", do=do
    )


def _hub_problem(endpoint: str) -> str:
    """Ask in a thread: looking up a name has no limit of its own."""
    from huggingface_hub.utils import get_session

    answers: list[str] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=HUB_ANSWERS_WITHIN_S)
            answers.append("")
        except Exception as error:
            answers.append(" ".join(str(error).split())[:100] or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_ANSWERS_WITHIN_S + 1)
    return answers[0] if answers else f"not within {HUB_ANSWERS_WITHIN_S:.0f} s"
