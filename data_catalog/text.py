"""Text that somebody else wrote: how it is shown, and what of it no name may hold."""

import re

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
