"""``dsmi-zoo doctor``: check this machine and, by a short job, a compute node."""

import json
import socket
from pathlib import Path

from rich.console import Console

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted

from ..clusters.profile import load_profile
from ..clusters.slurm.scripts import interface_address
from ..progress import Display
from .machine import check_machine, versions
from .report import Folders, Report


def doctor(
    cluster: str,
    profile: Path | None,
    folders: Folders,
    wait_s: float,
    as_json: bool,
    display: Display,
) -> int:
    """Check this machine and, for ``cluster`` slurm, a compute node by a short job.

    Returns
    -------
    int
        The exit code: 0, or 1 when there are problems.

    Raises
    ------
    InputError
        For a profile that is invalid, names no interface of this machine, or does not apply to the kind of cluster.
    """
    if profile is not None and cluster != "slurm":
        raise InputError("--profile means nothing without --cluster slurm")
    nodes = load_profile(profile) if cluster == "slurm" else None
    if nodes is not None and nodes.interface is not None:
        interface_address(nodes.interface)
    console = Console(quiet=as_json)
    with display.status("Checking this machine"):
        findings = check_machine(
            folders, wants_gpu=cluster == "cuda", wants_slurm=cluster == "slurm"
        )
    reports = [Report(host=socket.gethostname(), versions=versions(), findings=tuple(findings))]
    reports[0].show(console)
    if nodes is not None:
        from .slurm import check_by_job

        reports.append(check_by_job(nodes, folders, wait_s, display))
        reports[1].show(console)
    problems = sum(report.problems for report in reports)
    notes = sum(finding.level == "note" for report in reports for finding in report.findings)
    if as_json:
        machines = [report.model_dump(mode="json") for report in reports]
        print(json.dumps({"problems": problems, "machines": machines}, indent=2))
    in_words = counted(problems, "problem") if problems else "no problem"
    console.print(f"\n{in_words}, {counted(notes, 'note')}", markup=False, highlight=False)
    return 1 if problems else 0
