"""Read a catalogue from a CSV or Parquet file; errors name the line and the column."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.settings import validation_line
from dsmi_zoo._util.tables import json_object, read_table
from dsmi_zoo._util.text import shortened, shown

from .entry import CURRENT_NAMES, ModelEntry, is_accuracy
from .units import (
    accuracy_problem,
    ambiguity,
    crop_share,
    image_side,
    interpolation_name,
    number_problem,
    pixel_statistics,
    plain_number,
)

TEXT_COLUMNS = (
    "model", "architecture", "family", "kind", "pretraining", "license", "group", "published_name", "builder", "layer",
    "weights", "checkpoint", "checkpoint_key", "model_kwargs", "crop_mode", "interpolation",
)  # fmt: skip
PREPROCESSING_COLUMNS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
NUMBER_FIELDS = ("img_size", "top1", "top5", "params_m")
MAX_NUMBER = 1e30  # sums of its squares are still finite


def read_catalog(path: Path) -> list[ModelEntry]:
    """Return the entries of a file, in its order.

    Raises
    ------
    InputError
        For a file that is not a table, a wrong value (with its line), or a pair (model, img_size) that occurs twice.
    """
    columns, rows = read_table(path, "a catalogue", CURRENT_NAMES)
    for name in columns:
        known = _SPELT.get(_spelling(name), name)
        if known not in columns:
            raise InputError(f"{path}, line 1: rename the column {shown(name)} to {known}")
    if "model" not in columns:
        raise InputError(
            f"{path}: no column 'model'; its columns are {shortened(', '.join(columns), 300)}"
        )
    for name in columns:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
            raise InputError(
                f"{path}, line 1: the column {shown(name)} needs a plain name (letters, digits, underscores)"
            )
    entries: list[ModelEntry] = []
    lines: dict[tuple[str, int | None], int] = {}
    accuracies: dict[str, list[str]] = {name: [] for name in columns if is_accuracy(name)}
    for line, cells in rows:
        where = f"{path}, line {line}"
        try:
            entry = _entry(cells, path.parent)
        except ValidationError as error:
            raise InputError(f"{where}: {validation_line(error)}") from None
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        if entry.top1 is not None and entry.top5 is not None and entry.top1 > entry.top5:
            raise InputError(
                f"{where}: top1 = {entry.top1:g} is above top5 = {entry.top5:g}: "
                "swap them, or write 100 minus the errors"
            )
        key = (entry.model, entry.img_size)
        if key in lines:
            size = "" if entry.img_size is None else f" at img_size {entry.img_size}"
            raise InputError(
                f"{where}: {shown(entry.model)}{size} is already in line {lines[key]}; "
                "the pair (model, img_size) must be unique"
            )
        lines[key] = line
        entries.append(entry)
        for name, texts in accuracies.items():
            texts += [cells[name]] if cells[name] else []
    if not entries:
        raise InputError(f"{path}: the catalogue is empty")
    for name, texts in accuracies.items():
        problem = accuracy_problem(name, texts)
        if problem:
            raise InputError(f"{path}: {problem}")
    return entries


def _spelling(name: str) -> str:
    return name.lower().replace("_", "")


_SPELT = {
    _spelling(name): name
    for name in (
        *TEXT_COLUMNS, *PREPROCESSING_COLUMNS, *NUMBER_FIELDS, "extra_data", "gmacs", "throughput", "epoch",
    )
}  # fmt: skip
"""Columns by their names without capitals and underscores; a column that differs only in these is a mistake."""


def _entry(cells: dict[str, str], folder: Path) -> ModelEntry:
    """Return the entry of a row; ValueError names the wrong column."""
    filled = {name: text for name, text in cells.items() if text}
    if "model" not in filled:
        raise ValueError("the model's name is missing")
    if "checkpoint" in filled and "weights" in filled:
        raise ValueError("checkpoint and weights both name the weights; leave one empty")

    fields: dict[str, Any] = {"architecture": filled["model"]}
    preprocessing: dict[str, Any] = {}
    extras: dict[str, float | None] = {}
    for name, text in cells.items():
        if name in NUMBER_FIELDS:
            fields[name] = _number(image_side(text) if name == "img_size" else text, name)
        elif name not in (*TEXT_COLUMNS, *PREPROCESSING_COLUMNS, "extra_data"):
            extras[name] = _number(text, name)
        elif not text:
            continue
        elif name in ("mean", "std"):
            preprocessing[name] = pixel_statistics(text, name)
        elif name == "crop_pct":
            preprocessing[name] = crop_share(text)
        elif name == "interpolation":
            preprocessing[name] = interpolation_name(text)
        elif name == "crop_mode":
            preprocessing[name] = text.lower()
        elif name == "checkpoint":
            fields[name] = _file(text, folder)
        elif name == "model_kwargs":
            fields[name] = json_object(text, name)
        elif name == "extra_data":
            fields[name] = text.removesuffix(".0")
        else:
            fields[name] = text
    if preprocessing:
        if not {"crop_pct", "mean", "std"} <= preprocessing.keys():
            raise ValueError(
                "give crop_pct, mean and std (three numbers with spaces), or none of the preprocessing columns"
            )
        fields["preprocessing"] = preprocessing
    return ModelEntry(**fields, extras=extras)


def _file(name: str, folder: Path) -> Path:
    if os.path.isdir(folder / name):  # noqa: PTH112 False, too, for a name that no file can have
        raise ValueError(
            f"the checkpoint {shown(name)} is a folder; name the file of weights in it"
        )
    if not is_file(folder / name):
        looked_for = shortened(str(folder.absolute() / name), 300)
        raise ValueError(f"the checkpoint {shown(name)} is not a file (looked for {looked_for})")
    return (folder / name).resolve()


def _number(text: str, column: str) -> float | None:
    if text == "":
        return None
    problem = ambiguity(text, is_accuracy(column))
    if problem:
        raise ValueError(f"{column} = {shown(text)} {problem}")
    try:
        value = float(plain_number(text, is_accuracy(column)))
    except ValueError:
        known = ", ".join(TEXT_COLUMNS)
        raise ValueError(
            f"{column} = {shown(text)} is not a number (only these columns hold text: {known})"
        ) from None
    hint = "; leave the cell empty if it is unknown"
    if not abs(value) <= MAX_NUMBER:  # also for NaN
        raise ValueError(f"{column} = {shown(text)} is not finite, or beyond {MAX_NUMBER:g}{hint}")
    if is_accuracy(column) and not 0 <= value <= 100:
        raise ValueError(f"{column} = {shortened(text)} lies outside 0 to 100 percent{hint}")
    problem = number_problem(value, column)
    if problem:
        raise ValueError(f"{column} = {shortened(text)} {problem}{hint}")
    return value
