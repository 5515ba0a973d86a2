"""Times and sizes as people write them: 1h30m, 20GB."""

import re
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART_OF_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(min|[smhd])")
_TIME = re.compile(f"(?:{_PART_OF_TIME.pattern})+")
_SIZE = TypeAdapter(ByteSize)


def in_seconds(value: Any) -> Any:
    """A time such as ``1h30m`` as seconds; numbers pass as they are, and anything else raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.replace(" ", "").lower() if isinstance(value, str) else ""
    if not _TIME.fullmatch(text):
        raise ValueError("must be a time such as 90s, 45m or 1h30m")
    return sum(float(number) * SECONDS[unit] for number, unit in _PART_OF_TIME.findall(text))


def in_bytes(value: Any) -> Any:
    """A size such as ``20GB`` as bytes; numbers pass as they are, and anything else raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    problem = "must be a size such as 500MB or 20GB"
    # 20 may mean bytes, MB or GB.
    has_unit = isinstance(value, str) and value.isascii() and value[-1:].isalpha()
    if not has_unit:
        raise ValueError(problem)
    try:
        return int(_SIZE.validate_python(value))
    except ValidationError:
        raise ValueError(problem) from None


def size_in_words(size: float) -> str:
    """Bytes for people: ``1.5 GB``."""
    return ByteSize(size).human_readable(decimal=True, separator=" ")
