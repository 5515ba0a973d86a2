"""Read settings from a TOML file."""

import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import InputError
from .text import shortened

# Text of several lines comes first, because it may hold what looks like the others.
_LONG_TEXT = r'"""(?:[^\\]|\\.)*?"""' + "|" + r"'''.*?'''"
_TEXT = r'"(?:[^"\\\n]|\\.)*(?:"|$)' + "|" + r"'[^'\n]*(?:'|$)"
STRING_OR_COMMENT = re.compile(f"{_LONG_TEXT}|{_TEXT}|#[^\\n]*", re.MULTILINE | re.DOTALL)
MOST_DOTS = 100  # in a line, outside text
MOST_BYTES = 100_000  # of settings, which a person writes


def _has_deep_keys(text: str) -> bool:
    """Whether a key such as ``a.a.a`` has so many parts that Python's reader would take gigabytes for them."""
    return any(line.count(".") > MOST_DOTS for line in STRING_OR_COMMENT.sub("", text).splitlines())


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises
    ------
    InputError
        For a file that cannot be read, is larger than settings are, or no TOML.
    """
    try:
        with path.open("rb") as file:  # of what never ends, such as a device, no more is read
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{shortened(str(path), 300)}: cannot be read: {reason}") from None
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{path}: cannot be read as TOML: it has more than {MOST_BYTES // 1000} kB"
        )
    try:
        text = content.decode()
        if _has_deep_keys(text):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        raise InputError(
            f"{path}: cannot be read as TOML: its keys or values are nested too deep"
        ) from None
    # Also of bytes that are no UTF-8, and of numbers of thousands of digits.
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as TOML: {shortened(str(error), 200)}") from None
