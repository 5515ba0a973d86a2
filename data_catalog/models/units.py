"""Units of a catalogue's numbers: other ways to write them are read where there is one reading, else refused."""

import re
from collections.abc import Sequence

from dsmi_zoo._util.text import shown

MAX_PARAMS_M = 1e5  # a hundred billion parameters
MAX_GMACS = 1e6
MAX_STATISTIC = 1e6
PILLOW = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Interpolations by Pillow's numbers."""

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,})")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,\d{1,2}|\d+,\d{4,}|0,\d+)")
_EITHER = re.compile(r"[+-]?\d{1,3},\d{3}")
_SIDES = re.compile(r"[\[(]?\s*(?:[13]\s*[x×,* ]\s*)?(\d+)\s*[x×,* ]\s*(\d+)\s*[\])]?")


def plain_number(text: str, is_accuracy: bool) -> str:
    """Return a number without separators of thousands, decimal comma or, for an accuracy, percent sign.

    ``1,234`` is left as it is: only for an accuracy it has one reading.
    """
    if is_accuracy:
        text = text.removesuffix("%").rstrip()
    if _THOUSANDS.fullmatch(text):
        return text.replace(",", "")
    if _DECIMAL_COMMA.fullmatch(text) or (is_accuracy and _EITHER.fullmatch(text)):
        return text.replace(",", ".")
    return text


def ambiguity(text: str, is_accuracy: bool) -> str:
    """Return what is wrong with a number that has two readings, or ""."""
    if is_accuracy or not _EITHER.fullmatch(text) or _DECIMAL_COMMA.fullmatch(text):
        return ""
    return f"may be {text.replace(',', '')} or {text.replace(',', '.')}; write one of them"


def number_problem(value: float, column: str) -> str:
    """Return why the value cannot be in the column's unit, and what to do, or ""."""
    if column == "params_m" and value > MAX_PARAMS_M:
        return "is too large for millions of parameters; divide by 1,000,000"
    if column == "gmacs" and value > MAX_GMACS:
        return "is too large for billions of multiplications; divide by 1,000,000,000"
    if column == "gmacs" and value < 0:
        return "is negative; write billions of multiplications"
    if column in ("throughput", "cpu_throughput") and value <= 0:
        return "is not above 0; write images per second"
    return ""


def accuracy_problem(column: str, texts: Sequence[str]) -> str:
    """Return why the accuracies of a column, as they are written, look like fractions, or "".

    A percent sign decides that they are none, and a column of whole numbers, 0 and 1, is left as it is.
    """
    if any(text.endswith("%") for text in texts):
        return ""
    values = [float(plain_number(text, True)) for text in texts]
    if not values or max(values) > 1 or all(value in (0, 1) for value in values):
        return ""
    many = f"all {len(values)} values are" if len(values) > 1 else f"its one value, {texts[0]}, is"
    return (
        f"{column}: {many} at most 1: accuracies are percent, 0 to 100; multiply by 100, "
        "or write a percent sign if they are percent"
    )


def pixel_statistics(text: str, column: str) -> list[str]:
    """Return the three numbers of ``mean`` or ``std``; raise ValueError if they are not those of pixels of 0 to 1."""
    parts = text.strip("[]() ").replace(",", " ").split()
    for part in parts:
        try:
            value = float(part)
        except ValueError:
            continue  # the entry's own check says what is wrong
        # What is beyond has limits of its own in `Preprocessing`.
        if 1 < value <= MAX_STATISTIC or (column == "mean" and -MAX_STATISTIC <= value < 0):
            raise ValueError(
                f"{column} = {shown(text)} lies outside 0 to 1, the range of pixels here; "
                "if it is for pixels of 0 to 255, divide by 255 (both mean and std)"
            )
    return parts


def crop_share(text: str) -> str:
    """Return ``crop_pct`` as a share; raise ValueError for what looks like percent without a sign."""
    try:
        if text.endswith("%"):
            return str(float(text.removesuffix("%")) / 100)
        value = float(text)
    except ValueError:
        return text
    if 50 <= value <= 100:
        raise ValueError(
            f"crop_pct = {text} is a share, not percent; divide by 100: {value / 100:g}"
        )
    return text


def image_side(text: str) -> str:
    """Return the side of ``224x224`` or ``3,224,224``; raise ValueError unless the image is square."""
    sides = _SIDES.fullmatch(text)
    if sides is None:
        return text
    if sides[1] != sides[2]:
        raise ValueError(f"img_size = {shown(text)} is not square; write one whole number")
    return sides[1]


def interpolation_name(text: str) -> str:
    """Return an interpolation's name for Pillow's number, another case, or ``InterpolationMode.BICUBIC``."""
    number = text.removesuffix(".0")
    if number in map(str, range(len(PILLOW))):
        return PILLOW[int(number)]
    return text.rpartition(".")[2].lower()
