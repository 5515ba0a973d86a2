"""A list of entries for people: which facts it has, in which order it can be, and how it is laid out."""

from collections.abc import Callable, Iterator, Sequence

from dsmi_zoo.data_catalog.models.entry import ModelEntry

FACTS: dict[str, Callable[[ModelEntry], str | float | None]] = {
    "model": lambda entry: entry.model,
    "pixels": lambda entry: entry.img_size,
    "kind": lambda entry: entry.kind,
    "network": lambda entry: (
        entry.builder or (entry.architecture if entry.architecture != entry.model else None)
    ),
    "params (M)": lambda entry: entry.params_m,
    "GMACs": lambda entry: entry.extras.get("gmacs"),
    "images/s": lambda entry: entry.extras.get("throughput"),
    "top-1 (%)": lambda entry: entry.top1,
}
"""The columns of a list, and what an entry has of each."""

ORDERS = {
    "model": "model",
    "size": "pixels",
    "params": "params (M)",
    "gmacs": "GMACs",
    "throughput": "images/s",
    "top1": "top-1 (%)",
}
GREATEST_FIRST = ("throughput", "top1")


def in_order(entries: Sequence[ModelEntry], order: str) -> list[ModelEntry]:
    """Sorted by a key of ``ORDERS``: accuracies and throughputs the greatest first, all else the least.

    What is unknown comes last.
    """
    return sorted(entries, key=lambda entry: _place(entry, order))


def _place(entry: ModelEntry, order: str) -> tuple[bool, float | str]:
    value = FACTS[ORDERS[order]](entry)
    if isinstance(value, int | float) and order in GREATEST_FIRST:
        value = -value
    return value is None, "" if value is None else value


def table(entries: Sequence[ModelEntry]) -> Iterator[str]:
    """Lines of a table with a head; without the columns of which nothing is known."""
    columns = []
    for title, fact in FACTS.items():
        values = [fact(entry) for entry in entries]
        if any(value is not None for value in values):
            columns.append(_column(title, values))
    for cells in zip(*columns, strict=True):
        yield "  ".join(cells).rstrip()


def _column(title: str, values: Sequence[object]) -> list[str]:
    """A column with its head, all cells as wide as the widest: text stands to the left, numbers to the right."""
    cells = [title, *("-" if value is None else said(value) for value in values)]
    width = max(map(len, cells))
    if any(isinstance(value, str) for value in values):
        return [cell.ljust(width) for cell in cells]
    return [cell.rjust(width) for cell in cells]


def said(value: object) -> str:
    """A value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}"
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
