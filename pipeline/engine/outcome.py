"""What the driver hears of a finished entry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """The outcome of an entry; the row itself is on disk."""

    slug: str
    name: str
    ok: bool
    message: str
    seconds: float
