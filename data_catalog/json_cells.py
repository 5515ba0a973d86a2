"""JSON in a cell of a table: an object of plain values, neither deep nor huge."""

import json
import math
from typing import Any

from .text import is_printable, shown

DEEPEST = 20  # objects and lists within each other
LARGEST_INTEGER = 2**63


def json_object(text: str) -> dict[str, Any]:
    """The object that the text is.

    Raises
    ------
    ValueError
        Says what is wrong, without the text's name: it is no JSON, no object, nested more than 20 deep; a key stands
        there twice; a number is not finite or a whole one not of 64 bits; text holds control characters.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if not isinstance(value, dict):
        raise ValueError(f'must be a JSON object such as {{"num_classes": 10}}, not {shown(value)}')
    _check(value, depth=1)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {shown(twice)} twice; leave one out")
    return values


def _integer(digits: str) -> int:
    """A whole number of 64 bits; Python itself refuses to read thousands of digits."""
    if len(digits.lstrip("-")) > len(str(LARGEST_INTEGER)) or abs(int(digits)) >= LARGEST_INTEGER:
        raise ValueError(f"holds the whole number {shown(digits)}, beyond 64 bits")
    return int(digits)


def _check(value: Any, depth: int) -> None:
    if isinstance(value, dict | list) and depth > DEEPEST:
        raise ValueError(_too_deep())
    if isinstance(value, dict):
        for name, part in value.items():
            _check(name, depth)
            _check(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"holds {value}, which is not finite")
    elif isinstance(value, str) and not is_printable(value):
        raise ValueError(f"holds a control character in {shown(value)}; take it out")


def _too_deep() -> str:
    return f"is nested more than {DEEPEST} deep"
