"""Time a run's networks on a device of this machine, one after the other, each in a separate process."""

import logging
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import make_folder
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo._util.text import counted, one_line, size_in_words
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import find_entries
from dsmi_zoo.pipeline.config.compute import MODELS
from dsmi_zoo.pipeline.plan.identity import builder_hashes
from dsmi_zoo.pipeline.plan.plan import entries_of, resolve_entries
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import refuse_release, rows_and_record
from dsmi_zoo.pipeline.store.timed import (
    FOLDER,
    Place,
    TimedRow,
    read_timed,
    timed_path,
    write_timed,
)

from ..clusters.machine import usable_cores, visible_gpus
from ..progress import SILENT, Display
from ..terminal import print_line

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]


def time_models(
    out: Path,
    names: Sequence[str],
    device: Device = "auto",
    precision: str | None = None,
    *,
    compiled: bool = False,
    again: bool = False,
    display: Display = SILENT,
) -> int:
    """Time networks, store a file for each below ``OUT/timed``, print a table, and rebuild the report if there is one.

    Parameters
    ----------
    names
        Models of the run, ``MODEL`` or ``MODEL@SIZE``; none means those that the choice page recommends.
    precision
        None means the run's.
    compiled
        Whether to time each network compiled as well.
    again
        Whether to repeat timings that OUT holds already.

    Returns
    -------
    int
        The exit code: 1 when a network could not be timed, or not compiled.
    """
    refuse_release(out)
    rows, record = rows_and_record(out)
    chosen = list(names) or _tied(rows, record, out)
    with display.status("Reading the catalogue"):
        entries = resolve_entries(find_entries(entries_of(record), chosen, str(out)))
        hashes = builder_hashes(entries)
    precision = precision or record.config.precision
    place = _place("cuda" if device == "auto" and visible_gpus() else device)
    make_folder(out / FOLDER)
    timed: list[TimedRow] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        path = timed_path(out, entry.slug, place, precision)
        known = None if again else known_times(path, compiled)
        if known is not None:
            timed.append(known)
            continue
        sha256 = hashes[entry.builder] if entry.builder is not None else None
        with display.status(f"Timing {entry} ({number} of {len(entries)})"):
            row = _timed(entry, sha256, place, precision, compiled)
        if isinstance(row, str):
            log.warning(f"{entry}: {row}")
            problems.append(str(entry))
            continue
        write_timed(path, row)
        timed.append(row)
        if row.not_compiled:
            log.warning(f"{entry}: not compiled: {row.not_compiled}")
            problems.append(str(entry))
    for line in table_lines(timed):
        print_line(line)
    _warn_of_disturbance(timed)
    if timed and (out / "report").is_dir():
        with display.status("Writing the report"):
            from dsmi_zoo.reports.page.build import write_report

            log.info(f"Report: {write_report(out)}")
    if problems:
        log.warning(f"not timed, or not compiled: {', '.join(problems)}")
    return 1 if problems else 0


def _tied(rows: "pd.DataFrame", record: RunRecord, out: Path) -> list[str]:
    """Return the models that the choice page recommends: the best one, and those tied with it."""
    from dsmi_zoo.reports.page.timed import recommended

    best = recommended(rows, record, out)
    if not best:
        raise InputError(f"{out} ranks no model, so name those to time: dsmi-zoo time MODEL ...")
    log.info(f"{counted(len(best), 'model')} tied for first in {out}")
    return best


def _place(device: str) -> Place:
    """Return the device with its name, found in another process, so that this one does not import torch."""
    device = "cpu" if device == "auto" else device
    with process_pool(1, MODELS) as pool:
        name = pool.submit(_name_here, device).result()
    return Place(device, name, usable_cores() if device == "cpu" else 1)


def _name_here(device: str) -> str:
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from dsmi_zoo.pipeline.embedding.timing import device_name

    return device_name(device)


def known_times(path: Path, compiled: bool) -> TimedRow | None:
    """Return the times that OUT holds; None if they are missing or damaged, or lack a wanted compiled timing."""
    try:
        row = read_timed(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning(f"{path}: not the times of a network ({one_line(str(error))}); timing it again")
        return None
    return None if compiled and row.compiled is None and row.not_compiled is None else row


def _timed(
    entry: ModelEntry, sha256: str | None, place: Place, precision: str, compiled: bool
) -> TimedRow | str:
    """Time one network in a fresh process; return its row, or why it could not be timed."""
    try:
        with process_pool(1, MODELS) as pool:
            return pool.submit(_timed_here, entry, sha256, place, precision, compiled).result()
    except BrokenProcessPool:
        return "its process died (out of memory?)"
    except InputError as error:
        return str(error)
    except Exception as error:  # a user's builder may raise anything
        return one_line(f"{type(error).__name__}: {error}")


def _timed_here(
    entry: ModelEntry, sha256: str | None, place: Place, precision: str, compiled: bool
) -> TimedRow:
    # torch's benchmarks load its compiler of extensions, which warns on a machine without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from dsmi_zoo.pipeline.embedding.timing import time_network

    return time_network(entry, sha256, place, precision, compiled=compiled)


def _warn_of_disturbance(timed: Sequence[TimedRow]) -> None:
    disturbed = [row for row in timed if row.is_disturbed]
    if disturbed:
        most = max(row.others_share for row in disturbed)
        log.warning(
            f"other processes used up to {most:.0%} of the cores while {counted(len(disturbed), 'network')} of "
            f"{len(timed)} ran, so their times may be too long; on a quiet machine, repeat with --again"
        )


HEADS = ("model", "batch", "images/s", "median ms", "p95 ms", "memory", "others")


def table_lines(timed: Sequence[TimedRow]) -> list[str]:
    """Return the times as lines of a table."""
    lines = []
    for row in timed:
        modes = [("eager", row.eager)] + ([("compiled", row.compiled)] if row.compiled else [])
        for title, mode in modes:
            for passes in dict.fromkeys((mode.single, mode.best)):
                p95 = "" if passes.p95_s is None else f"{1e3 * passes.p95_s:.3g}"
                lines.append(
                    (
                        f"{row.model}@{row.img_size} {title}",
                        str(passes.batch),
                        f"{passes.rate:.3g}",
                        f"{1e3 * passes.median_s:.3g}",
                        p95,
                        size_in_words(passes.memory),
                        f"{row.others_share:.0%}",
                    )
                )
    if not lines:
        return []
    widths = [max(map(len, column)) for column in zip(HEADS, *lines, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (HEADS, *lines)
    ]
    return [timed[0].where, *table]
