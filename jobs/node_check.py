"""`dsmi-zoo doctor` on a compute node: a short job that makes the checks there, and those between it and this machine.

Both sides talk through a folder below OUT, or below the cache, which the nodes must share anyway.
"""

import functools
import os
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from data_catalog.errors import InputError
from jobs.checks import TRIAL, Finding, Folders, check_machine, existing, refuses_second_creation, version_of
from jobs.clusters.batch import batch_script, dsmi_zoo, sbatch, slurm_command, worker_requests
from jobs.clusters.machine import visible_gpus
from jobs.clusters.profile import Profile, load_profile
from jobs.clusters.slurm import check_interface, prologue
from jobs.progress import duration, plain
from jobs.route import answering, try_route
from pipeline.provenance import library_versions
from pipeline.store import write_atomically

LIMIT_MINUTES = 2
SEEN_WITHIN_S = 15.0  # how long a network file system may show an old state
ALIVE = {
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING",
    "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "UNKNOWN",
}  # fmt: skip
MUST_AGREE = ("dsmi-zoo", "dask", "distributed")  # what is sent from one to the other is unpickled by name


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Report(_Message):
    """What was found on one machine."""

    host: str
    job: str | None = None
    versions: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.level == "problem" for finding in self.findings)


class Request(_Message):
    """What the submitting side asks of the node; ``marks`` are files that it wrote just now, each holding ``token``."""

    host: str
    token: str
    marks: dict[str, Path]
    lock: Path
    node_lock: Path
    result: Path
    interface: str
    address: tuple[str, int]
    gpus: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Versions that must, or should, be the same on all machines of a run."""
    return library_versions() | {name: version_of(name) or "not installed" for name in ("dask", "distributed")}


def check_node(path: Path, folders: Folders) -> Report:
    """The node's part: read the request at ``path``, make the checks, leave the report where it says."""
    request = Request.model_validate_json(path.read_text(encoding="utf-8"))
    findings = [
        *_shared_findings(request),
        route_finding(request),
        *version_findings(request.versions, versions(), request.host),
        *_assigned_gpus(request.gpus),
        *check_machine(folders, wants_gpu=request.gpus > 0),
    ]
    report = Report(
        host=socket.gethostname(), job=os.environ.get("SLURM_JOB_ID"), versions=versions(), findings=tuple(findings)
    )
    write_atomically(request.result, lambda file: file.write(report.model_dump_json().encode()))
    return report


def _shared_findings(request: Request) -> Iterator[Finding]:
    for what, mark in request.marks.items():
        seconds = _seconds_until_seen(mark, request.token)
        name = f"{what} shared"
        if seconds is None:
            do = f"choose an --{what.lower()} on a file system that this node and {request.host} share"
            yield Finding(
                level="problem", what=name, found=f"does not see what {request.host} wrote into {mark.parent}", do=do
            )
        else:
            late = f" after {seconds:.0f} s" if seconds >= 1 else ""
            yield Finding(level="ok", what=name, found=f"sees what {request.host} wrote just now{late}")
    yield exclusive_finding(request.lock, request.host)
    write_atomically(request.node_lock, lambda file: None)


def _seconds_until_seen(mark: Path, token: str) -> float | None:
    started = time.monotonic()
    while (waited := time.monotonic() - started) < SEEN_WITHIN_S:
        try:
            if mark.read_text(encoding="utf-8") == token:
                return waited
        except OSError:
            pass
        time.sleep(0.2)
    return None


def exclusive_finding(lock: Path, other: str) -> Finding:
    """Whether a file that another machine made cannot be made here once more, on which every lock of a run rests."""
    holds = refuses_second_creation(lock)
    return Finding(
        level="ok" if holds else "problem",
        what="exclusive create",
        found=f"{'respects' if holds else 'does not respect'} a file that {other} made",
        do="" if holds else "two drivers would not see each other: choose OUT and cache on another file system",
    )


def route_finding(request: Request) -> Finding:
    """Whether the scheduler's machine is reached by the profile's interface, and the node from there."""
    from distributed.utils import get_ip_interface

    host, port = request.address
    what = f"route by {request.interface}"
    elsewhere = (
        "; `dsmi-zoo submit slurm` runs the scheduler on a node, so that only the nodes need to reach each other"
    )
    try:
        own = get_ip_interface(request.interface)
    except ValueError:
        found = f"this node has no interface {request.interface} with an IPv4 address"
        do = f"name another interface in the --profile; here are {', '.join(sorted(psutil.net_if_addrs()))}"
        return Finding(level="problem", what=what, found=found, do=do)
    there, back = try_route(own, (host, port), request.token)
    if there:
        found = f"no way from {own} to {host} on {request.host} ({there})"
        return Finding(
            level="problem", what=what, found=found, do=f"name another interface in the --profile{elsewhere}"
        )
    if back:
        found = f"{own} reaches {host} on {request.host}, but no way leads back ({back})"
        return Finding(level="problem", what=what, found=found, do=f"open ports from {host} to the nodes{elsewhere}")
    return Finding(level="ok", what=what, found=f"{own} to {host} on {request.host} and back")


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


def _assigned_gpus(wanted: int) -> Iterator[Finding]:
    """What the batch system lets this job see."""
    if not wanted:
        return
    chosen, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), visible_gpus()
    found = (
        f"CUDA_VISIBLE_DEVICES={chosen}" if chosen is not None else f"CUDA_VISIBLE_DEVICES is not set; {len(gpus)} seen"
    )
    if len(gpus) == wanted:
        yield Finding(level="ok", what="GPUs of the job", found=found)
    else:
        do = "workers on one node would share GPUs: does the site want gres or directives in another form?"
        do = do if len(gpus) > wanted else "does the site want gres or directives in another form?"
        yield Finding(level="problem", what="GPUs of the job", found=f"{found}, asked for {wanted}", do=do)


def profile_of_nodes(path: Path | None) -> Profile:
    """Read a profile; raises InputError unless it is one and names a network interface of this machine."""
    profile = load_profile(path)
    check_interface(profile, path)
    return profile


def check_from_node(profile: Profile, folders: Folders, wait_s: float, console: Console) -> Report:
    """Submit the job, wait for its report, and clean up; without a report, the findings say why there is none."""
    from distributed.utils import get_ip_interface

    assert profile.interface is not None
    host = get_ip_interface(profile.interface)
    token = secrets.token_hex(16)
    try:
        with ExitStack() as stack:
            marks = {"cache": stack.enter_context(_marked(folders.cache, token))}
            if folders.out is not None:
                marks = {"OUT": stack.enter_context(_marked(folders.out, token)), **marks}
            folder = next(iter(marks.values())).parent
            port = stack.enter_context(answering(host, token))
            request = Request(
                host=socket.gethostname(),
                token=token,
                marks=marks,
                lock=folder / "lock",
                node_lock=folder / "node-lock",
                result=folder / "report.json",
                interface=profile.interface,
                address=(host, port),
                gpus=profile.gpus,
                versions=versions(),
            )
            request.lock.touch()
            write_atomically(folder / "request.json", lambda file: file.write(request.model_dump_json().encode()))
            return _submitted(request, folder, profile, folders, wait_s, console)
    except OSError as error:
        do = "both sides talk through OUT or the cache: choose folders that can be written"
        found = f"is given up: {error}"
        return _without_report(None, Finding(level="problem", what="job", found=found, do=do))


@contextmanager
def _marked(folder: Path, token: str) -> Iterator[Path]:
    """A file with ``token`` in a folder of its own below ``folder``, for the while."""
    own = functools.partial(tempfile.TemporaryDirectory, prefix=TRIAL, dir=folder, ignore_cleanup_errors=True)
    with existing(folder), own() as path:
        mark = Path(path) / "mark"
        mark.write_text(token, encoding="utf-8")
        yield mark


def _submitted(
    request: Request, folder: Path, profile: Profile, folders: Folders, wait_s: float, console: Console
) -> Report:
    options = {"--out": folders.out, "--cache": folders.cache, "--data-root": folders.data_root}
    given = [str(part) for name, path in options.items() if path is not None for part in (name, path)]
    command = shlex.join([*dsmi_zoo(profile), "doctor", *given, "--json", "--node", str(folder / "request.json")])
    log = folder / "job.log"
    lines = [*prologue(profile), f"exec {command}"]
    script = batch_script("dsmi-zoo-doctor", worker_requests(profile), log, lines)
    mend = "; mend the --profile"
    try:
        job = sbatch(script, f"--time={LIMIT_MINUTES}")
    except InputError as error:
        return _without_report(
            None, Finding(level="problem", what="job", found=str(error).removesuffix(mend), do=mend[2:])
        )
    plain(console, f"job {job} asked for, of at most {LIMIT_MINUTES} minutes, waiting {duration(wait_s)} at most")
    ended = False
    try:
        problem = _wait(job, request.result, log, wait_s, console)
        ended = True
    finally:
        if not ended or problem is not None:
            subprocess.run(["scancel", job], capture_output=True, timeout=60)
    if problem is not None:
        return _without_report(job, problem)
    try:
        report = Report.model_validate_json(request.result.read_text(encoding="utf-8"))
    except ValidationError:
        found, do = "leaves a report that this version cannot read", "install the same dsmi-zoo on both"
        return _without_report(job, Finding(level="problem", what=f"job {job}", found=found, do=do))
    for _ in range(10):  # while it ends, it holds its log open
        if job_state(job)[0] not in ALIVE:
            break
        time.sleep(0.5)
    way_back = exclusive_finding(request.node_lock, report.host)
    same_here = way_back.model_copy(update={"what": f"exclusive create on {request.host}"})
    return report.model_copy(update={"findings": (same_here, *report.findings)})


def _without_report(job: str | None, problem: Finding) -> Report:
    return Report(host="compute node", job=job, versions={}, findings=(problem,))


def _wait(job: str, result: Path, log: Path, wait_s: float, console: Console) -> Finding | None:
    """Wait for a job's report, and say how the job is meanwhile; the problem if none comes."""
    started, asked, shown, gone_since = time.monotonic(), 0.0, "", None
    state, reason = "PENDING", ""
    with console.status(f"job {job}") as status:
        while not result.exists():
            now = time.monotonic()
            if now - started > wait_s:
                found = f"still {state} after {duration(wait_s)}{f' ({reason})' if reason else ''}; cancelled"
                do = "wait longer (--wait), or ask for less in the --profile; `squeue --start` and `sinfo` tell more"
                return Finding(level="problem", what=f"job {job}", found=found, do=do)
            if gone_since is not None and now - gone_since > SEEN_WITHIN_S / 3:
                return _ended_without_report(job, state, log)
            if now >= asked:
                state, reason = job_state(job)
                asked = now + min(10.0, max(1.0, (now - started) / 10))  # the controller has others to serve
                gone_since = None if state in ALIVE else gone_since or now
                line = f"job {job}: {state}{f' ({reason})' if reason else ''}"
                status.update(line)
                if line != shown and not console.is_terminal:
                    plain(console, line)
                shown = line
            list(result.parent.iterdir())  # makes network file systems look again
            time.sleep(0.2)
    return None


def job_state(job: str) -> tuple[str, str]:
    """A job's state in Slurm's words, and why it waits; GONE when Slurm has forgotten it, UNKNOWN in its absence."""
    try:
        said = slurm_command(["squeue", "--noheader", "--states=all", "--jobs", job, "--format=%T|%r"]).strip()
    except InputError as error:
        return ("GONE", "") if "Invalid job id" in str(error) else ("UNKNOWN", "")
    state, _, reason = said.splitlines()[0].partition("|") if said else ("GONE", "", "")
    return state, "" if reason == "None" else reason


def _ended_without_report(job: str, state: str, log: Path) -> Finding:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    except OSError:
        lines = []
    if not lines:
        found = f"{state} without a report and without a log"
        do = f"most likely its node does not see {log.parent.parent}: choose folders on a file system that all share"
        return Finding(level="problem", what=f"job {job}", found=found, do=do)
    found = "\n".join([f"{state} without a report; the last lines of its log:", *lines])
    return Finding(level="problem", what=f"job {job}", found=found, do="mend prologue or python in the --profile")
