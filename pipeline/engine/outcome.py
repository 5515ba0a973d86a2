"""What the driver learns about an entry that a worker has finished."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How an entry ended, ``ok`` or failed; its row is on disk. ``readings`` says how ambiguous input was read."""

    slug: str
    name: str
    ok: bool
    message: str
    seconds: float
    readings: str = ""
