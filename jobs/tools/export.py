"""Export a run's rows, correlations or figures as files that other programs read."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically, write_text
from dsmi_zoo._util.text import counted

from ..progress import SILENT, Display

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

What = Literal["rows", "correlations", "figures"]
SUFFIXES = (".csv", ".parquet", ".tex")


def export(out: Path, to: Path, what: What = "rows", display: Display = SILENT) -> int:
    """Write a run's or published folder's rows or correlations to the file ``to``, or figures into the folder ``to``.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        When ``out`` is not a run or has nothing of the kind, or ``to`` has an unsupported suffix.
    """
    if what == "figures":
        return _export_figures(out, to, display)
    if to.suffix.lower() not in SUFFIXES:
        raise InputError(f"--to {to}: a table's name ends in {', '.join(SUFFIXES)}")
    if what == "rows":
        _export_rows(out, to)
    else:
        _export_correlations(out, to, display)
    return 0


def _export_rows(out: Path, to: Path) -> None:
    from dsmi_zoo.pipeline.store.release import is_release, rows_and_record
    from dsmi_zoo.pipeline.store.run_folder import read_results

    rows = rows_and_record(out)[0] if is_release(out) else read_results(out)
    if rows.empty:
        raise InputError(f"{out} has no row yet; the same `dsmi-zoo run` computes them")
    if to.suffix.lower() != ".tex":
        _write_table(rows, to)
        log.info(f"{to}: {counted(len(rows), 'row')}, {counted(len(rows.columns), 'column')}")
        return
    from dsmi_zoo.reports.page.export import latex_of_rows

    text, columns = latex_of_rows(rows)
    write_text(to, text)
    log.info(
        f"{to}: measured models with accuracies and scores, {columns} of {len(rows.columns)} columns; "
        "all are in .csv and .parquet"
    )


def _export_correlations(out: Path, to: Path, display: Display) -> None:
    with display.status("Computing the correlations"):
        from dsmi_zoo.pipeline.store.release import rows_and_record
        from dsmi_zoo.reports.page.export import correlation_table, latex_of_correlations
        from dsmi_zoo.reports.statistics.summary import summarise

        summary = summarise(*rows_and_record(out))
    table = correlation_table(summary)
    if table.empty:
        raise InputError(f"{out} has no correlations, because no accuracy of its models is known")
    if to.suffix.lower() == ".tex":
        write_text(to, latex_of_correlations(summary))
    else:
        _write_table(table, to)
    log.info(f"{to}: {counted(len(table), 'correlation')} of scores with accuracies")


def _write_table(table: "pd.DataFrame", to: Path) -> None:
    if to.suffix.lower() == ".csv":
        from dsmi_zoo.pipeline.store.schema import as_csv

        _write(to, as_csv(table))
        return
    import pyarrow as pa

    from dsmi_zoo._util.parquet import write_parquet

    write_parquet(to, pa.Table.from_pandas(table, preserve_index=False))


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def _export_figures(out: Path, to: Path, display: Display) -> int:
    if to.suffix and not to.is_dir():
        raise InputError(f"--to {to}: figures are several files; name a folder for them")
    if to.exists() and not to.is_dir():
        raise InputError(f"--to {to} is a file, not a folder")
    with display.status("Drawing the figures"):
        from dsmi_zoo.reports.page.build import figures_of

        files = figures_of(out)
    if not files:
        raise InputError(f"{out} has nothing to draw yet")
    for name, content in files.items():
        _write(to / name, content)
    # Three formats each.
    log.info(f"{to}: {counted(len(files) // 3, 'figure')} as PDF, SVG and PNG")
    return 0
