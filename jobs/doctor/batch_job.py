"""The job that looks at a compute node: submitted, waited for, cancelled, its report brought back.

Both sides talk through a folder below OUT, or below the cache, which the nodes must share anyway.
"""

import functools
import logging
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically

from ..clusters.profile import Profile
from ..clusters.slurm.address import driver_address
from ..clusters.slurm.scripts import (
    MEND,
    batch_script,
    dsmi_zoo,
    prologue,
    sbatch,
    slurm_command,
    worker_requests,
)
from ..progress import SILENT, Display, duration
from .machine import TRIAL, existing, versions
from .node import SEEN_WITHIN_S, Request, exclusive_finding
from .report import Finding, Folders, Report
from .route import answering

log = logging.getLogger(__name__)

LIMIT_MINUTES = 2
ALIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "UNKNOWN",
}


def check_from_node(
    profile: Profile, folders: Folders, wait_s: float, display: Display = SILENT
) -> Report:
    """Submit the job, wait for its report, and clean up; without a report, the findings say why there is none."""
    try:
        host = driver_address(profile)
    except InputError as error:
        return _without_report(None, Finding(level="problem", what="network", found=str(error)))
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
            write_atomically(
                folder / "request.json", lambda file: file.write(request.model_dump_json().encode())
            )
            return _submitted(request, folder, profile, folders, wait_s, display)
    except OSError as error:
        do = "both sides talk through OUT or the cache: choose folders that can be written"
        found = f"is given up: {error}"
        return _without_report(None, Finding(level="problem", what="job", found=found, do=do))


@contextmanager
def _marked(folder: Path, token: str) -> Iterator[Path]:
    """A file with ``token`` in a folder of its own below ``folder``, for the while."""
    own = functools.partial(
        tempfile.TemporaryDirectory, prefix=TRIAL, dir=folder, ignore_cleanup_errors=True
    )
    with existing(folder), own() as path:
        mark = Path(path) / "mark"
        mark.write_text(token, encoding="utf-8")
        yield mark


def _submitted(
    request: Request,
    folder: Path,
    profile: Profile,
    folders: Folders,
    wait_s: float,
    display: Display,
) -> Report:
    options = {"--out": folders.out, "--cache": folders.cache, "--data-root": folders.data_root}
    given = [
        str(part) for name, path in options.items() if path is not None for part in (name, path)
    ]
    command = shlex.join(
        [*dsmi_zoo(profile), "doctor", *given, "--json", "--node", str(folder / "request.json")]
    )
    job_log = folder / "job.log"
    lines = [*prologue(profile, profile.processes()), f"exec {command}"]
    script = batch_script("dsmi-zoo-doctor", worker_requests(profile), job_log, lines)
    try:
        job = sbatch(script, f"--time={LIMIT_MINUTES}")
    except InputError as error:
        found = str(error).removesuffix(f"; {MEND}")
        return _without_report(None, Finding(level="problem", what="job", found=found, do=MEND))
    log.info(
        f"job {job} asked for, of at most {LIMIT_MINUTES} minutes, waiting {duration(wait_s)} at most"
    )
    ended = False
    try:
        problem = _wait(job, request.result, job_log, wait_s, display)
        ended = True
    finally:
        if not ended or problem is not None:
            subprocess.run(["scancel", job], capture_output=True, timeout=60)
    if problem is not None:
        return _without_report(job, problem)
    try:
        report = Report.model_validate_json(request.result.read_text(encoding="utf-8"))
    except ValidationError:
        found, do = (
            "leaves a report that this version cannot read",
            "install the same dsmi-zoo on both",
        )
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


def _wait(job: str, result: Path, job_log: Path, wait_s: float, display: Display) -> Finding | None:
    """Wait for a job's report, and say how the job is meanwhile; the problem if none comes."""
    started, asked, shown, gone_since = time.monotonic(), 0.0, "", None
    state, reason = "PENDING", ""
    with display.status(f"job {job}") as show:
        while not result.exists():
            now = time.monotonic()
            if now - started > wait_s:
                found = f"still {state} after {duration(wait_s)}{f' ({reason})' if reason else ''}; cancelled"
                do = "wait longer (--wait), or ask for less in the --profile; `squeue --start` and `sinfo` tell more"
                return Finding(level="problem", what=f"job {job}", found=found, do=do)
            if gone_since is not None and now - gone_since > SEEN_WITHIN_S / 3:
                return _ended_without_report(job, state, job_log)
            if now >= asked:
                state, reason = job_state(job)
                # The controller has others to serve.
                asked = now + min(10.0, max(1.0, (now - started) / 10))
                gone_since = None if state in ALIVE else gone_since or now
                line = f"job {job}: {state}{f' ({reason})' if reason else ''}"
                show(line)
                if line != shown:
                    log.log(display.step_level, line)
                shown = line
            list(result.parent.iterdir())  # makes network file systems look again
            time.sleep(0.2)
    return None


def job_state(job: str) -> tuple[str, str]:
    """A job's state in Slurm's words, and why it waits; GONE when Slurm has forgotten it, UNKNOWN in its absence."""
    try:
        said = slurm_command(
            ["squeue", "--noheader", "--states=all", "--jobs", job, "--format=%T|%r"]
        ).strip()
    except InputError as error:
        return ("GONE", "") if "Invalid job id" in str(error) else ("UNKNOWN", "")
    state, _, reason = said.splitlines()[0].partition("|") if said else ("GONE", "", "")
    return state, "" if reason == "None" else reason


def _ended_without_report(job: str, state: str, job_log: Path) -> Finding:
    try:
        lines = job_log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    except OSError:
        lines = []
    if not lines:
        found = f"{state} without a report and without a log"
        folder = job_log.parent.parent
        do = f"most likely its node does not see {folder}: choose folders on a file system that all share"
        return Finding(level="problem", what=f"job {job}", found=found, do=do)
    found = "\n".join([f"{state} without a report; the last lines of its log:", *lines])
    return Finding(
        level="problem",
        what=f"job {job}",
        found=found,
        do="mend prologue or python in the --profile",
    )
