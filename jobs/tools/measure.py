"""Measure one embedding from a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.config.run import MeasureSettings, from_command_line
from dsmi_zoo.pipeline.measures import measure as measure_embedding
from dsmi_zoo.pipeline.measures.catalog import BY_NAME, UNDEFINED
from dsmi_zoo.pipeline.measures.core.checks import as_classes
from dsmi_zoo.pipeline.measures.files import read_array, read_labels
from dsmi_zoo.pipeline.measures.own import load_measure
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES

from ..terminal import print_line


def measure(embeddings: Path, labels: Path | None, changes: dict[str, Any], as_json: bool) -> int:
    """Print every measure of the embedding."""
    settings = from_command_line(MeasureSettings, changes)
    Z = read_array(embeddings, labels)
    y = None if labels is None else read_labels(labels, len(Z) if Z.ndim else 0)
    if y is None and settings.own:
        raise InputError("--measure calls f(Z, labels): give the labels' file too")
    try:
        own = [load_measure(spec, COLUMN_NAMES) for spec in settings.own]
        values = measure_embedding(Z, y, scores=settings.scores, **settings.arguments())
        if y is not None:
            # The user's measures get numbers, as in a run, never text.
            numbers = y if y.dtype.kind in "biu" else as_classes(y, len(Z))
            values |= {one.name: one.value(Z, numbers) for one in own}
    except (ValueError, MemoryError) as error:
        raise InputError(f"{embeddings}{f' with {labels}' if labels else ''}: {error}") from None
    if as_json:
        print(json.dumps(values))
        return 0
    print_line(
        f"{len(Z)} points in {Z.shape[1]} dimensions, sigma = {settings.sigma or np.sqrt(Z.shape[1]):.4g}"
    )
    for name, value in values.items():
        if name == UNDEFINED:
            print_line(f"  {name}: {value}")
            continue
        known = BY_NAME.get(name)
        shown = ("yes" if value else "no") if isinstance(value, bool) else f"{value:z.4f}"
        unit = known.unit if known and known.unit != "flag" else ""
        print_line(f"  {name:<28} {shown:>10} {unit:<5} {known.meaning if known else ''}".rstrip())
    return 0
