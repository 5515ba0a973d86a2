"""Measure one embedding from a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data_catalog.errors import InputError
from ..pipeline.config import MeasureSettings, validated
from ..pipeline.measures import measure_all
from ..pipeline.measures.points import as_points
from ..pipeline.measures.registry import COMPARISONS, DIAGNOSTICS, MEASURES, load_measure
from ..pipeline.measures.transferability import transferability
from ..pipeline.schema import COLUMN_NAMES


def measure(embeddings: Path, labels: Path | None, changes: dict[str, Any], as_json: bool) -> int:
    """Print every measure of the embedding."""
    settings = validated(MeasureSettings, changes, "settings")
    Z = _array(embeddings)
    y = None if labels is None else _array(labels)
    if y is None and settings.own:
        raise InputError("--measure calls f(Z, labels): give the labels' file too")
    try:
        own = [load_measure(spec, COLUMN_NAMES) for spec in settings.own]
        points = as_points(Z)
        values: dict[str, float | bool] = measure_all(points, y, **settings.arguments())
        if y is not None:
            scores = transferability(points, y)
            values |= {name: value for name, value in scores.items() if not isinstance(value, str)}
            values |= {measure.name: measure.value(Z, y) for measure in own}
    except ValueError as error:
        raise InputError(f"{embeddings}{f' with {labels}' if labels else ''}: {error}") from None
    if as_json:
        print(json.dumps(values))
        return 0
    print(f"{len(Z)} points in {Z.shape[1]} dimensions, sigma = {settings.sigma or np.sqrt(Z.shape[1]):.4g}")
    units = {m.name: m for m in (*DIAGNOSTICS, *MEASURES, *COMPARISONS)}
    for name, value in values.items():
        known = units.get(name)
        shown = ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4f}"
        unit = known.unit if known and known.unit != "flag" else ""
        print(f"  {name:<28} {shown:>10} {unit:<5} {known.meaning if known else ''}".rstrip())
    return 0


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = "not a .npy file of numbers" if isinstance(error, (ValueError, EOFError)) else error.strerror
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an archive of arrays; save the one array with numpy.save")
    return array
