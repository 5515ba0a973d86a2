"""Text for messages: printable lines, counts, sizes and durations."""

import re
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

MAX_SHOWN_LENGTH = 100

# Control characters, which a terminal obeys; separators of lines and paragraphs; marks that change the direction of
# writing, so that a name reads as another one; and surrogates, which no file can hold.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape every unprintable character, as in ``\\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_printable(text: str) -> bool:
    """Return whether terminals and files can hold the text as it is."""
    return _UNPRINTABLE.search(text) is None


def one_line(text: str) -> str:
    """Return the text as one printable line; line breaks and the blanks around them become one blank."""
    lines = (line.strip() for line in re.split(r"[\r\n]+", text))
    return printable(" ".join(line for line in lines if line))


def shown(value: object, most: int = MAX_SHOWN_LENGTH) -> str:
    """Return a value's ``repr`` for an error: one line of at most ``most`` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, deeply nested lists
        return f"a {type(value).__name__} that is too large to show"
    return shortened(text, most)


def shortened(text: str, most: int = MAX_SHOWN_LENGTH) -> str:
    """Return the text as one line of at most ``most`` characters."""
    line = one_line(text[: 10 * most])  # cleaning megabytes would take long
    return line if len(line) <= most else f"{line[: most - 3]}..."


def plural(noun: str) -> str:
    """Return the plural: ``families``, ``classes``, ``models``."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: ``1 model``, ``1,556 models``."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def natural_order(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that orders numbers in the text by value, "9" before "10"; ties are broken by the text."""
    key: list[tuple[int, int, str]] = []
    for part in re.split("([0-9]+)", text):
        is_number = part.isascii() and part.isdigit()
        digits = part.lstrip("0")
        key.append((0, len(digits), digits) if is_number else (1, 0, part))
    return key, text


SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART_OF_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(min|[smhd])")
_TIME = re.compile(f"(?:{_PART_OF_TIME.pattern})+")
_SIZE = TypeAdapter(ByteSize)


def in_seconds(value: Any) -> Any:
    """Return a time such as ``1h30m`` in seconds; numbers pass unchanged, anything else raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.replace(" ", "").lower() if isinstance(value, str) else ""
    if not _TIME.fullmatch(text):
        raise ValueError("must be a time such as 90s, 45m or 1h30m")
    return sum(float(number) * SECONDS[unit] for number, unit in _PART_OF_TIME.findall(text))


def in_bytes(value: Any) -> Any:
    """Return a size such as ``20GB`` in bytes; numbers pass unchanged, anything else raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    problem = "must be a size such as 500MB or 20GB"
    # A bare 20 could mean bytes, MB or GB.
    has_unit = isinstance(value, str) and value.isascii() and value[-1:].isalpha()
    if not has_unit:
        raise ValueError(problem)
    try:
        return int(_SIZE.validate_python(value))
    except ValidationError:
        raise ValueError(problem) from None


def size_in_words(size: float) -> str:
    """Return a number of bytes as text, such as ``1.5 GB``."""
    return ByteSize(size).human_readable(decimal=True, separator=" ")
