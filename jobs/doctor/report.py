"""The findings of all checks, and their output on a console."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.text import Text

from dsmi_zoo._util.text import printable

Level = Literal["ok", "note", "problem"]
COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


class Finding(BaseModel):
    """The result of one check: its level, what was found, and what to do about it unless it is ok."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    what: str
    found: str
    do: str = ""

    def lines(self, width: int) -> list[Text]:
        """Return the lines for a terminal, with ``what`` padded to ``width`` columns."""
        first, *more = [printable(line) for line in self.found.splitlines()] or [""]
        level = (f"{self.level:<8}", COLOURS[self.level])
        lines = [Text.assemble("  ", level, f"{self.what:<{width}}  {first}")]
        lines += [Text(f"{'':12}{line}", "dim") for line in more]
        if self.do:
            lines.append(Text(f"{'':12}-> {printable(self.do)}"))
        return lines


def ok(what: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(level="ok", what=what, found=found)


def note(what: str, found: str, do: str) -> Finding:
    """Return a finding that stops no run."""
    return Finding(level="note", what=what, found=found, do=do)


def problem(what: str, found: str, do: str = "") -> Finding:
    """Return a finding that would stop or spoil a run."""
    return Finding(level="problem", what=what, found=found, do=do)


class Report(BaseModel):
    """The findings on one machine; a compute node sends them as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    job: str | None = None
    versions: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """The number of problems."""
        return sum(finding.level == "problem" for finding in self.findings)

    def show(self, console: Console) -> None:
        """Print all findings."""
        job = f", by job {self.job}" if self.job else ""
        console.print(Text(f"\n{printable(self.host)}{job}", "bold"), soft_wrap=True)
        width = max(len(finding.what) for finding in self.findings)
        for finding in self.findings:
            for line in finding.lines(width):
                console.print(line, soft_wrap=True)


@dataclass(frozen=True)
class Folders:
    """The folders of a run."""

    cache: Path
    out: Path | None = None
    data_root: Path | None = None
