"""What a check finds, and what all checks of one machine make."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """What goes from one machine to another as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Message):
    """One thing that was looked at: how it is, and what to do about it unless it is well."""

    level: Literal["ok", "note", "problem"]
    what: str
    found: str
    do: str = ""


class Report(Message):
    """What was found on one machine."""

    host: str
    job: str | None = None
    versions: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.level == "problem" for finding in self.findings)


@dataclass(frozen=True)
class Folders:
    """The folders of a run."""

    cache: Path
    out: Path | None = None
    data_root: Path | None = None
