"""The check of a compute node: a Slurm job runs ``dsmi-zoo doctor`` there and returns its report in a file.

The submitting machine writes a request into a folder below OUT, or below the cache, both of which the nodes must share;
the job writes its report beside it. Meanwhile the submitting machine listens on a port for the check of the route.
"""

import hmac
import logging
import os
import re
import secrets
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_text

from ..clusters.machine import visible_gpus
from ..clusters.profile import Profile
from ..clusters.slurm.scripts import (
    HINT,
    batch_script,
    driver_address,
    dsmi_zoo_command,
    own_address,
    prologue,
    sbatch,
    slurm_command,
    worker_requests,
)
from ..progress import SILENT, Display, duration
from .machine import (
    TRIAL,
    check_machine,
    created_if_missing,
    refuses_second_creation,
    version_findings,
    versions,
)
from .report import Finding, Folders, Report, ok, problem

log = logging.getLogger(__name__)

LIMIT_MINUTES = 2
VISIBLE_WITHIN_S = 15.0  # a network file system may show an old state for that long
REPORT_AFTER_END_S = 5.0
REACHED_WITHIN_S = 5.0
REACHED = "reached"
ENDED = re.compile(
    "BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|FORGOTTEN|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|TIMEOUT"
)


class Request(BaseModel):
    """The checks to make on the node: of the files ``marks``, which hold ``token``, the route, GPUs and versions."""

    host: str
    token: str
    marks: dict[str, Path]
    interface: str | None
    address: tuple[str, int]
    gpus: int
    versions: dict[str, str]


def check_by_job(
    profile: Profile, folders: Folders, wait_s: float, display: Display = SILENT
) -> Report:
    """Submit the job and return its report, or one that says why the job gave none."""
    try:
        host = driver_address(profile)
    except InputError as error:
        return _without_report(problem("network", str(error)))
    token = secrets.token_hex(16)
    try:
        with ExitStack() as stack:
            marks = {"cache": stack.enter_context(_marked(folders.cache, token))}
            if folders.out is not None:
                marks = {"OUT": stack.enter_context(_marked(folders.out, token)), **marks}
            folder = next(iter(marks.values())).parent
            port = stack.enter_context(listening_port(host, token))
            request = Request(
                host=socket.gethostname(),
                token=token,
                marks=marks,
                interface=profile.interface,
                address=(host, port),
                gpus=profile.gpus,
                versions=versions(),
            )
            write_text(folder / "request.json", request.model_dump_json())
            (folder / "lock").touch()
            return _report_of_job(folder, profile, folders, wait_s, display)
    except OSError as error:
        do = "choose writable folders: the job and this machine exchange files in OUT or the cache"
        return _without_report(problem("job", f"was abandoned: {error}", do))


@contextmanager
def _marked(folder: Path, token: str) -> Iterator[Path]:
    """Write ``token`` into a file in a temporary folder below ``folder``."""
    with (
        created_if_missing(folder),
        tempfile.TemporaryDirectory(prefix=TRIAL, dir=folder, ignore_cleanup_errors=True) as trial,
    ):
        mark = Path(trial) / "mark"
        mark.write_text(token, encoding="utf-8")
        yield mark


def _without_report(finding: Finding, job: str | None = None) -> Report:
    return Report(host="compute node", job=job, versions={}, findings=(finding,))


def _report_of_job(
    folder: Path, profile: Profile, folders: Folders, wait_s: float, display: Display
) -> Report:
    """Submit the job, wait for its report, and cancel it if there is none."""
    options = {"--out": folders.out, "--cache": folders.cache, "--data-root": folders.data_root}
    command = [*dsmi_zoo_command(profile), "doctor", "--node", str(folder)]
    for name, path in options.items():
        command += [] if path is None else [name, str(path)]
    job_log = folder / "job.log"
    lines = [*prologue(profile, profile.processes()), f"exec {shlex.join(command)}"]
    script = batch_script("dsmi-zoo-doctor", worker_requests(profile), job_log, lines)
    try:
        job = sbatch(script, f"--time={LIMIT_MINUTES}")
    except InputError as error:
        return _without_report(problem("job", str(error).removesuffix(f"; {HINT}"), HINT))
    log.info(
        f"job {job} submitted, of at most {LIMIT_MINUTES} minutes; waiting up to {duration(wait_s)}"
    )
    report = folder / "report.json"
    try:
        failure = _wait(job, report, job_log, wait_s, display)
    except BaseException:
        _cancel(job)
        raise
    if failure is not None:
        _cancel(job)
        return _without_report(failure, job)
    for _ in range(10):  # the job holds its log open until it ends
        if ENDED.fullmatch(job_state(job)[0]):
            break
        time.sleep(0.5)
    try:
        return Report.model_validate_json(report.read_text(encoding="utf-8"))
    except ValidationError:
        found = "its report cannot be read by this version"
        return _without_report(problem(f"job {job}", found, "install the same dsmi-zoo on both"))


def _cancel(job: str) -> None:
    subprocess.run(["scancel", job], capture_output=True, timeout=60)


def _wait(job: str, report: Path, job_log: Path, wait_s: float, display: Display) -> Finding | None:
    """Wait for a job's report, and show the job's state meanwhile; return the problem if no report comes."""
    started = next_look = time.monotonic()
    ended_at: float | None = None
    shown = ""
    with display.status(f"job {job}") as show:
        while not report.exists():
            now = time.monotonic()
            if now >= next_look:
                state, reason = job_state(job)
                # The controller has other users: ask more rarely the longer it takes.
                next_look = now + min(10.0, max(1.0, (now - started) / 10))
                if ENDED.fullmatch(state):
                    ended_at = ended_at or now
                line = f"job {job}: {state}{reason}"
                show(line)
                if line != shown:
                    log.log(display.step_level, line)
                shown = line
            if now - started > wait_s:
                found = f"still {state} after {duration(wait_s)}{reason}; cancelled"
                do = "wait longer (--wait), or ask for less in the --profile; see `squeue --start` and `sinfo`"
                return problem(f"job {job}", found, do)
            if ended_at is not None and now - ended_at > REPORT_AFTER_END_S:
                return _ended_without_report(job, state, job_log)
            list(report.parent.iterdir())  # makes network file systems look again
            time.sleep(0.2)
    return None


def job_state(job: str) -> tuple[str, str]:
    """Return a job's state (also FORGOTTEN or UNKNOWN), and in brackets the reason why it waits."""
    command = ["squeue", "--noheader", "--states=all", "--jobs", job, "--format=%T|%r"]
    try:
        answer = slurm_command(command).strip() or "FORGOTTEN"
    except InputError as error:
        answer = "FORGOTTEN" if "Invalid job id" in str(error) else "UNKNOWN"
    state, _, reason = answer.splitlines()[0].partition("|")
    return state, "" if reason in ("", "None") else f" ({reason})"


def _ended_without_report(job: str, state: str, job_log: Path) -> Finding:
    lines = []
    with suppress(OSError):
        lines = job_log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    if not lines:
        folder = job_log.parent.parent
        do = f"most likely its node does not see {folder}: choose folders on a file system that all share"
        return problem(f"job {job}", f"{state} without a report and without a log", do)
    found = "\n".join([f"{state} without a report; the last lines of its log:", *lines])
    return problem(f"job {job}", found, "correct prologue or python in the --profile")


def check_this_node(folder: Path, folders: Folders) -> None:
    """Run the checks on the node: read the request in ``folder``, and write the report there."""
    request = Request.model_validate_json((folder / "request.json").read_text(encoding="utf-8"))
    findings = [
        *shared_findings(request, folder / "lock"),
        route_finding(request),
        *version_findings(request.versions, versions(), request.host),
        *assigned_gpu_findings(request.gpus),
        *check_machine(folders, wants_gpu=request.gpus > 0),
    ]
    report = Report(
        host=socket.gethostname(),
        job=os.environ.get("SLURM_JOB_ID"),
        versions=versions(),
        findings=tuple(findings),
    )
    write_text(folder / "report.json", report.model_dump_json())


def shared_findings(request: Request, lock: Path) -> Iterator[Finding]:
    """Check that the node sees what the submitting machine wrote, and respects its locks."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    for what, mark in request.marks.items():
        if _becomes_visible(mark, request.token, deadline):
            yield ok(f"{what} shared", f"sees what {request.host} wrote just now")
        else:
            found = f"does not see what {request.host} wrote into {mark.parent}"
            do = f"choose an --{what.lower()} on a file system that this node and {request.host} share"
            yield problem(f"{what} shared", found, do)
    if refuses_second_creation(lock):
        yield ok("exclusive create", f"respects a file that {request.host} made")
    else:
        found = f"does not respect a file that {request.host} made"
        do = "two drivers would not see each other: choose OUT and cache on another file system"
        yield problem("exclusive create", found, do)


def _becomes_visible(mark: Path, token: str, deadline: float) -> bool:
    while True:
        with suppress(OSError):
            if mark.read_text(encoding="utf-8") == token:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def route_finding(request: Request) -> Finding:
    """Check that this node and the scheduler's machine reach each other, by the profile's interface if it names one."""
    import psutil
    from distributed.utils import get_ip_interface

    host, port = request.address
    what = f"route by {request.interface}" if request.interface else "route"
    other = f"name {'another' if request.interface else 'the'} interface in the --profile"
    elsewhere = (
        "; `dsmi-zoo submit slurm` runs the scheduler on a node, "
        "so that only the nodes need to reach each other"
    )
    try:
        own = get_ip_interface(request.interface) if request.interface else own_address(host)
    except ValueError:
        found = f"this node has no interface {request.interface} with an IPv4 address"
        return problem(what, found, f"{other}; here are {', '.join(sorted(psutil.net_if_addrs()))}")
    why_not_there, why_not_back = "no network leads there", ""
    if own:
        why_not_there, why_not_back = try_route(own, (host, port), request.token)
    if why_not_there:
        found = f"no way from {own or 'here'} to {host} on {request.host} ({why_not_there})"
        return problem(what, found, f"{other}{elsewhere}")
    if why_not_back:
        found = f"{own} reaches {host} on {request.host}, but no way leads back ({why_not_back})"
        return problem(what, found, f"open ports from {host} to the nodes{elsewhere}")
    return ok(what, f"{own} to {host} on {request.host} and back")


def assigned_gpu_findings(wanted: int) -> list[Finding]:
    """Check that the job sees as many GPUs as it requested."""
    if not wanted:
        return []
    chosen, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), visible_gpus()
    found = f"CUDA_VISIBLE_DEVICES={chosen}"
    if chosen is None:
        found = f"CUDA_VISIBLE_DEVICES is not set; {len(gpus)} seen"
    if len(gpus) == wanted:
        return [ok("GPUs of the job", found)]
    shared = "workers on one node would share GPUs: " if len(gpus) > wanted else ""
    do = f"{shared}set gres or directives in the --profile in the form that this site expects"
    return [problem("GPUs of the job", f"{found}, asked for {wanted}", do)]


@contextmanager
def listening_port(host: str, token: str) -> Iterator[int]:
    """Listen on a port of the address ``host``, and yield the port.

    A caller sends the token and a port of its machine; the answer says whether that port can be reached from here.
    """
    with socket.create_server((host, 0)) as server:
        threading.Thread(target=_answer, args=(server, token), daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends the thread's accept()


def _answer(server: socket.socket, token: str) -> None:
    while True:
        try:
            caller, (address, _) = server.accept()
        except OSError:
            return
        with caller, suppress(OSError):
            caller.settimeout(REACHED_WITHIN_S)
            request = caller.makefile(encoding="ascii", errors="replace").readline(256)
            received, _, port = request.strip().partition(" ")
            if hmac.compare_digest(received.encode(), token.encode()) and port.isdecimal():
                caller.sendall(f"{_reach((address, int(port)))}\n".encode())


def _reach(address: tuple[str, int]) -> str:
    try:
        with socket.create_connection(address, REACHED_WITHIN_S):
            return REACHED
    except OSError as error:
        return error.strerror or str(error)


def try_route(own: str, address: tuple[str, int], token: str) -> tuple[str, str]:
    """Connect from the address ``own`` to the machine that listens at ``address``.

    Returns
    -------
    (str, str)
        Why the route there fails, and why the route back fails; each is empty if it works.
    """
    try:
        with (
            socket.create_server((own, 0)) as back,
            socket.create_connection(address, REACHED_WITHIN_S, (own, 0)) as there,
        ):
            there.settimeout(2 * REACHED_WITHIN_S)
            there.sendall(f"{token} {back.getsockname()[1]}\n".encode())
            answer = there.makefile().readline().strip()
    except OSError as error:
        return error.strerror or str(error), ""
    if not answer:
        return "another program answers there", ""
    return "", "" if answer == REACHED else answer
