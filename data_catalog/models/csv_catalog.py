"""Read a catalogue from CSV or Parquet, in any unambiguous notation; errors name the line and the column."""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.settings import validation_line
from dsmi_zoo._util.tables import json_object, read_table
from dsmi_zoo._util.text import shortened, shown

from .entry import CURRENT_NAMES, ModelEntry, is_accuracy, target_unit

MAX_PARAMS_M = 1e5  # a hundred billion parameters
MAX_GMACS = 1e6
MAX_STATISTIC = 1e6
PILLOW_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Indexed by the values of Pillow's enum."""

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,})")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,\d{1,2}|\d+,\d{4,}|0,\d+)")
_AMBIGUOUS_COMMA = re.compile(r"[+-]?\d{1,3},\d{3}")
_SIDES = re.compile(r"[\[(]?\s*(?:[13]\s*[x×,* ]\s*)?(\d+)\s*[x×,* ]\s*(\d+)\s*[\])]?")


def plain_number(text: str, is_accuracy: bool) -> str:
    """Return a number without thousands separators, decimal comma or, for an accuracy, percent sign.

    ``1,234`` is left as it is: it is unambiguous only for an accuracy.
    """
    if is_accuracy:
        text = text.removesuffix("%").rstrip()
    if _THOUSANDS.fullmatch(text):
        return text.replace(",", "")
    if _DECIMAL_COMMA.fullmatch(text) or (is_accuracy and _AMBIGUOUS_COMMA.fullmatch(text)):
        return text.replace(",", ".")
    return text


def ambiguity(text: str, is_accuracy: bool) -> str:
    """Return the problem of a number that can be read in two ways, or ""."""
    if is_accuracy or not _AMBIGUOUS_COMMA.fullmatch(text) or _DECIMAL_COMMA.fullmatch(text):
        return ""
    return f"may be {text.replace(',', '')} or {text.replace(',', '.')}; write one of them"


def number_problem(value: float, column: str) -> str:
    """Return why the value cannot be in the column's unit, and what to do, or ""."""
    if column == "params_m" and value > MAX_PARAMS_M:
        return "is too large for millions of parameters; divide by 1,000,000"
    if column == "gmacs" and value > MAX_GMACS:
        return "is too large for billions of multiplications; divide by 1,000,000,000"
    if column == "gmacs" and value < 0:
        return "is negative; write billions of multiplications"
    if column in ("throughput", "cpu_throughput") and value <= 0:
        return "is not above 0; write images per second"
    return ""


def accuracy_problem(column: str, texts: Sequence[str]) -> str:
    """Return why the accuracies of a column look like fractions instead of percent, or "".

    A column is accepted if a value has a percent sign, or if all values are 0 or 1.
    """
    if any(text.endswith("%") for text in texts):
        return ""
    values = [float(plain_number(text, True)) for text in texts]
    if not values or max(values) > 1 or all(value in (0, 1) for value in values):
        return ""
    subject = (
        f"all {len(values)} values are" if len(values) > 1 else f"its one value, {texts[0]}, is"
    )
    return (
        f"{column}: {subject} at most 1: accuracies are percent, 0 to 100; multiply by 100, "
        "or write a percent sign if they are percent"
    )


def pixel_statistics(text: str, column: str) -> list[str]:
    """Return the three numbers of ``mean`` or ``std``; raise ValueError unless they are for pixels of 0 to 1."""
    parts = text.strip("[]() ").replace(",", " ").split()
    for part in parts:
        try:
            value = float(part)
        except ValueError:
            continue  # the entry's validation reports it
        # `Preprocessing` checks larger values.
        if 1 < value <= MAX_STATISTIC or (column == "mean" and -MAX_STATISTIC <= value < 0):
            raise ValueError(
                f"{column} = {shown(text)} lies outside 0 to 1, the range of pixels here; "
                "if it is for pixels of 0 to 255, divide by 255 (both mean and std)"
            )
    return parts


def crop_share(text: str) -> str:
    """Return ``crop_pct`` as a share; raise ValueError for what looks like percent without a sign."""
    try:
        if text.endswith("%"):
            return str(float(text.removesuffix("%")) / 100)
        value = float(text)
    except ValueError:
        return text
    if 50 <= value <= 100:
        raise ValueError(
            f"crop_pct = {text} is a share, not percent; divide by 100: {value / 100:g}"
        )
    return text


def image_side(text: str) -> str:
    """Return the side of ``224x224`` or ``3,224,224``; raise ValueError unless the image is square."""
    sides = _SIDES.fullmatch(text)
    if sides is None:
        return text
    if sides[1] != sides[2]:
        raise ValueError(f"img_size = {shown(text)} is not square; write one whole number")
    return sides[1]


def interpolation_name(text: str) -> str:
    """Return an interpolation's name for Pillow's number, another case, or ``InterpolationMode.BICUBIC``."""
    number = text.removesuffix(".0")
    if number in map(str, range(len(PILLOW_INTERPOLATIONS))):
        return PILLOW_INTERPOLATIONS[int(number)]
    return text.rpartition(".")[2].lower()


TEXT_COLUMNS = (
    "model", "architecture", "family", "kind", "pretraining", "license", "group", "published_name", "builder", "layer",
    "weights", "checkpoint", "checkpoint_key", "model_kwargs", "crop_mode", "interpolation",
)  # fmt: skip
PREPROCESSING_COLUMNS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
NUMBER_FIELDS = ("img_size", "top1", "top5", "params_m")
MAX_NUMBER = 1e30  # sums of squares of such numbers are finite


def read_catalog(path: Path) -> list[ModelEntry]:
    """Return the entries of a file, in its order.

    Raises
    ------
    InputError
        For a file that is not a table, a wrong value (with its line), or a pair (model, img_size) that occurs twice.
    """
    columns, rows = read_table(path, "a catalogue", CURRENT_NAMES)
    for name in columns:
        meant = _intended_column(name)
        if meant is not None and meant not in columns:
            raise InputError(
                f"{path}, line 1: did you mean {meant}? If so, rename the column {shown(name)} to {meant}"
            )
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


KNOWN_COLUMNS = (
    *TEXT_COLUMNS, *PREPROCESSING_COLUMNS, *NUMBER_FIELDS, "extra_data", "gmacs", "throughput", "cpu_throughput",
    "epoch", "pretraining_images",
)  # fmt: skip
"""Columns with a defined meaning, besides accuracies."""

OTHER_NAMES = {
    "model": ("name", "model name", "model id"),
    "architecture": ("arch", "network", "backbone", "timm name", "timm model"),
    "checkpoint": ("ckpt", "checkpoint path", "checkpoint file", "weights file", "weights path"),
    "img_size": ("image size", "input size", "im size", "resolution"),
    "top1": ("acc1", "acc@1", "top1 acc", "top1 accuracy"),
    "top5": ("acc5", "acc@5", "top5 acc", "top5 accuracy"),
    "model_kwargs": ("kwargs", "model args"),
}
"""Other tools' names for our columns; refused, because a run would ignore a column that it needs."""
SIMILAR_NAMES = {
    "top1": ("acc", "accuracy", "val acc"),
    "params_m": ("params", "param count", "parameters", "num params"),
    "gmacs": ("macs", "flops", "gflops"),
    "crop_pct": ("crop", "crop ratio"),
    "kind": ("type",),
}
"""Names that may mean one of our columns or one of the user's own; only for suggestions."""


def _spelling(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name.lower())


_COLUMN_OF_SPELLING = {_spelling(name): name for name in KNOWN_COLUMNS}
_COLUMN_OF_SPELLING |= {
    _spelling(other): name for name, others in OTHER_NAMES.items() for other in others
}
_SIMILAR = {_spelling(other): name for name, others in SIMILAR_NAMES.items() for other in others}


def _intended_column(name: str) -> str | None:
    """Return the known column that a misspelt name must mean, whatever its capitals and underscores, or None."""
    known = _COLUMN_OF_SPELLING.get(_spelling(name))
    return None if known == name else known


def nearest_column(name: str) -> str:
    """Return ``" (did you mean img_size?)"`` for a name similar to a known column's, or ""."""
    known = _COLUMN_OF_SPELLING | _SIMILAR
    near = get_close_matches(_spelling(name), known, n=1, cutoff=0.75)
    return f" (did you mean {known[near[0]]}?)" if near else ""


def own_columns(entries: Iterable[ModelEntry]) -> list[str]:
    """Return a catalogue's columns without a defined meaning, which are kept as numbers, in their order."""
    names = dict.fromkeys(name for entry in entries for name in entry.extras)
    return [name for name in names if name not in KNOWN_COLUMNS and target_unit(name) is None]


def _entry(cells: dict[str, str], folder: Path) -> ModelEntry:
    """Return the entry of a row; raise ValueError that names a column with a wrong value."""
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
            fields["checkpoint_in_catalog"] = _below(text)
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
    if os.path.isdir(folder / name):  # noqa: PTH112 unlike Path.is_dir, returns False for a name that no file can have
        raise ValueError(
            f"the checkpoint {shown(name)} is a folder; name the file of weights in it"
        )
    if not is_file(folder / name):
        looked_for = shortened(str(folder.absolute() / name), 300)
        raise ValueError(f"the checkpoint {shown(name)} is not a file (looked for {looked_for})")
    return (folder / name).resolve()


def _below(name: str) -> str | None:
    """Return a relative path that stays in its folder; None for one that may name other folders of this machine."""
    path = PurePath(name)
    return None if path.is_absolute() or ".." in path.parts else path.as_posix()


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
            f"{column}{nearest_column(column)} = {shown(text)} is not a number "
            f"(only these columns hold text: {known})"
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
