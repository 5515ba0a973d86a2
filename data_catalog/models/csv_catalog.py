"""Read a catalogue from a CSV or Parquet file; whatever is wrong in it is told with its line."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.renamed import CURRENT
from dsmi_zoo._util.settings import validation_line
from dsmi_zoo._util.tables import json_object, read_table
from dsmi_zoo._util.text import shortened, shown

from .entry import LARGEST_IMG_SIZE, ModelEntry, Preprocessing, is_accuracy

# Cells that become fields of the entry as they stand.
PLAIN_COLUMNS = (
    *("family", "kind", "pretraining", "license", "group", "published_name"),
    *("builder", "layer", "weights"),
)
TEXT_COLUMNS = (
    "model",
    "architecture",
    *PLAIN_COLUMNS,
    "checkpoint",
    "model_kwargs",
    "crop_mode",
    "interpolation",
)
PREPROCESSING_COLUMNS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
COSTS = ("gmacs", "throughput", "cpu_throughput")
LARGEST_NUMBER = 1e30  # squares of it and their sums are still numbers
FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def read_catalog(path: Path) -> list[ModelEntry]:
    """The entries of a file, in its order.

    Raises
    ------
    InputError
        For a file that is no table, a wrong value (with its line), or a pair (model, img_size) that stands there twice.
    """
    columns, rows = read_table(path, "a catalogue", CURRENT)
    if "model" not in columns:
        raise InputError(
            f"{path}: no column 'model'; its columns are {shortened(', '.join(columns), 300)}"
        )
    _check_names(columns, path)
    entries: list[ModelEntry] = []
    lines: dict[tuple[str, int | None], int] = {}
    for line, cells in rows:
        where = f"{path}, line {line}"
        entry = _entry(cells, path.parent, where)
        key = (entry.model, entry.img_size)
        if key in lines:
            size = "" if entry.img_size is None else f" at img_size {entry.img_size}"
            first = f"{shown(entry.model)}{size} stands in line {lines[key]} already"
            raise InputError(f"{where}: {first}; the pair (model, img_size) must be unique")
        lines[key] = line
        entries.append(entry)
    if not entries:
        raise InputError(f"{path}: the catalogue is empty")
    return entries


def _check_names(columns: Sequence[str], path: Path) -> None:
    for name in columns:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
            raise InputError(
                f"{path}, line 1: the column {shown(name)} needs a plain name (letters, digits, underscores)"
            )


def _entry(cells: dict[str, str], folder: Path, where: str) -> ModelEntry:
    known = {name: cells[name] for name in TEXT_COLUMNS if cells.get(name)}
    if "model" not in known:
        raise InputError(f"{where}: the model's name is missing")
    fields: dict[str, Any] = {
        "model": known["model"],
        "architecture": known.get("architecture", known["model"]),
    }
    fields.update({name: known[name] for name in PLAIN_COLUMNS if name in known})
    if cells.get("extra_data"):
        fields["extra_data"] = _flag(cells["extra_data"], "extra_data", where)
    if "checkpoint" in known:
        fields["checkpoint"] = _file(known["checkpoint"], folder, where)
        if "weights" in known:
            raise InputError(
                f"{where}: checkpoint and weights both say where the weights are; leave one empty"
            )
    if "model_kwargs" in known:
        try:
            fields["model_kwargs"] = json_object(known["model_kwargs"])
        except ValueError as error:
            raise InputError(f"{where}: model_kwargs {error}") from None
    if any(cells.get(name) for name in PREPROCESSING_COLUMNS):
        fields["preprocessing"] = _preprocessing(cells, where)
    extras: dict[str, float | None] = {}
    for name, text in cells.items():
        if name in (*TEXT_COLUMNS, *PREPROCESSING_COLUMNS, "extra_data"):
            continue
        value = _number(text, name, where)
        if name == "img_size":
            if value is not None and not (value.is_integer() and 1 <= value <= LARGEST_IMG_SIZE):
                rule = f"must be a whole number of pixels, 1 to {LARGEST_IMG_SIZE}"
                raise InputError(f"{where}: img_size {rule}, not {shown(text)}")
            fields[name] = None if value is None else int(value)
        elif name in ("top1", "top5", "params_m"):
            fields[name] = value
        else:
            extras[name] = value
    try:
        return ModelEntry(**fields, extras=extras)
    except ValidationError as error:
        raise InputError(f"{where}: {validation_line(error)}") from None


def _file(name: str, folder: Path, where: str) -> Path:
    try:
        path = (folder / name).resolve()
        is_there = path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise InputError(
            f"{where}: the checkpoint {shown(name)} cannot be looked for: {shown(error)}"
        ) from None
    if not is_there:
        raise InputError(
            f"{where}: the checkpoint {shown(name)} is no file (looked for {shortened(str(path), 300)})"
        )
    return path


def _number(text: str, column: str, where: str) -> float | None:
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        known = ", ".join(TEXT_COLUMNS)
        raise InputError(
            f"{where}: {column} = {shown(text)} is no number (text may stand only in {known})"
        ) from None
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {column} = {shown(text)} is not finite; leave the cell empty if it is unknown"
        )
    if abs(value) > LARGEST_NUMBER:
        raise InputError(f"{where}: {column} = {shown(text)} is beyond {LARGEST_NUMBER:g}")
    if column in COSTS and value < 0:
        raise InputError(
            f"{where}: {column} = {shown(text)} is negative; leave the cell empty if it is unknown"
        )
    if is_accuracy(column) and not 0 <= value <= 100:
        hint = "leave the cell empty if it is unknown"
        raise InputError(
            f"{where}: {column} = {shortened(text)} lies outside 0 to 100 percent; {hint}"
        )
    return value


def _flag(text: str, column: str, where: str) -> bool:
    if text.removesuffix(".0").lower() not in FLAGS:
        raise InputError(
            f"{where}: {column} must be 1 or 0, or empty if it is unknown, not {shown(text)}"
        )
    return FLAGS[text.removesuffix(".0").lower()]


def _preprocessing(cells: dict[str, str], where: str) -> Preprocessing:
    fields: dict[str, Any] = {
        name: cells[name] for name in PREPROCESSING_COLUMNS if cells.get(name)
    }
    for name in ("mean", "std"):
        if name in fields:
            fields[name] = fields[name].replace(",", " ").split()
    try:
        return Preprocessing(**fields)
    except ValidationError as error:
        hint = "give crop_pct, mean and std (three numbers with spaces), or none of the preprocessing columns"
        raise InputError(f"{where}: {validation_line(error)}; {hint}") from None
