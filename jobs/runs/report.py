"""Rebuild the report on demand."""

import logging
from pathlib import Path

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.monitor.file import monitor_path

log = logging.getLogger(__name__)


def report(out: Path, compared_with: Path | None) -> int:
    """Rebuild the report of a run, or of a monitored training, and log its path."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        from dsmi_zoo.reports.page.training import write_monitor_report

        if compared_with is not None:
            raise InputError(f"{out} is a monitored training; --compare is for runs of a zoo")
        page = write_monitor_report(out.absolute())
    else:
        from dsmi_zoo.reports.page.build import write_report

        page = write_report(out.absolute(), compared_with.absolute() if compared_with else None)
    log.info(f"Report: {page}")
    return 0
