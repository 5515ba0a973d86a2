"""What `dsmi-zoo doctor` looks at on the machine at hand; each check returns findings and changes nothing."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict

from jobs.clusters.machine import WORKER_MEMORY, usable_cores, visible_gpus
from jobs.progress import counted
from pipeline.remote import is_offline

TORCH_ANSWERS_WITHIN_S = 75.0  # from a cold parallel file system; the whole job on a node has two minutes
HUB_ANSWERS_WITHIN_S = 5.0
WRITTEN_BYTES = 8 * 2**20
SLOW_BYTES_A_SECOND = 5e6
LITTLE_SPACE, TOO_LITTLE_SPACE = 20e9, 1e9
IN_MEMORY = ("tmpfs", "ramfs")
TRIAL = ".dsmi-zoo-doctor-"


class Finding(BaseModel):
    """One thing that was looked at: how it is, and what to do about it unless it is well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["ok", "note", "problem"]
    what: str
    found: str
    do: str = ""


@dataclass(frozen=True)
class Folders:
    """The folders of a run."""

    cache: Path
    out: Path | None = None
    data_root: Path | None = None


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA that it runs, and its GPUs; ``error`` when it does not answer."""

    version: str = ""
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    error: str = ""


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


def library_findings() -> list[Finding]:
    """Python, and whether every library that dsmi-zoo requires is there and new enough."""
    from packaging.requirements import Requirement

    findings = [Finding(level="ok", what="Python", found=f"{platform.python_version()}, {sys.executable}")]
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
        return [*findings, Finding(level="problem", what="libraries", found=f"lacking: {', '.join(lacking)}", do=do)]
    shown = ", ".join(f"{name} {there[name]}" for name in ("timm", "dask", "distributed") if name in there)
    return [*findings, Finding(level="ok", what="libraries", found=f"all {len(there)} are new enough; {shown}")]


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
        *(["--cluster slurm needs them here, and `submit slurm` on the nodes too"] if not wanted else []),
        *(["use a login node"] if wanted and not sbatch else []),
        *(["pip install 'dsmi-zoo[slurm]'"] if not jobqueue else []),
    ]
    return Finding(level="problem" if wanted else "note", what="Slurm", found=", ".join(lacking), do="; ".join(steps))


def capacity_findings() -> list[Finding]:
    """Cores and memory that this process may use; batch systems and containers give less than the machine has."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    cores, all_cores = usable_cores(), os.cpu_count() or 1
    limited = f", limited to the time of {CPU_COUNT}" if cores > CPU_COUNT else ""
    memory = psutil.virtual_memory()
    most = min(MEMORY_LIMIT, memory.total)
    free = min(most, memory.available)
    enough = free >= WORKER_MEMORY
    return [
        Finding(level="ok", what="cores", found=f"{cores} of {all_cores} usable{limited}"),
        Finding(
            level="ok" if enough else "problem",
            what="memory",
            found=f"{_gb(free)} free of {_gb(most)} usable",
            do="" if enough else f"a worker takes {_gb(WORKER_MEMORY)}: end other programs, or ask for more memory",
        ),
    ]


def nvidia_driver() -> Driver | None:
    """What nvidia-smi says; None where there is no such command."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
        head = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return Driver(error=" ".join(str(error).split()))
    if listed.returncode:
        return Driver(error=" ".join((listed.stdout or listed.stderr).split())[:200] or "nvidia-smi fails")
    lines = [line.partition(", ") for line in listed.stdout.splitlines() if ", " in line]
    cuda = re.search(r"CUDA[\w ]* Version\s*:\s*(\d+\.\d+)", head.stdout)
    return Driver(lines[0][0] if lines else "", cuda[1] if cuda else "", tuple(name for _, _, name in lines))


def ask_torch() -> dict[str, Any]:
    """The answer of `jobs.torch_probe`, or ``{"error": ...}``; the process at hand never imports torch."""
    command = [sys.executable, "-P", "-m", "jobs.torch_probe"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_ANSWERS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return {"error": f"does not answer within {TORCH_ANSWERS_WITHIN_S:.0f} s"}
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["without a word"])[-1]
        how = f"is ended by {signal.Signals(-asked.returncode).name}" if asked.returncode < 0 else "cannot be imported"
        return {"error": f"{how}: {last}"}
    return dict(json.loads(asked.stdout.splitlines()[-1]))


def gpu_findings(
    driver: Driver | None, torch: Mapping[str, Any], visible: Sequence[str], *, wants_gpu: bool
) -> list[Finding]:
    """torch's build against the driver, and whether each GPU that a process may use can be used."""
    if "error" in torch:
        found = f"torch {torch['error']}"
        return [Finding(level="problem", what="torch", found=found, do="install torch anew, for this machine's driver")]
    build = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "CPU"
    findings = [Finding(level="ok", what="torch", found=f"{torch['version']}, {build} build")]
    for name, error in torch["unimportable"].items():
        do = f"install the {name} that belongs to torch {torch['version']}"
        findings.append(Finding(level="problem", what=name, found=f"cannot be imported: {error}", do=do))
    if driver is not None and driver.version:
        runs = f", CUDA up to {driver.cuda}" if driver.cuda else ""
        findings.append(Finding(level="ok", what="GPU driver", found=f"{driver.version}{runs}"))
    if torch["devices"]:
        return [*findings, *(_device_finding(number, device) for number, device in enumerate(torch["devices"]))]
    return [*findings, _no_gpu(driver, torch, visible, wants_gpu=wants_gpu)]


def _device_finding(number: int, device: Mapping[str, Any]) -> Finding:
    if device["error"]:
        do = "install a torch that supports this GPU, or leave it out by CUDA_VISIBLE_DEVICES"
        return Finding(level="problem", what=f"GPU {number}", found=f"{device['name']}: {device['error']}", do=do)
    return Finding(level="ok", what=f"GPU {number}", found=f"{device['name']}, {_gb(device['memory'])}")


def _no_gpu(driver: Driver | None, torch: Mapping[str, Any], visible: Sequence[str], *, wants_gpu: bool) -> Finding:
    """Why torch sees no GPU, the likeliest reason first."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    level: Literal["note", "problem"] = "problem" if wants_gpu else "note"
    there = driver.gpus if driver is not None else ()
    if there and chosen is not None and not visible:
        found, do = f"CUDA_VISIBLE_DEVICES={chosen!r} hides all {len(there)}", "unset it, or name the GPUs to use"
    elif there and not torch["cuda"]:
        level, found = "problem", f"{len(there)} ({there[0]}), which this build of torch cannot use"
        do = f"install torch for CUDA {driver.cuda if driver else ''} or older, see Set-up in the README"
    elif there and driver is not None and _is_newer(torch["cuda"], driver.cuda):
        level = "problem"
        found = f"{len(there)} ({there[0]}); torch is built for CUDA {torch['cuda']}, the driver runs {driver.cuda}"
        do = f"install torch for CUDA {driver.cuda.partition('.')[0]}.x, or a newer driver; see Set-up in the README"
    elif there:
        level, found = "problem", f"{len(there)} ({there[0]}), but torch cannot use them: {torch['reason']}"
        do = "reinstall driver or torch so that they fit"
    elif driver is not None and driver.error:
        found, do = f"nvidia-smi: {driver.error}", "models run on the CPU; if there is a GPU, its driver needs a repair"
    elif visible:
        found = f"CUDA_VISIBLE_DEVICES={chosen}, but this machine has no NVIDIA driver"
        do = "ask those who run this machine, or take another partition; without a GPU, models run on the CPU"
    else:
        found, do = "none", "models run on the CPU"
        do = "ask for a GPU (gpus, partition in the --profile), or use --cluster local" if wants_gpu else do
    return Finding(level=level, what="GPUs", found=found, do=do)


def _is_newer(built_for: str, runs: str) -> bool:
    """Whether a CUDA build needs a newer driver: within one major version, drivers run all minor ones."""
    return bool(runs) and int(built_for.partition(".")[0]) > int(runs.partition(".")[0])


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
    with existing(folder) as was_there, tempfile.TemporaryDirectory(prefix=TRIAL, dir=folder) as trial:
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
        Finding(level=level, what=what, found=f"{folder}: {seen}; {known}{_gb(probe.free)} free", do=do),
        Finding(
            level="ok" if probe.bytes_a_second >= SLOW_BYTES_A_SECOND else "note",
            what=what,
            found=f"writes {probe.bytes_a_second / 1e6:.0f} MB/s ({WRITTEN_BYTES / 1e6:.0f} MB, synced to the disk)",
            do="" if probe.bytes_a_second >= SLOW_BYTES_A_SECOND else "slow: is it a network drive for small files?",
        ),
    ]
    works = [*(["exclusive create"] if probe.locks else []), *(["rename"] if probe.renames else [])]
    works += [] if probe.links else ["hard links"]
    if works:
        findings.append(Finding(level="ok", what=what, found=f"works: {', '.join(works)}"))
    elsewhere = f"choose a --{what.lower()} on another file system"
    if not probe.locks:
        found, do = "exclusive create succeeds on a file that exists", f"locks do not hold there: {elsewhere}"
        findings.append(Finding(level="problem", what=what, found=found, do=do))
    if not probe.renames:
        found, do = "a rename does not replace a file", f"rows would be lost there: {elsewhere}"
        findings.append(Finding(level="problem", what=what, found=found, do=do))
    if probe.links:
        do = "`dsmi-zoo merge` copies embeddings there"
        findings.append(Finding(level="note", what=what, found=f"no hard links: {probe.links}", do=do))
    return findings


def data_findings(folder: Path) -> list[Finding]:
    """Whether the images' folder is there and holds a file that can be read."""
    do = "choose a --data-root that this machine sees, and has mounted"
    try:
        entries = sum(1 for _ in folder.iterdir())
        file = next((Path(base) / files[0] for base, _, files in os.walk(folder) if files), None)
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
        "`dsmi-zoo prefetch` where it answers, then HF_HUB_OFFLINE=1 here; digits and checkpoints of your own need none"
    )
    return Finding(level="note", what="hub", found=f"{constants.ENDPOINT} does not answer ({problem})", do=do)


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


def version_of(name: str) -> str | None:
    """A library's installed version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
