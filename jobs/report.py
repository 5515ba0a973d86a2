"""The report on demand."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs.progress import plain
from reports.page import write_report


def report(out: Path, compared_with: Path | None, class_subsets: int, console: Console) -> int:
    """Rebuild a run's report and say where it is."""
    columns = (TextColumn("Embeddings"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        shown = bar.add_task("", total=None, visible=class_subsets > 0)
        page = write_report(
            out.absolute(),
            compared_with.absolute() if compared_with else None,
            class_subsets,
            lambda done, total: bar.update(shown, completed=done, total=total),
        )
    plain(console, f"Report: {page}")
    return 0
