"""Rebuild the report on demand."""

import logging
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.monitor.file import monitor_path
from dsmi_zoo.reports.page.build import write_report

from ..progress import SILENT, Display

log = logging.getLogger(__name__)


def report(
    out: Path, compared_with: Path | None, class_subsets: int, display: Display = SILENT
) -> int:
    """Rebuild the report of a run, or of a monitored training, and log its path."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        if compared_with is not None or class_subsets:
            raise InputError(
                f"{out} is a monitored training; --compare and --class-subsets are for runs of a zoo"
            )
        from dsmi_zoo.reports.page.training import write_monitor_report

        log.info(f"Report: {write_monitor_report(out.absolute())}")
        return 0
    columns = (TextColumn("Embeddings"), BarColumn(), MofNCompleteColumn())
    with display.bar(*columns, visible=class_subsets > 0) as update:
        page = write_report(
            out.absolute(),
            compared_with.absolute() if compared_with else None,
            class_subsets,
            lambda done, total: update(completed=done, total=total),
        )
    log.info(f"Report: {page}")
    return 0
