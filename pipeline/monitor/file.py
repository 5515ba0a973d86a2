"""``OUT/monitor.parquet``: one row per measurement of a training, and the settings fixed at its start."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.parquet import read_parquet, write_parquet

from ..measures.catalog import COMPARISONS, DIAGNOSTICS, MEASURES

SIMPLE_SCORES = tuple(
    one for one in COMPARISONS if one.name in ("neighbour_accuracy", "centre_accuracy")
)
"""The baselines: two of the catalogue's COMPARISONS that a monitor measures, too."""

NUMBERS = (
    "step", "seconds_training", "seconds_monitor", "n_samples", "embedding_dim",
    *(measure.name for measure in (*DIAGNOSTICS, *MEASURES, *SIMPLE_SCORES)),
)  # fmt: skip
"""Columns: optimiser steps; seconds of training and of measuring so far; images and columns of the embedding; then the
DIAGNOSTICS (a root mean square, a ratio, a flag and two spreads in bits), the MEASURES in bits and the simple scores in
percent, null where the embedding could not be measured. Further layers' columns and the caller's own numbers follow."""

_KEY = b"dsmi-zoo monitor"
PENULTIMATE = "penultimate"


def layers_of(layer: str | Sequence[str | None] | None) -> list[str | None]:
    """Return the layers of a monitor as a list without repetitions; None is the penultimate layer."""
    listed = [layer] if layer is None or isinstance(layer, str) else list(layer)
    if not listed:
        raise InputError("layer is an empty list; name a layer, or leave it out")
    return list(dict.fromkeys(listed))


def column_of(layers: Sequence[str | None], layer: str | None, name: str) -> str:
    """Return the column of a layer's value: a plain name for the first layer, else prefixed by the layer's name."""
    return name if layer == layers[0] else f"{layer or PENULTIMATE}/{name}"


def own_columns(names: Iterable[str], layers: Sequence[str | None]) -> list[str]:
    """Return the columns that hold the caller's own numbers: all but the NUMBERS of each layer."""
    measured = {column_of(layers, layer, name) for layer in layers for name in NUMBERS}
    return [name for name in names if name not in measured]


def monitor_path(out: Path) -> Path:
    """Return the path of a training's measurements."""
    return out / "monitor.parquet"


def check_measurements(folders: Iterable[Path]) -> None:
    """Raise InputError for a folder of ``--compare`` without measurements of a training."""
    for folder in folders:
        if not monitor_path(folder).exists():
            raise InputError(f"--compare {folder}: no measurements of a monitor there")


def write_monitor(out: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Store all measurements; readers see the old file or the new one."""
    # Further layers' columns, and the caller's own.
    others = dict.fromkeys(name for row in rows for name in row if name not in NUMBERS)
    columns = {}
    for name in (*NUMBERS, *others):
        values = [row.get(name) for row in rows]
        numbers = [None if value is None else float(value) for value in values]
        columns[name] = pa.array(numbers, pa.float64())
    table = pa.table(columns, metadata={_KEY: json.dumps(facts)})
    write_parquet(monitor_path(out), table)


def read_monitor(out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the measurements, one row each in the order of steps, and the fixed settings: n, every, layer, hashes.

    Raises
    ------
    InputError
        When the file is missing, damaged, or not a monitor's.
    """
    path = monitor_path(out)
    try:
        table = read_parquet(path)
        facts = json.loads((table.schema.metadata or {})[_KEY])
        for score in SIMPLE_SCORES:  # files of earlier versions do not have them
            if score.name not in table.column_names:
                table = table.append_column(score.name, pa.nulls(len(table), pa.float64()))
        others = [name for name in table.column_names if name not in NUMBERS]
        return table.select([*NUMBERS, *others]).to_pandas(), facts
    except (OSError, KeyError, ValueError, RecursionError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: not the measurements of a monitor ({type(error).__name__}: {error})"
        ) from None
