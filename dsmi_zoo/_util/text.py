"""Text for people: printable lines, counts, sizes and durations."""

import re
import unicodedata
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

LONGEST_SHOWN = 100

# Control characters, which move a terminal's cursor or give it orders; the separators of lines and paragraphs; what
# turns the direction of writing, so that a name reads as another one; and half characters, which no file can hold.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with an escape, such as ``\\x1b``, in place of every character that a terminal would obey."""
    return _UNPRINTABLE.sub(_escaped, text)


def is_printable(text: str) -> bool:
    """Whether a terminal obeys no character of the text, and a file can hold all of them."""
    return _UNPRINTABLE.search(text) is None


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """The text as a single printable line: a line break, with the blanks around it, becomes one blank."""
    lines = (line.strip() for line in re.split(r"[\r\n]+", text))
    return printable(" ".join(line for line in lines if line))


def shown(value: object, most: int = LONGEST_SHOWN) -> str:
    """What an error shows of a value: its ``repr``, in one line of so many characters at most."""
    try:
        text = repr(value)
    # Whole numbers of thousands of digits, lists in lists in lists.
    except (
        ValueError,
        RecursionError,
    ):
        return f"a {type(value).__name__} that is too large to show"
    return shortened(text, most)


def shortened(text: str, most: int = LONGEST_SHOWN) -> str:
    """The text as one line of so many characters at most."""
    line = one_line(text[: 10 * most])  # to clean a text of megabytes takes long
    return line if len(line) <= most else f"{line[: most - 3]}..."


def plural(noun: str) -> str:
    """``families``, ``classes``, ``models``."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """A number and its noun: ``1 model``, ``1,556 models``."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def as_people_sort(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key for sorting: numbers in the text come by their value, "9" before "10"; the text decides between ties."""
    return [_number_or_word(part) for part in re.split(r"(\d+)", text)], text


def _number_or_word(part: str) -> tuple[int, int, str]:
    if not part.isdecimal():
        return 1, 0, part
    digits = "".join(str(unicodedata.decimal(digit)) for digit in part).lstrip("0")
    return 0, len(digits), digits


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
