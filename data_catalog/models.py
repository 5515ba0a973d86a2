"""Model catalogues: which models there are, how each is built and fed, and what is published about it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .errors import InputError
from .traits import Kind

TABLES = Path(__file__).with_name("tables")


class Preprocessing(BaseModel):
    """How an image becomes a model's input: timm's evaluation transform, then mean and std."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_pct: float = Field(gt=0)
    crop_mode: Literal["center", "squash", "border", "paper"] = "center"
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

    ``preprocessing``, ``img_size``, ``family`` and ``weights`` may be None here;
    ``dsmi_zoo.pipeline.zoo.with_timm_defaults`` then takes timm's. ``weights`` is a repository of the Hugging Face hub
    (``owner/name``, with ``@revision`` if pinned) or a URL. ``extra_data`` says whether the weights saw images beyond
    ImageNet-1k. ``extras`` holds the catalogue's other numeric columns, among them further accuracies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    family: str | None = None
    kind: Kind | None = None
    pretraining: str | None = None
    extra_data: bool | None = None
    licence: str | None = None
    published_name: str | None = None
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

    @field_validator("weights")
    @classmethod
    def _names_a_place(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"https?://\S+|[\w.-]+/[\w.-]+(@[\w./-]+)?", text):
            raise ValueError(
                "must be a repository of the Hugging Face hub (owner/name or owner/name@revision) or a URL"
            )
        return text

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
        The name of a built-in catalogue (a key of ``BUILT_IN``), or the path of a CSV or Parquet file.
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
        entries = _from_file(Path(catalog))
    return select(entries, patterns, str(catalog))


def catalog_sha256(catalog: str | Path) -> str:
    """Hash of a catalogue: of its file, or of a built-in one's entries."""
    if str(catalog) in BUILT_IN:
        content = "\n".join(entry.model_dump_json() for entry in load_models(catalog)).encode()
    else:
        content = Path(catalog).read_bytes()
    return hashlib.sha256(content).hexdigest()


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


def _from_file(path: Path) -> list[ModelEntry]:
    from .catalog_file import read_catalog

    if not path.is_file():
        raise InputError(f"unknown catalogue {str(path)!r}: neither a file nor one of {', '.join(BUILT_IN)}")
    return read_catalog(path)


def _digits() -> list[ModelEntry]:
    from .digits import digits_models

    return digits_models()


def _timm_pretrained() -> list[ModelEntry]:
    """timm's registry, asked in a process of its own: the caller's stays free of timm and torch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_ask_timm).result()


def _ask_timm() -> list[ModelEntry]:
    from .from_timm import pretrained_models

    return pretrained_models()


BUILT_IN: dict[str, Callable[[], list[ModelEntry]]] = {
    "digits": _digits,
    "imagenet-2023": partial(_from_file, TABLES / "imagenet-2023.csv"),
    "imagenet-2025": partial(_from_file, TABLES / "imagenet-2025.csv"),
    "timm-pretrained": _timm_pretrained,
}
