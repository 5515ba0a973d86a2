"""A page of curves: sections of text, figures and tables, the same as HTML, Markdown and summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rendering import PageFiles
from .sections import Section


@dataclass(frozen=True)
class CurvePage:
    """All that the page shows; ``content`` is summary.json's."""

    eyebrow: str
    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    content: Mapping[str, Any]
    warnings: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = ()


def write_curve_page(page: CurvePage, folder: Path) -> Path:
    """Write the page into ``folder``, each file whole or not at all; returns the path of ``index.html``, the last."""
    context = {
        "eyebrow": page.eyebrow,
        "title": page.title,
        "answer": None,
        "lead": list(page.lead),
        "warnings": list(page.warnings),
        "sections": list(page.sections),
        "provenance": list(page.provenance),
        "script_hashes": [],
        "folded": False,
    }
    figures = {
        figure.name: figure.drawing for section in page.sections for figure in section.figures
    }
    numbers = {**page.content, "lead": page.lead[0], "warnings": list(page.warnings)}
    return PageFiles("curves", context, numbers, figures).write(folder)
