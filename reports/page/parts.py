"""What pages are made of: sections of text, tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..figures.canvas import Rendered
from ..wording import MISSING, fixed, interval
from .rendering import data_uri, figure_name

SENTENCES = ("Note", "Not computed")
"""Columns of sentences, which are left out when they are empty."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``ci`` is the interval, or another remark, below the value."""

    value: str
    ci: str = ""


NO_NUMBER = Cell(MISSING)
AnyCell = Cell | tuple[str, str] | str | int


def number(value: float | None, ci: Sequence[float] | None = None, digits: int = 2) -> Cell:
    """Return the cell of a rounded number and its interval, if there is one."""
    return Cell(fixed(value, digits), interval(ci, digits) if ci else "")


@dataclass(frozen=True)
class Table:
    """A table as text.

    Parameters
    ----------
    rows
        The first cell names its row.
    note
        A sentence below the table, or in its place when there are no rows.
    text_columns
        The columns that are aligned as text.
    wordy
        Whether the first and the last column are sentences.
    """

    title: str | None
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    text_columns: Sequence[int] = (0,)
    wordy: bool = False


def table_of_words(
    title: str | None,
    heads: Sequence[str],
    rows: Sequence[Sequence[AnyCell]],
    *,
    note: str = "",
    text_columns: Sequence[int] = (0,),
    wordy: bool = False,
) -> Table:
    """Return a table of cells, texts and pairs of a value and its interval."""
    cells = [[_cell(entry) for entry in row] for row in rows]
    return Table(title, heads, cells, note, text_columns, wordy)


def table_of_records(
    title: str | None, records: Sequence[Mapping[str, AnyCell]], note: str = ""
) -> Table:
    """Return a table of records {head: cell} with the same heads."""
    heads = list(records[0]) if records else []
    for name in SENTENCES:
        if not any(record.get(name) for record in records):
            heads = [head for head in heads if head != name]
    rows = [[record[head] for head in heads] for record in records]
    text_columns = [i for i, head in enumerate(heads) if i == 0 or head in SENTENCES]
    return table_of_words(title, heads, rows, note=note, text_columns=text_columns)


def _cell(entry: AnyCell) -> Cell:
    if isinstance(entry, Cell):
        return entry
    return Cell(*entry) if isinstance(entry, tuple) else Cell(str(entry))


@dataclass(frozen=True)
class Illustration:
    """A drawing with its caption, saved as ``figures/NAME.png`` and ``figures/NAME.svg``."""

    name: str
    drawing: Rendered
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that could leave the folder."""
        if figure_name(self.name) != self.name:
            raise ValueError(f"{self.name!r} is not a safe file name; use figure_name")

    @property
    def uri(self) -> str:
        """The drawing as a data URI."""
        return data_uri(self.drawing)

    @property
    def description(self) -> str:
        """The alternative text."""
        return self.drawing.description


@dataclass(frozen=True)
class Section:
    """A part of a page; ``id`` is its anchor."""

    id: str
    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: Sequence[Illustration] = ()
