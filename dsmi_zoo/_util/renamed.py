"""Columns and settings that once had another name: files from before are still read."""

from collections.abc import Iterable

CURRENT = {"licence": "license"}
"""What each former name is called today."""


def current_names(names: Iterable[str]) -> list[str]:
    """Names as they are today, in their order."""
    return [CURRENT.get(name, name) for name in names]
