"""Display of progress: lines of the log, bars on a terminal, and bars in a notebook."""

import html
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from dsmi_zoo._util.text import counted, printable
from dsmi_zoo.pipeline.plan.job import Outcome

log = logging.getLogger(__name__)


SILENCE_S = 8.0
PAGE, NUMBERS = "index.html", "summary.json"


def duration(seconds: float) -> str:
    """Return seconds in a readable unit: ``50 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


class Display:
    """Bars, spinners and lines on a console; without a console nothing is shown, and Python callers use the log."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console
        self._step = ""  # the current step, for the line that breaks a silence
        self._last_line = self._began = monotonic()

    @property
    def has_bars(self) -> bool:
        """Whether bars are visible."""
        return self.console is not None and self.console.is_terminal

    @property
    def step_level(self) -> int:
        """The log level of single steps: DEBUG if a bar counts them, else INFO."""
        return logging.DEBUG if self.has_bars else logging.INFO

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner with a text, and yield a function that changes the text."""
        if self.console is None or not self.has_bars:
            with self._doing(text):
                yield self._begin
            return
        # Text, so that brackets are not read as markup.
        with self.console.status(Text(printable(text))) as status:
            yield lambda text: status.update(Text(printable(text)))

    @contextmanager
    def bar(
        self,
        *columns: ProgressColumn,
        total: float | None = None,
        description: str = "",
        visible: bool = True,
    ) -> Iterator[Callable[..., None]]:
        """Show a bar of these columns, and yield a function with the arguments of ``Progress.update``."""
        if self.console is None:
            yield lambda **changes: None
            return
        with (
            self._doing(description),
            Progress(
                *columns, console=self.console, disable=not self.has_bars, transient=True
            ) as bar,
        ):
            task = bar.add_task(description, total=total, visible=visible)

            def update(**changes: Any) -> None:
                bar.update(task, **changes)
                state = bar.tasks[0]
                if total:
                    done = f"{state.completed:,.0f} of {total:,.0f} done"
                    self._step = f"{done}, {state.description}"

            yield update

    @contextmanager
    def _doing(self, step: str) -> Iterator[None]:
        """Record a step as the current one while it lasts."""
        before, began = self._step, self._began
        self._begin(step)
        try:
            yield
        finally:
            self._step, self._began = before, began

    def _begin(self, step: str) -> None:
        self._step, self._began = step, monotonic()

    @contextmanager
    def never_silent(self, first: str | None = None) -> Iterator[None]:
        """Print ``first`` at once, and a line after each `SILENCE_S` seconds without one, unless bars are shown."""
        if self.console is None or self.has_bars:
            yield
            return
        ended = Event()
        if first is not None:
            self.line(first)
        self._begin("Working")
        thread = Thread(target=self._break_silences, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _break_silences(self, ended: Event) -> None:
        while not ended.wait(SILENCE_S / 8):
            if monotonic() - self._last_line >= SILENCE_S:
                self.line(f"{self._step}: {duration(monotonic() - self._began)} so far")

    def line(self, text: str) -> None:
        """Print one line without markup, colours or line breaks; control characters become escapes."""
        self._last_line = monotonic()
        if self.console is not None:
            self.console.print(
                printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True
            )


SILENT = Display()


def follow(
    finished: Iterable[Outcome],
    total: int,
    display: Display = SILENT,
    noun: str = "model",
    costs: Mapping[str, float] | None = None,
) -> tuple[int, list[Outcome]]:
    """Show entries as they finish.

    Parameters
    ----------
    costs
        The expected cost of each entry by slug, in any unit, from which the remaining time is estimated: the last
        entry may take a hundred times as long as the first. By default all cost the same.

    Returns
    -------
    (int, list of Outcome)
        The number of successes, and the failures.
    """
    started, succeeded = monotonic(), 0
    failed: list[Outcome] = []
    total_cost = sum(costs.values()) if costs else float(total)
    finished_cost = 0.0
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with display.bar(
        *columns, total=total, description=f"{counted(total, noun)}, none finished yet"
    ) as update:
        for number, done in enumerate(finished, start=1):
            if done.ok:
                succeeded += 1
            else:
                failed.append(done)
            finished_cost += costs.get(done.slug, 0.0) if costs else 1.0
            spent = monotonic() - started
            each = spent / number
            pace = f"{each:.1f} s per {noun}" if each > 1 else f"{1 / each:.1f} {noun}s per second"
            rate = f"{len(failed)} failed, {pace}"
            if number < total:
                left = spent * (total_cost - finished_cost) / finished_cost if finished_cost else 0
                rate += f", about {duration(left)} left"
            update(advance=1, description=rate)
            if done.ok:
                step = f"[{number}/{total}] {done.name} in {done.seconds:.1f} s; {rate}"
                log.log(display.step_level, step)
            else:
                log.warning(f"{done.name} failed: {done.message}")
            if done.readings:
                log.warning(f"{done.name}: {done.readings}")
    return succeeded, failed


def notebook_display() -> Display:
    """Return the display of this process: bars in a Jupyter notebook, nothing anywhere else."""
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

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a text, and yield a function that changes it."""
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
        """Show a bar, and yield a function with the arguments of ``Progress.update``."""
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
    """Yield a function that replaces the HTML of one area; the area is emptied at the end."""
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
