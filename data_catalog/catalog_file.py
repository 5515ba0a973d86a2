"""Read a catalogue from a CSV or Parquet file; whatever is wrong in it is told with its line."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .entries import ModelEntry, Preprocessing, is_accuracy
from .errors import InputError
from .settings import validation_line

if TYPE_CHECKING:
    import pandas as pd

# Cells that become fields of the entry as they stand.
PLAIN_COLUMNS = (
    *("family", "kind", "pretraining", "licence", "group", "published_name"),
    *("builder", "layer", "weights"),
)
TEXT_COLUMNS = ("model", "architecture", *PLAIN_COLUMNS, "checkpoint", "model_kwargs", "crop_mode", "interpolation")
PREPROCESSING_COLUMNS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def read_catalog(path: Path) -> list[ModelEntry]:
    """The entries of a file, in its order.

    Raises
    ------
    InputError
        For a file that is no table, a wrong value (with its line), or a pair (model, img_size) that stands there twice.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path).astype(object)
            table = table.where(table.notna(), "").astype(str)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a catalogue: {_first_line(error)}") from None
    if "model" not in table.columns:
        raise InputError(f"{path}: no column 'model'; its columns are {', '.join(map(str, table.columns))}")
    if table.empty:
        raise InputError(f"{path}: the catalogue is empty")
    entries: list[ModelEntry] = []
    lines: dict[tuple[str, int | None], int] = {}
    for line, cells in _records(table):
        if not any(cells.values()):
            continue
        where = f"{path}, line {line}"
        entry = _entry(cells, path.parent, where)
        key = (entry.model, entry.img_size)
        if key in lines:
            size = "" if entry.img_size is None else f" at img_size {entry.img_size}"
            first = f"{entry.model!r}{size} stands in line {lines[key]} already"
            raise InputError(f"{where}: {first}; the pair (model, img_size) must be unique")
        lines[key] = line
        entries.append(entry)
    return entries


def _records(table: "pd.DataFrame") -> Iterator[tuple[int, dict[str, str]]]:
    """Each row as stripped text, with its line number in a CSV file (the header is line 1)."""
    columns = [str(c).strip() for c in table.columns]
    for number, values in enumerate(table.itertuples(index=False, name=None), start=2):
        yield number, dict(zip(columns, (str(v).strip() for v in values), strict=True))


def _entry(cells: dict[str, str], folder: Path, where: str) -> ModelEntry:
    known = {name: cells[name] for name in TEXT_COLUMNS if cells.get(name)}
    if "model" not in known:
        raise InputError(f"{where}: the model's name is missing")
    fields: dict[str, Any] = {"model": known["model"], "architecture": known.get("architecture", known["model"])}
    fields.update({name: known[name] for name in PLAIN_COLUMNS if name in known})
    if cells.get("extra_data"):
        fields["extra_data"] = _flag(cells["extra_data"], "extra_data", where)
    if "checkpoint" in known:
        fields["checkpoint"] = (folder / known["checkpoint"]).resolve()
        if not fields["checkpoint"].is_file():
            looked_for = fields["checkpoint"]
            raise InputError(f"{where}: the checkpoint {known['checkpoint']!r} is no file (looked for {looked_for})")
        if "weights" in known:
            raise InputError(f"{where}: checkpoint and weights both say where the weights are; leave one empty")
    if "model_kwargs" in known:
        fields["model_kwargs"] = _json_object(known["model_kwargs"], where)
    if any(cells.get(name) for name in PREPROCESSING_COLUMNS):
        fields["preprocessing"] = _preprocessing(cells, where)
    extras: dict[str, float | None] = {}
    for name, text in cells.items():
        if name in (*TEXT_COLUMNS, *PREPROCESSING_COLUMNS, "extra_data"):
            continue
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"{where}: the column {name!r} needs a plain name (letters, digits, underscores)")
        value = _number(text, name, where)
        if name == "img_size":
            if value is not None and (value != int(value) or value < 1):
                raise InputError(f"{where}: img_size must be a whole number of pixels, not {text!r}")
            fields[name] = None if value is None else int(value)
        elif name in ("top1", "top5", "params_m"):
            fields[name] = value
        else:
            extras[name] = value
    try:
        return ModelEntry(**fields, extras=extras)
    except ValidationError as error:
        raise InputError(f"{where}: {validation_line(error)}") from None


def _number(text: str, column: str, where: str) -> float | None:
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        known = ", ".join(TEXT_COLUMNS)
        raise InputError(f"{where}: {column} = {text!r} is no number (text may stand only in {known})") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: {column} = {text!r} is not finite; leave the cell empty if it is unknown")
    if is_accuracy(column) and not 0 <= value <= 100:
        hint = "leave the cell empty if it is unknown"
        raise InputError(f"{where}: {column} = {text} lies outside 0 to 100 percent; {hint}")
    return value


def _flag(text: str, column: str, where: str) -> bool:
    if text.removesuffix(".0").lower() not in FLAGS:
        raise InputError(f"{where}: {column} must be 1 or 0, or empty if it is unknown, not {text!r}")
    return FLAGS[text.removesuffix(".0").lower()]


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: model_kwargs is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f'{where}: model_kwargs must be a JSON object such as {{"num_classes": 10}}, not {text}')
    return value


def _preprocessing(cells: dict[str, str], where: str) -> Preprocessing:
    fields: dict[str, Any] = {name: cells[name] for name in PREPROCESSING_COLUMNS if cells.get(name)}
    for name in ("mean", "std"):
        if name in fields:
            fields[name] = fields[name].replace(",", " ").split()
    try:
        return Preprocessing(**fields)
    except ValidationError as error:
        hint = "give crop_pct, mean and std (three numbers with spaces), or none of the preprocessing columns"
        raise InputError(f"{where}: {validation_line(error)}; {hint}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
