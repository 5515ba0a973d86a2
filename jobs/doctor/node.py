"""The checks that a job makes on a compute node: of the machine, and of what lies between it and the submitting one."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from distributed.utils import get_ip_interface

from dsmi_zoo._util.files import write_atomically

from ..clusters.machine import visible_gpus
from ..clusters.slurm.address import own_address
from .machine import check_machine, refuses_second_creation, version_findings, versions
from .report import Finding, Folders, Message, Report
from .route import try_route

SEEN_WITHIN_S = 15.0  # how long a network file system may show an old state


class Request(Message):
    """What the submitting side asks of the node; ``marks`` are files that it wrote just now, each holding ``token``."""

    host: str
    token: str
    marks: dict[str, Path]
    lock: Path
    node_lock: Path
    result: Path
    interface: str | None
    address: tuple[str, int]
    gpus: int
    versions: dict[str, str]


def check_node(path: Path, folders: Folders) -> Report:
    """The node's part: read the request at ``path``, make the checks, leave the report where it says."""
    request = Request.model_validate_json(path.read_text(encoding="utf-8"))
    findings = [
        *shared_findings(request),
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
    write_atomically(request.result, lambda file: file.write(report.model_dump_json().encode()))
    return report


def shared_findings(request: Request) -> Iterator[Finding]:
    """Whether the node sees what the submitting side wrote, and respects its locks."""
    started = time.monotonic()
    for what, mark in request.marks.items():
        seconds = _seconds_until_seen(mark, request.token, started)
        name = f"{what} shared"
        if seconds is None:
            do = f"choose an --{what.lower()} on a file system that this node and {request.host} share"
            yield Finding(
                level="problem",
                what=name,
                found=f"does not see what {request.host} wrote into {mark.parent}",
                do=do,
            )
        else:
            late = f" after {seconds:.0f} s" if seconds >= 1 else ""
            yield Finding(
                level="ok", what=name, found=f"sees what {request.host} wrote just now{late}"
            )
    yield exclusive_finding(request.lock, request.host)
    write_atomically(request.node_lock, lambda file: None)


def _seconds_until_seen(mark: Path, token: str, started: float) -> float | None:
    while True:
        waited = time.monotonic() - started
        with suppress(OSError):
            if mark.read_text(encoding="utf-8") == token:
                return waited
        if waited > SEEN_WITHIN_S:
            return None
        time.sleep(0.2)


def exclusive_finding(lock: Path, other: str) -> Finding:
    """Whether a file that another machine made cannot be made here once more, on which every lock of a run rests."""
    holds = refuses_second_creation(lock)
    return Finding(
        level="ok" if holds else "problem",
        what="exclusive create",
        found=f"{'respects' if holds else 'does not respect'} a file that {other} made",
        do=""
        if holds
        else "two drivers would not see each other: choose OUT and cache on another file system",
    )


def route_finding(request: Request) -> Finding:
    """Whether this node reaches the scheduler's machine, by the profile's interface if it names one, and is reached."""
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
        do = f"{other}; here are {', '.join(sorted(psutil.net_if_addrs()))}"
        return Finding(level="problem", what=what, found=found, do=do)
    there, back = (
        try_route(own, (host, port), request.token) if own else ("no network leads there", "")
    )
    if there:
        found = f"no way from {own or 'here'} to {host} on {request.host} ({there})"
        return Finding(level="problem", what=what, found=found, do=f"{other}{elsewhere}")
    if back:
        found = f"{own} reaches {host} on {request.host}, but no way leads back ({back})"
        return Finding(
            level="problem",
            what=what,
            found=found,
            do=f"open ports from {host} to the nodes{elsewhere}",
        )
    return Finding(level="ok", what=what, found=f"{own} to {host} on {request.host} and back")


def assigned_gpu_findings(wanted: int) -> Iterator[Finding]:
    """What the batch system lets this job see."""
    if not wanted:
        return
    chosen, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), visible_gpus()
    found = (
        f"CUDA_VISIBLE_DEVICES={chosen}"
        if chosen is not None
        else f"CUDA_VISIBLE_DEVICES is not set; {len(gpus)} seen"
    )
    if len(gpus) == wanted:
        yield Finding(level="ok", what="GPUs of the job", found=found)
    else:
        do = "workers on one node would share GPUs: does the site want gres or directives in another form?"
        do = do if len(gpus) > wanted else "does the site want gres or directives in another form?"
        yield Finding(
            level="problem", what="GPUs of the job", found=f"{found}, asked for {wanted}", do=do
        )
