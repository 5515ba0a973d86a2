"""A page of curves: sections of text, figures and tables, the same as HTML, Markdown and summary.json."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..pipeline.atomic_files import sweep_temporary, write_atomically
from .figures import Rendered
from .page import encoded, figure_name, markdown_text
from .tables import Table

LARGEST_SVG = 160_000  # beyond this the picture is smaller than the drawing


@dataclass(frozen=True)
class Section:
    """A part of the page; ``figures`` are (file name, figure, caption)."""

    id: str
    title: str
    text: str
    figures: Sequence[tuple[str, Rendered, str]] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class CurvePage:
    """All that the page shows; ``content`` is summary.json's."""

    eyebrow: str
    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    content: Mapping[str, Any]
    warnings: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = field(default=())


def write_curve_page(page: CurvePage, folder: Path) -> Path:
    """Write the page into ``folder``, each file whole or not at all; returns the path of ``index.html``, the last."""
    figures = {figure_name(name): drawn for section in page.sections for name, drawn, _ in section.figures}
    context = {
        "eyebrow": page.eyebrow,
        "title": page.title,
        "lead": list(page.lead),
        "warnings": list(page.warnings),
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "text": section.text,
                "tables": list(section.tables),
                "figures": [
                    {
                        "name": figure_name(name),
                        "uri": _uri(drawn),
                        "description": drawn.description,
                        "caption": caption,
                    }
                    for name, drawn, caption in section.figures
                ],
            }
            for section in page.sections
        ],
        "provenance": list(page.provenance),
    }
    settings: dict[str, Any] = {
        "loader": PackageLoader("dsmi_zoo.reports"),
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    html = Environment(**settings, autoescape=True).get_template("curves.html.j2").render(context)
    markdown = Environment(**settings, finalize=markdown_text).get_template("curves.md.j2").render(context)
    files = {
        f"figures/{name}.{kind}": getattr(drawn, kind) for name, drawn in figures.items() for kind in ("png", "svg")
    }
    files["report.md"] = encoded(markdown)
    summary = {**page.content, "lead": page.lead[0], "warnings": list(page.warnings)}
    files["summary.json"] = encoded(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    files["index.html"] = encoded(html)
    for name, data in files.items():
        write_atomically(folder / name, lambda file, data=data: file.write(data))  # type: ignore[misc]
    for path in (folder / "figures").glob("*.*"):
        if f"figures/{path.name}" not in files:
            path.unlink(missing_ok=True)
    sweep_temporary(folder)
    return folder / "index.html"


def table(
    title: str | None,
    heads: Sequence[str],
    rows: Sequence[Sequence[str | tuple[str, str]]],
    *,
    text: Sequence[int] = (0,),
    wordy: bool = False,
) -> Table:
    """A table of words, as the templates take it.

    Parameters
    ----------
    rows
        Cells; a pair is a number and its interval.
    text
        The columns that are no numbers.
    wordy
        Whether the first column, and the last, are sentences.
    """
    pairs = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    cells = [[{"value": value, "ci": ci} for value, ci in row] for row in pairs]
    return {"title": title, "heads": list(heads), "rows": cells, "note": "", "text": list(text), "wordy": wordy}


def _uri(figure: Rendered) -> str:
    kind, data = ("svg+xml", figure.svg) if len(figure.svg) <= LARGEST_SVG else ("png", figure.png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
