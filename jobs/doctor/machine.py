"""Checks of this machine: libraries, cores, memory, folders and the hub."""

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
from pathlib import Path

import psutil

from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo._util.versions import library_versions
from dsmi_zoo.pipeline.weights.hub import is_offline

from ..clusters.machine import WORKER_MEMORY, usable_cores, visible_gpus
from .gpus import ask_torch, gpu_findings, nvidia_driver
from .report import Finding, Folders, note, ok, problem

MUST_AGREE = ("dsmi-zoo", "dask", "distributed")  # they unpickle each other's objects by name
TRIAL = ".dsmi-zoo-doctor-"
WRITTEN_BYTES = 8 * 2**20
SLOW_BYTES_A_SECOND = 5e6
LITTLE_SPACE, TOO_LITTLE_SPACE = 20e9, 1e9
IN_MEMORY = ("tmpfs", "ramfs")
HUB_ANSWERS_WITHIN_S = 5.0


def check_machine(folders: Folders, *, wants_gpu: bool, wants_slurm: bool = False) -> list[Finding]:
    """Run all checks that need only this machine."""
    return [
        *library_findings(),
        slurm_finding(wants_slurm),
        *capacity_findings(),
        *gpu_findings(nvidia_driver(), ask_torch(), visible_gpus(), wants_gpu=wants_gpu),
        *writable_findings("cache", folders.cache),
        *(writable_findings("OUT", folders.out) if folders.out else ()),
        *([data_finding(folders.data_root)] if folders.data_root else ()),
        hub_finding(),
    ]


def library_findings() -> list[Finding]:
    """Report the Python version, and check that all libraries dsmi-zoo requires are installed and recent enough."""
    from packaging.requirements import Requirement

    python = ok("Python", f"{platform.python_version()}, {sys.executable}")
    lacking, there = [], {}
    for line in importlib.metadata.requires("dsmi-zoo") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = version_of(requirement.name)
        there[requirement.name] = version
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            lacking.append(str(requirement))
    if lacking:
        do = "pip install " + " ".join(f"'{requirement}'" for requirement in lacking)
        return [python, problem("libraries", f"missing or too old: {', '.join(lacking)}", do)]
    shown = [f"{name} {there[name]}" for name in ("timm", "dask", "distributed") if name in there]
    return [python, ok("libraries", f"all {len(there)} are new enough; {', '.join(shown)}")]


def version_of(name: str) -> str | None:
    """Return a library's installed version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def slurm_finding(wanted: bool) -> Finding:
    """Check whether `--cluster slurm` can be used from here."""
    jobqueue, sbatch = version_of("dask-jobqueue"), shutil.which("sbatch")
    if jobqueue and sbatch:
        return ok("Slurm", f"{sbatch}, dask-jobqueue {jobqueue}")
    missing = {"sbatch on PATH": sbatch, "dask-jobqueue": jobqueue}
    found = ", ".join(f"no {name}" for name, there in missing.items() if not there)
    steps = [] if jobqueue else ["pip install 'dsmi-zoo[slurm]'"]
    if wanted:
        steps += [] if sbatch else ["use a login node"]
        return problem("Slurm", found, "; ".join(steps))
    steps.insert(0, "--cluster slurm needs them here, and `submit slurm` on the nodes too")
    return note("Slurm", found, "; ".join(steps))


def versions() -> dict[str, str]:
    """Return the versions that must, or should, be the same on all machines of a run."""
    dask = {name: version_of(name) or "not installed" for name in ("dask", "distributed")}
    return library_versions() | dask


def version_findings(there: Mapping[str, str], here: Mapping[str, str], host: str) -> list[Finding]:
    """Compare the versions of this machine with those of ``host``, where the scheduler runs."""
    findings = []
    for name, version in here.items():
        other = there.get(name, "not installed")
        if version == other:
            continue
        found = f"{name} {version} here, {other} on {host}"
        other_python = name == "python" and version.split(".")[:2] != other.split(".")[:2]
        if name in MUST_AGREE or other_python:
            do = "install the same on both, or name the node's Python in the --profile (python = ...)"
            findings.append(problem("versions", found, do))
        else:
            do = "numbers may differ in their last digits; each row records its versions"
            findings.append(note("versions", found, do))
    return findings or [ok("versions", f"as on {host}")]


def capacity_findings() -> list[Finding]:
    """Check the cores and the memory that this process may use; batch systems and containers limit both."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    cores = usable_cores()
    limited = f", limited to the time of {CPU_COUNT}" if cores > CPU_COUNT else ""
    memory = psutil.virtual_memory()
    most = min(MEMORY_LIMIT, memory.total)
    free = min(most, memory.available)
    found = f"{size_in_words(free)} free of {size_in_words(most)} usable"
    needed = size_in_words(WORKER_MEMORY)
    do = f"a worker takes {needed}: end other programs, or ask for more memory"
    return [
        ok("cores", f"{cores} of {os.cpu_count()} usable{limited}"),
        ok("memory", found) if free >= WORKER_MEMORY else problem("memory", found, do),
    ]


def writable_findings(what: str, folder: Path) -> list[Finding]:
    """Check that a run can write to a folder, and that its locks work there; leave nothing behind."""
    option = f"--{what.lower()}"
    try:
        with (
            created_if_missing(folder) as was_there,
            tempfile.TemporaryDirectory(prefix=TRIAL, dir=folder) as trial,
        ):
            file = Path(trial) / "file"
            speed = WRITTEN_BYTES / write_and_sync(file)
            locks = refuses_second_creation(file)
            space = _space_finding(what, folder, was_there)
    except OSError as error:
        found = f"{folder}: cannot be written: {error.strerror or error}"
        return [problem(what, found, f"make it writable, make room, or choose another {option}")]
    written = f"writes {speed / 1e6:.0f} MB/s ({WRITTEN_BYTES / 1e6:.0f} MB, synced to the disk)"
    if speed >= SLOW_BYTES_A_SECOND:
        findings = [space, ok(what, written)]
    else:
        findings = [space, note(what, written, "slow: is it a network drive for small files?")]
    if locks:
        return [*findings, ok(what, "works: exclusive create")]
    do = f"locks do not hold there: choose a {option} on another file system"
    return [*findings, problem(what, "exclusive create succeeds on a file that exists", do)]


def _space_finding(what: str, folder: Path, was_there: bool) -> Finding:
    free, kind = shutil.disk_usage(folder).free, file_system(folder)
    state = "exists" if was_there else "does not exist yet, can be made"
    found = f"{folder}: {state}; {f'{kind}, ' if kind else ''}{size_in_words(free)} free"
    if free < TOO_LITTLE_SPACE:
        return problem(what, found, f"make room, or choose another --{what.lower()}")
    if kind in IN_MEMORY:
        return note(what, found, "it is in memory and is lost when the machine stops")
    if free < LITTLE_SPACE:
        do = "embeddings of the 1,002-model zoo take about 13 GB, its weights 295 GB"
        return note(what, found, do)
    return ok(what, found)


def data_finding(folder: Path) -> Finding:
    """Check that the folder of images exists and holds a readable file."""
    do = "choose a --data-root that this machine sees, and has mounted"
    try:
        entries = sum(1 for _ in folder.iterdir())
        with_files = ((base, files) for base, _, files in os.walk(folder) if files)
        base, files = next(with_files, ("", []))
        if not files:
            return problem("data", f"{folder}: holds no file", do)
        with (Path(base) / files[0]).open("rb") as content:
            content.read(2**16)
    except OSError as error:
        return problem("data", f"{folder}: cannot be read: {error.strerror or error}", do)
    kind = file_system(folder)
    found = f"{folder}: {counted(entries, 'entry')}, can be read{f'; {kind}' if kind else ''}"
    return ok("data", found)


@contextmanager
def created_if_missing(folder: Path) -> Iterator[bool]:
    """Yield whether a folder exists; create it and its parents if not, and remove what was created at the end."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield not made
    finally:
        for path in made:
            with suppress(OSError):  # in use by another process by now
                path.rmdir()


def write_and_sync(path: Path) -> float:
    """Write `WRITTEN_BYTES` of random bytes through to the disk; return the seconds it took."""
    content = os.urandom(WRITTEN_BYTES)
    started = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def refuses_second_creation(path: Path) -> bool:
    """Return whether the exclusive creation of an existing file fails; locks rely on it."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def file_system(folder: Path) -> str:
    """Return the type of a folder's file system, such as ``lustre``; empty if unknown."""
    path = folder.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else ""


def hub_finding() -> Finding:
    """Check whether weights can be downloaded from here, by one request with a short time limit."""
    from huggingface_hub import constants

    if is_offline():
        return ok("hub", "HF_HUB_OFFLINE is set: weights come from the cache alone")
    reason = _hub_problem(constants.ENDPOINT)
    if not reason:
        return ok("hub", f"{constants.ENDPOINT} answers")
    do = (
        "`dsmi-zoo prefetch` where it answers, then HF_HUB_OFFLINE=1 here; "
        "digits and checkpoints of your own need none"
    )
    return note("hub", f"{constants.ENDPOINT} does not answer ({reason})", do)


def _hub_problem(endpoint: str) -> str:
    """Return why the hub does not answer, or ""; a thread asks, because name lookups have no time limit."""
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
