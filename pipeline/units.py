"""Times and sizes as people write them: 1h30m, 20GB."""

import re
from collections.abc import Mapping
from typing import Any

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
BYTES = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


def in_seconds(value: Any) -> Any:
    """A time such as ``1h30m`` as seconds; numbers pass as they are, and anything else raises ValueError."""
    return _in_units(value, SECONDS, "a time such as 90s, 45m or 1h30m")


def in_bytes(value: Any) -> Any:
    """A size such as ``20GB`` as bytes; numbers pass as they are, and anything else raises ValueError."""
    return _in_units(value, BYTES, "a size such as 500MB or 20GB")


def _in_units(value: Any, units: Mapping[str, float], example: str) -> Any:
    """The text as a number of the smallest unit."""
    if isinstance(value, bool):
        raise ValueError(f"must be {example}")
    if not isinstance(value, str):
        return value
    text = value.replace(" ", "")
    names = "|".join(sorted(units, key=len, reverse=True))
    part = rf"(\d+(?:\.\d+)?)({names})"
    if not re.fullmatch(f"(?:{part})+", text, re.IGNORECASE):
        raise ValueError(f"must be {example}")
    sizes = {unit.lower(): size for unit, size in units.items()}
    return sum(float(number) * sizes[unit.lower()] for number, unit in re.findall(part, text, re.IGNORECASE))
