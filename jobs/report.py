"""The report on demand."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..data_catalog.errors import InputError
from ..pipeline.monitor_file import monitor_path
from ..reports.page import write_report
from .progress import plain


def report(out: Path, compared_with: Path | None, class_subsets: int, console: Console) -> int:
    """Rebuild the report of a run, or of a monitored training, and say where it is."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        if compared_with is not None or class_subsets:
            raise InputError(f"{out} is a monitored training; --compare and --class-subsets are for runs of a zoo")
        from ..reports.monitored import write_monitor_report

        plain(console, f"Report: {write_monitor_report(out.absolute())}")
        return 0
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
