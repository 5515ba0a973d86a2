"""Rendering of pages (parts as HTML, numbers as JSON, figures as files) and of data set cards (Markdown)."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dsmi_zoo._util.files import sweep_temporary, write_atomically
from dsmi_zoo._util.locks import exclusive

from ..figures.canvas import Rendered
from ..wording import MISSING, fixed, interval

LOCK = ".report.lock"
MAX_SVG = 160_000  # bytes, above which the PNG is smaller
# Starts of blocks in Markdown: a list item, a rule, the underline of a heading.
STARTS_A_BLOCK = re.compile(r"[-+=]|\d+[.)]( |$)")
_TEMPLATES: dict[str, Any] = {
    "loader": PackageLoader("dsmi_zoo.reports.page"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}

TABLES = (
    "correlations.csv",
    "correlations.tex",
    "classes.csv",
    "confusions.csv",
    "images.csv",
    "pairs.csv",
)  # on some pages only


@dataclass(frozen=True)
class PageFiles:
    """The content of one page.

    Parameters
    ----------
    template
        The name of its template.
    context
        The template's variables.
    numbers
        The content of ``summary.json``.
    figures
        Its figures, by file name without the suffix.
    others
        Further files, by name.
    """

    template: str
    context: Mapping[str, Any]
    numbers: Mapping[str, Any]
    figures: Mapping[str, Rendered]
    others: Mapping[str, bytes] = field(default_factory=dict)

    def contents(self) -> dict[str, bytes]:
        """Return the content of each file by name, ``index.html`` last, because it links to the others."""
        files: dict[str, bytes] = {}
        for name, drawing in self.figures.items():
            files[f"figures/{name}.png"] = drawing.png
            files[f"figures/{name}.svg"] = drawing.svg
        numbers = json.dumps(self.numbers, indent=2, ensure_ascii=False, allow_nan=False)
        files["summary.json"] = encoded(numbers + "\n")
        files.update(self.others)
        files["index.html"] = encoded(as_html(self.template, self.context))
        return files

    def write(self, folder: Path) -> Path:
        """Write the page into ``folder`` and return the path of ``index.html``.

        Figures and tables of an earlier page that this one does not have are deleted. Each file is replaced atomically.
        One process writes at a time; others wait.
        """
        files = self.contents()
        with exclusive(folder / LOCK):
            for name, data in files.items():
                write_atomically(folder / name, partial(_write, data))
            figures = [*folder.glob("figures/*.png"), *folder.glob("figures/*.svg")]
            for path in (*figures, *(folder / name for name in TABLES)):
                if path.relative_to(folder).as_posix() not in files:
                    path.unlink(missing_ok=True)
        for place in (folder, folder / "figures"):
            if place.is_dir():
                sweep_temporary(place)
        return folder / "index.html"


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def encoded(text: str) -> bytes:
    """Return the text as UTF-8; what cannot be encoded, such as a stray byte of a path, becomes a question mark."""
    return text.encode(errors="replace")


def as_html(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of HTML; values are escaped."""
    return _html().get_template(template).render(context)


@cache
def _html() -> Environment:
    environment = Environment(**_TEMPLATES, autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def as_markdown(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of Markdown; values are shown literally, unless the template marks them ``safe``."""
    # Escaped here, so that the template cannot forget a value.
    environment = Environment(**_TEMPLATES, finalize=_escaped_for_markdown)
    return environment.get_template(template).render(context)


def prose(name: str, /, **words: str | bool) -> str:
    """Return a paragraph as one line of plain text: the macro ``name`` of ``templates/prose.j2``."""
    return " ".join(str(getattr(_prose(), name)(**words)).split())


@cache
def _prose() -> Any:
    return Environment(**_TEMPLATES).get_template("prose.j2").module


def _escaped_for_markdown(value: Any) -> str:
    return str(value) if isinstance(value, Markup) else markdown_text(value)


def markdown_text(value: Any) -> str:
    """Return the text as one line of Markdown that shows it literally, also inside a table."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    line = re.sub(r"([\\`*\[\]|~#$])", r"\\\1", line)
    line = re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line) if STARTS_A_BLOCK.match(line) else line
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def figure_name(*parts: str) -> str:
    """Return a safe file name; names that had to be changed get a hash, so that no two figures share a file."""
    raw = "-".join(parts)
    safe = re.sub(r"[^a-z0-9_-]+", "-", raw.lower())[:80]
    if safe == raw:
        return safe
    return f"{safe}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:10]}"


def data_uri(drawing: Rendered) -> str:
    """Return a drawing as a data URI: SVG, unless it is very large."""
    is_small = len(drawing.svg) <= MAX_SVG or not drawing.png
    kind, data = ("svg+xml", drawing.svg) if is_small else ("png", drawing.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def script_hash(script: str) -> str:
    """Return the hash by which a Content-Security-Policy admits an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


SENTENCES = ("Note", "Not computed")
"""Columns of sentences, which are left out when they are empty."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``ci`` is the interval, or another remark, beside the value; bold if ``is_strong``."""

    value: str
    ci: str = ""
    is_strong: bool = False


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
        The cells of each row; the first one names the row.
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
    """Return a table made from cells, texts, and pairs of a value and its interval."""
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
    """A drawing with its caption, saved as ``figures/NAME.png`` and ``figures/NAME.svg``.

    ``narrow`` takes its place in narrow windows.
    """

    name: str
    drawing: Rendered
    caption: str = ""
    narrow: Rendered | None = None

    def __post_init__(self) -> None:
        """Refuse a name that could leave the folder."""
        if figure_name(self.name) != self.name:
            raise ValueError(f"{self.name!r} is not a safe file name; use figure_name")

    @property
    def uri(self) -> str:
        """The drawing as a data URI."""
        return data_uri(self.drawing)

    @property
    def narrow_uri(self) -> str:
        """The drawing for narrow windows as a data URI; empty without one."""
        return data_uri(self.narrow) if self.narrow else ""

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
