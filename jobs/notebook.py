"""What `dsmi_zoo.run` shows in a Jupyter kernel: a bar while it runs, then its answer and a link to the report."""

import html
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import ProgressColumn

from .progress import SILENT, Display

PAGE, NUMBERS = "index.html", "summary.json"


def notebook_display() -> Display:
    """Return the display of this process: bars of a Jupyter kernel, or nothing anywhere else."""
    return NotebookDisplay() if is_kernel() else SILENT


def is_kernel() -> bool:
    """Return whether this process is the kernel of a notebook; a terminal's IPython is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookDisplay(Display):
    """Bars and texts as HTML below the cell, without ipywidgets; each vanishes when its step is done."""

    @property
    def has_bars(self) -> bool:
        """Whether bars are visible."""
        return True

    @property
    def step_level(self) -> int:
        """The level at which single steps are logged: the bar counts them."""
        return logging.DEBUG

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a text; the function that this yields changes it."""
        with _area() as show:
            show(html.escape(text))
            yield lambda text: show(html.escape(text))

    @contextmanager
    def bar(
        self,
        *columns: ProgressColumn,
        total: float | None = None,
        description: str = "",
        visible: bool = True,
    ) -> Iterator[Callable[..., None]]:
        """Show a bar; the function that this yields takes the arguments of ``Progress.update``."""
        state: dict[str, Any] = {
            "completed": 0.0,
            "total": total,
            "description": description,
            "visible": visible,
        }
        with _area() as show:

            def update(advance: float = 0.0, **changes: Any) -> None:
                state.update(changes)
                state["completed"] += advance
                show(_bar(**state) if state["visible"] else "")

            update()
            yield update


def _bar(completed: float, total: float | None, description: str, visible: bool) -> str:
    if not total:
        return html.escape(description)
    return (
        f'<progress value="{completed:g}" max="{total:g}"></progress> '
        f"{completed:,.0f} of {total:,.0f}: {html.escape(description)}"
    )


@contextmanager
def _area() -> Iterator[Callable[[str], None]]:
    """Yield a function that replaces the HTML of one area, which is empty at the end."""
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)

    def show(content: str) -> None:
        handle.update(HTML(content))

    try:
        yield show
    finally:
        show("")


def show_answer(out: Path, shown: Display) -> None:
    """Show the answer of the report in ``out`` and a link to it, if this is a notebook and there is a report."""
    report = out / "report"
    if not isinstance(shown, NotebookDisplay) or not (report / PAGE).is_file():
        return
    from IPython.display import HTML, display

    numbers = json.loads((report / NUMBERS).read_text(encoding="utf-8"))
    sentences = filter(None, (numbers.get("answer"), numbers["lead"]))
    # Jupyter serves the files below the notebook's folder, by relative address only.
    page = Path(os.path.relpath(report / PAGE))
    address = page.as_posix() if ".." not in page.parts else (report / PAGE).as_uri()
    link = f'<a href="{html.escape(address)}" target="_blank">{html.escape(str(page))}</a>'
    paragraphs = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    display(HTML(f"{paragraphs}<p>Report: {link}</p>"))
