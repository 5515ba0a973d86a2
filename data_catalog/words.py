"""How numbers of things, and names with numbers in them, are written and sorted for people."""

import re
import unicodedata


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
