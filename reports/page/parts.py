"""What pages are made of: sections of text, tables and figures, from which HTML and Markdown are both written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from .. import wording
from ..figures.scatter import Rendered
from .rendering import data_uri, figure_name


@dataclass(frozen=True)
class Cell:
    """One cell of a table, in words; ``ci`` is the interval that stands below the value."""

    value: str
    ci: str = ""

    @classmethod
    def of_number(
        cls, value: float | None, ci: Sequence[float] | None = None, digits: int = 2
    ) -> Self:
        """A number and, where there is one, its interval."""
        return cls(wording.fixed(value, digits), wording.interval(ci, digits) if ci else "")

    @classmethod
    def of_text(cls, text: object) -> Self:
        """Text, or a number that needs no rounding."""
        return cls(str(text))


NO_NUMBER = Cell(wording.MISSING)
"""What stands where there is no number."""


@dataclass(frozen=True)
class Table:
    """A table in words.

    Parameters
    ----------
    rows
        The first cell names its row.
    note
        A sentence below the table, or in its place where there are no rows.
    text_columns
        The columns that are no numbers.
    wordy
        Whether the first and the last column are sentences.
    """

    title: str | None
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    text_columns: Sequence[int] = (0,)
    wordy: bool = False

    def without_empty_last_column(self) -> "Table":
        """The same without its last column, if that is one of text and no row has anything to say there."""
        last = len(self.heads) - 1
        if last not in self.text_columns or any(row[last].value for row in self.rows):
            return self
        rows = [row[:last] for row in self.rows]
        return replace(self, heads=self.heads[:last], rows=rows)


def table_of_words(
    title: str | None,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | tuple[str, str]]],
    *,
    text_columns: Sequence[int] = (0,),
    wordy: bool = False,
) -> Table:
    """A table whose cells are words already; a pair is a number and its interval."""
    cells = [
        [Cell(*entry) if isinstance(entry, tuple) else Cell(entry) for entry in row] for row in rows
    ]
    return Table(title, heads, cells, text_columns=text_columns, wordy=wordy)


@dataclass(frozen=True)
class Illustration:
    """A drawing with the words below it; it stands in ``figures/`` as ``NAME.png`` and ``NAME.svg``."""

    name: str
    drawing: Rendered
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that could leave the folder."""
        if figure_name(self.name) != self.name:
            raise ValueError(f"{self.name!r} is no name of a figure's files; figure_name makes one")

    @property
    def uri(self) -> str:
        """The drawing itself, for a page of a single file."""
        return data_uri(self.drawing)

    @property
    def description(self) -> str:
        """What one would see."""
        return self.drawing.description


@dataclass(frozen=True)
class Section:
    """A part of a page; ``id`` is the anchor that links lead to."""

    id: str
    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: Sequence[Illustration] = ()
