"""Times of a run's networks on one device, ``OUT/timed``: a file per model, image size, device and precision."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dsmi_zoo._util.files import content_hash, write_json
from dsmi_zoo._util.settings import validation_line
from dsmi_zoo._util.text import counted, shortened

from .record import Count, Moment, Number, _Frozen

FOLDER = "timed"
QUIET = 0.1
"""The share of the cores that other processes may take before a time counts as disturbed."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Place:
    """Device on which networks are timed: torch's name for it, its model, and the threads of a CPU."""

    device: str
    name: str
    threads: int


class Passes(_Frozen):
    """Forward passes of one batch: seconds of one pass, and the peak memory in bytes.

    ``p95_s`` is None for fewer than 20 passes, which have no such percentile.
    """

    batch: Annotated[int, Field(ge=1)]
    passes: Annotated[int, Field(ge=1)]
    median_s: Positive
    p95_s: Positive | None
    memory: Count

    @property
    def rate(self) -> float:
        """Images per second, by the median."""
        return self.batch / self.median_s


class Mode(_Frozen):
    """Times of a network, eager or compiled: with one image at a time, and with the fastest batch size."""

    single: Passes
    best: Passes
    seconds_compile: Number | None = None


class TimedRow(_Frozen):
    """The times of one network on one device.

    ``largest_that_fits`` is the largest batch tried that fitted, None if memory did not limit the batches;
    ``others_share`` is the share of the cores that other processes used during the timing, ``load`` the load average
    before it. ``compiled`` is None if it was not requested, or if torch could not compile the network; ``not_compiled``
    then says why.
    """

    format: Literal[1] = 1
    model: str
    img_size: Count
    device: str
    name: str  # of the device
    threads: Annotated[int, Field(ge=1)]
    precision: str
    eager: Mode
    compiled: Mode | None = None
    not_compiled: str | None = None
    largest_that_fits: Count | None = None
    others_share: Number
    load: Number
    versions: dict[str, str]
    finished_at: Moment

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes took more than a tenth of the cores."""
        return self.others_share > QUIET

    @property
    def where(self) -> str:
        """The device, its threads and the precision, in words."""
        threads = f", {counted(self.threads, 'thread')}" if self.device == "cpu" else ""
        return f"{self.name}{threads}, {self.precision}"


def timed_path(out: Path, slug: str, place: Place, precision: str) -> Path:
    """Return the file of one network's times; its name differs between devices."""
    digest = content_hash(asdict(place))[:8]
    return out / FOLDER / f"{slug}-{place.device}-{precision}-{digest}.json"


def write_timed(path: Path, row: TimedRow) -> None:
    """Store the times of one network."""
    write_json(path, row.model_dump(mode="json"))


def read_timed(path: Path) -> TimedRow:
    """Read the times of one network.

    Raises
    ------
    ValueError, OSError
        When the file is missing, damaged or something else.
    """
    content = path.read_bytes()
    try:
        return TimedRow.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(validation_line(error)) from None


def scan_timed(out: Path, slugs: Sequence[str]) -> tuple[list[tuple[str, TimedRow]], list[str]]:
    """Return all times of the given entries, with their slugs, and a line for each unreadable file."""
    rows, unreadable = [], []
    for path in sorted((out / FOLDER).glob("*.json")):
        slug = next((one for one in slugs if path.name.startswith(f"{one}-")), None)
        if slug is None:
            continue
        try:
            rows.append((slug, read_timed(path)))
        except (OSError, ValueError) as error:
            unreadable.append(f"{path}: {shortened(str(error))}")
    return rows, unreadable
