"""``OUT/monitor.parquet``: one row per measurement of a training, and what was fixed at its beginning."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically

from ..measures.catalog import COMPARISONS, DIAGNOSTICS, MEASURES

SIMPLE_SCORES = tuple(
    one for one in COMPARISONS if one.name in ("neighbour_accuracy", "centre_accuracy")
)
"""The scores to beat, measured beside the others."""

NUMBERS = (
    "step", "seconds_training", "seconds_monitor", "n_samples", "embedding_dim",
    *(measure.name for measure in (*DIAGNOSTICS, *MEASURES, *SIMPLE_SCORES)),
)  # fmt: skip
"""Columns: optimiser steps; seconds of training and of measuring up to here; images and columns of the embedding; then
the measures in bits and the simple scores in percent, null where the embedding could not be measured. After them come
the caller's own numbers."""

_KEY = b"dsmi-zoo monitor"


def monitor_path(out: Path) -> Path:
    """Where the measurements of a training stand."""
    return out / "monitor.parquet"


def write_monitor(out: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Store all measurements anew; readers see the old file or the new one."""
    own = dict.fromkeys(name for row in rows for name in row if name not in NUMBERS)
    names = (*NUMBERS, *own)
    schema = pa.schema(
        [pa.field(name, pa.float64()) for name in names],
        metadata={_KEY: json.dumps(facts)},
    )
    table = pa.Table.from_pylist([_numbers(row, names) for row in rows], schema=schema)
    write_atomically(
        monitor_path(out), lambda file: pq.write_table(table, file, write_page_checksum=True)
    )


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    return {name: None if row.get(name) is None else float(row[name]) for name in names}


def read_monitor(out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The measurements, one row each in the order of steps, and what was fixed: n, every, layer, hashes.

    Raises
    ------
    InputError
        When there is no such file, or it is none of a monitor's.
    """
    path = monitor_path(out)
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        facts = json.loads((table.schema.metadata or {})[_KEY])
        added = {one.name for one in SIMPLE_SCORES}  # not in files of earlier versions
        for name in NUMBERS:
            if name in added and name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), pa.float64()))
        own = [name for name in table.column_names if name not in NUMBERS]
        return table.select([*NUMBERS, *own]).to_pandas(), facts
    except (OSError, KeyError, ValueError, RecursionError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: not the measurements of a monitor ({type(error).__name__}: {error})"
        ) from None
