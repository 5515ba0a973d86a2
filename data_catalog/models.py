"""Model catalogues: which models there are, how each is built and fed, and what is published about it."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_catalog.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


class Preprocessing(BaseModel):
    """How an image becomes a model's input: timm's evaluation transform, then mean and std."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_pct: float = Field(gt=0)
    crop_mode: Literal["center", "squash", "border"] = "center"
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"] = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TrainingRecipe(BaseModel):
    """All that decides the weights of a model which the pipeline trains itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    train_images: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int


class ModelEntry(BaseModel):
    """One entry of a catalogue: a set of weights at one image size.

    ``preprocessing``, ``img_size`` and ``family`` may be None here; ``pipeline.zoo.resolve`` then takes timm's.
    ``weights`` is a repository of the Hugging Face hub (``owner/name``, with ``@revision`` if pinned) or a URL.
    ``extras`` holds the catalogue's other numeric columns, among them further accuracies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    family: str | None = None
    img_size: int | None = Field(default=None, gt=0)
    group: str | None = None
    weights: str | None = None
    checkpoint: Path | None = None
    recipe: TrainingRecipe | None = None
    model_kwargs: dict[str, Any] = {}
    preprocessing: Preprocessing | None = None
    top1: float | None = Field(default=None, ge=0, le=100)
    top5: float | None = Field(default=None, ge=0, le=100)
    params_m: float | None = Field(default=None, gt=0)
    extras: dict[str, float | None] = {}

    @cached_property
    def slug(self) -> str:
        """A file name for this entry: readable, safe, and different for every (model, img_size)."""
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", self.model)[:80].strip("-")
        digest = hashlib.sha256(json.dumps([self.model, self.img_size]).encode()).hexdigest()[:12]
        return f"{readable}-{self.img_size}-{digest}"

    def __str__(self) -> str:
        return f"{self.model}@{self.img_size}"


def load_models(catalog: str | Path, patterns: Sequence[str] = ()) -> list[ModelEntry]:
    """The entries of a catalogue, in its order.

    Parameters
    ----------
    catalog
        The name of a built-in catalogue (``digits``), or the path of a CSV or Parquet file.
    patterns
        Keep entries whose ``model`` or ``model@size`` matches one of these shell patterns; none keeps all.

    Raises
    ------
    InputError
        For an unknown catalogue, a wrong value (with its line), duplicates, or a pattern that matches nothing.
    """
    if str(catalog) in BUILT_IN:
        entries = BUILT_IN[str(catalog)]()
    else:
        entries = _read_catalog(Path(catalog))
    return select(entries, patterns, str(catalog))


def select(entries: Iterable[ModelEntry], patterns: Sequence[str], where: str) -> list[ModelEntry]:
    """The entries that match any pattern; each pattern must match something."""
    entries = list(entries)
    if not patterns:
        return entries
    chosen: dict[str, bool] = {}
    for pattern in patterns:
        hits = [e for e in entries if fnmatchcase(e.model, pattern) or fnmatchcase(str(e), pattern)]
        if not hits:
            near = get_close_matches(pattern, [e.model for e in entries], n=1)
            hint = f"did you mean {near[0]}?" if near else f"for example: {entries[0].model}"
            raise InputError(f"no model of {where} matches {pattern!r}; {hint}")
        chosen.update(dict.fromkeys(map(str, hits), True))
    return [e for e in entries if str(e) in chosen]


def find_entries(entries: Sequence[ModelEntry], names: Iterable[str], where: str) -> list[ModelEntry]:
    """The entries that ``MODEL`` (all sizes) or ``MODEL@SIZE`` names, exactly."""
    found: dict[str, ModelEntry] = {}
    for name in names:
        hits = [e for e in entries if e.model == name] or [e for e in entries if str(e) == name]
        if not hits:
            near = get_close_matches(name, [e.model for e in entries], n=1)
            raise InputError(f"{where} has no model {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        found.update({str(e): e for e in hits})
    return list(found.values())


def is_accuracy(column: str) -> bool:
    """Whether a column holds a published accuracy in percent, and so is a target of the report."""
    return column != "subset_top1" and (column in ("top1", "top5") or column.endswith(("_top1", "_top5")))


TEXT_COLUMNS = ("model", "architecture", "family", "group", "checkpoint", "model_kwargs", "crop_mode", "interpolation")
PREPROCESSING_COLUMNS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")


def _read_catalog(path: Path) -> list[ModelEntry]:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"unknown catalogue {str(path)!r}: neither a file nor one of {', '.join(BUILT_IN)}")
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
    fields.update({name: known[name] for name in ("family", "group") if name in known})
    if "checkpoint" in known:
        fields["checkpoint"] = (folder / known["checkpoint"]).resolve()
        if not fields["checkpoint"].is_file():
            looked_for = fields["checkpoint"]
            raise InputError(f"{where}: the checkpoint {known['checkpoint']!r} is no file (looked for {looked_for})")
    if "model_kwargs" in known:
        fields["model_kwargs"] = _json_object(known["model_kwargs"], where)
    if any(cells.get(name) for name in PREPROCESSING_COLUMNS):
        fields["preprocessing"] = _preprocessing(cells, where)
    extras: dict[str, float | None] = {}
    for name, text in cells.items():
        if name in (*TEXT_COLUMNS, *PREPROCESSING_COLUMNS):
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


def validation_line(error: ValidationError) -> str:
    """The first problem that pydantic found, in one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    shown = f", not {first['input']!r}" if first["type"] not in ("missing", "extra_forbidden") else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}: {message}{shown}" if name else message


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _digits() -> list[ModelEntry]:
    from data_catalog.digits import digits_models

    return digits_models()


BUILT_IN = {"digits": _digits}
