"""`dsmi-zoo doctor`: look, and say what was found."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted, printable

from ..clusters.profile import load_profile
from ..clusters.slurm.address import interface_address
from ..progress import Display
from .batch_job import check_from_node
from .machine import check_machine, versions
from .report import Finding, Folders, Report

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    cluster: str,
    profile: Path | None,
    folders: Folders,
    wait_s: float,
    as_json: bool,
    display: Display,
) -> int:
    """Check this machine and, for ``cluster`` slurm, a compute node that a short job runs on.

    Returns
    -------
    int
        The exit code: 0, or 1 when there are problems.

    Raises
    ------
    InputError
        For a profile that is none, names no interface of this machine, or says nothing to the kind of cluster.
    """
    if profile is not None and cluster != "slurm":
        raise InputError("--profile means nothing without --cluster slurm")
    nodes = load_profile(profile) if cluster == "slurm" else None
    if nodes is not None and nodes.interface is not None:
        interface_address(nodes.interface)
    console = Console()
    with display.status("Looking at this machine"):
        findings = check_machine(
            folders, wants_gpu=cluster == "cuda", wants_slurm=cluster == "slurm"
        )
    reports = [Report(host=socket.gethostname(), versions=versions(), findings=tuple(findings))]
    if not as_json:
        show(reports[0], console)
    if nodes is not None:
        reports.append(check_from_node(nodes, folders, wait_s, display))
        if not as_json:
            show(reports[1], console)
    problems = sum(report.problems for report in reports)
    if as_json:
        document = {
            "problems": problems,
            "machines": [report.model_dump(mode="json") for report in reports],
        }
        print(json.dumps(document, indent=2))
    else:
        console.print(summary(reports), markup=False, highlight=False)
    return 1 if problems else 0


def show(report: Report, console: Console) -> None:
    """Print findings one below the other, and below each problem or note what to do."""
    job = f", by job {report.job}" if report.job else ""
    console.print(Text(f"\n{printable(report.host)}{job}", "bold"), soft_wrap=True)
    width = max(len(finding.what) for finding in report.findings)
    for finding in report.findings:
        for line in lines_of(finding, width):
            console.print(line, soft_wrap=True)


def lines_of(finding: Finding, width: int) -> list[Text]:
    """A finding as lines: its level, what was looked at in ``width`` columns, how it is, and what to do."""
    first, *more = [printable(line) for line in finding.found.splitlines()] or [""]
    head = Text.assemble(
        "  ", (f"{finding.level:<8}", COLOURS[finding.level]), f"{finding.what:<{width}}  {first}"
    )
    indented = [Text(f"{'':12}{line}", "dim") for line in more]
    return [head, *indented, *([Text(f"{'':12}-> {printable(finding.do)}")] if finding.do else [])]


def summary(reports: Sequence[Report]) -> str:
    """Problems and notes of all machines together."""
    levels = [finding.level for report in reports for finding in report.findings]
    problems, notes = levels.count("problem"), levels.count("note")
    return (
        f"\n{counted(problems, 'problem') if problems else 'no problem'}, {counted(notes, 'note')}"
    )
