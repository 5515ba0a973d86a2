"""An entry of a catalogue: which network, how it is built and fed, and what is published about it."""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dsmi_zoo._util.paths import repository_problem
from dsmi_zoo._util.text import shown

from .taxonomy import NetworkKind

SOURCES = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
)  # fmt: skip


def sources_problem(model_kwargs: Iterable[str]) -> str:
    """What is wrong with arguments for timm by which it would load other weights than the entry's; empty if nothing.

    timm downloads what they name by itself, also where downloads are forbidden. For entries without a builder only: a
    builder may give such names a meaning of its own.
    """
    forbidden = [f"{name!r}" for name in SOURCES if name in model_kwargs]
    if not forbidden:
        return ""
    names = ", ".join(forbidden)
    return f"model_kwargs may not hold {names}: name a model's weights in the column weights or checkpoint"


LARGEST_IMG_SIZE = 4096  # pixels; at 20,000 a view of the 447 digits would take 536 GB
IN_USE = 1e6  # nothing that is added to a pixel, or that it is divided by, is larger, and no divisor below its inverse

Mean = Annotated[float, Field(ge=-IN_USE, le=IN_USE)]
Std = Annotated[float, Field(ge=1 / IN_USE, le=IN_USE)]


def module_and_function(text: str) -> tuple[str, str] | None:
    """The parts of ``package.module:function``; None for what is not written so, such as the name of a file."""
    module, _, function = text.partition(":")
    if module.endswith(".py") or not function.isidentifier():
        return None
    is_a_module = all(part.isidentifier() for part in module.split("."))
    return (module, function) if is_a_module else None


class Preprocessing(BaseModel):
    """How an image becomes a model's input: timm's evaluation transform, then mean and std."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_pct: float = Field(ge=0.1, le=10)
    crop_mode: Literal["center", "squash", "border", "paper"] = "center"
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"] = (
        "bicubic"
    )
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]


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
    ``dsmi_zoo.pipeline.plan.plan.resolve_entries`` then fills them. ``weights`` is a repository of the Hugging Face hub
    (``owner/name``, with ``@revision`` if pinned) or a URL. ``builder`` (``module:function``) names code that makes the
    network in place of timm, and ``layer`` (a name of ``named_modules()``) the layer whose output is the embedding in
    place of the penultimate one's. ``extra_data`` says whether the weights saw images beyond ImageNet-1k. ``extras``
    holds the catalogue's other numeric columns, among them further accuracies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    architecture: str = Field(min_length=1)
    family: str | None = None
    kind: NetworkKind | None = None
    pretraining: str | None = None
    extra_data: bool | None = None
    license: str | None = None
    published_name: str | None = None
    img_size: int | None = Field(default=None, ge=1, le=LARGEST_IMG_SIZE)
    group: str | None = None
    builder: str | None = None
    layer: str | None = Field(default=None, min_length=1)
    weights: str | None = None
    checkpoint: Path | None = None
    recipe: TrainingRecipe | None = None
    model_kwargs: dict[str, Any] = {}
    preprocessing: Preprocessing | None = None
    top1: float | None = Field(default=None, ge=0, le=100)
    top5: float | None = Field(default=None, ge=0, le=100)
    params_m: float | None = Field(default=None, gt=0, le=1e9)
    extras: dict[str, float | None] = {}

    @field_validator("weights")
    @classmethod
    def _names_a_place(cls, text: str | None) -> str | None:
        if text is None or re.fullmatch(r"https?://\S+", text):
            return text
        rule = "must be a repository of the Hugging Face hub (owner/name or owner/name@revision) or a URL"
        repository = re.fullmatch(r"([^\s@]+/[^\s@]+)(@[A-Za-z0-9_./-]+)?", text)
        if repository is None:
            raise ValueError(rule)
        problem = repository_problem(repository[1])
        if problem:
            raise ValueError(f"{rule}: {problem}")
        return text

    @field_validator("builder")
    @classmethod
    def _names_a_function(cls, text: str | None) -> str | None:
        if text is not None and module_and_function(text) is None:
            raise ValueError("must be module:function, such as torchvision.models.resnet:resnet18")
        return text

    @field_validator("model_kwargs")
    @classmethod
    def _one_img_size(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        size = arguments.get("img_size", 1)
        if type(size) is not int or not 1 <= size <= LARGEST_IMG_SIZE:
            rule = (
                f"img_size must be one whole number, 1 to {LARGEST_IMG_SIZE}, for images are square"
            )
            raise ValueError(f"{rule}, not {shown(size)}")
        return arguments

    @model_validator(mode="after")
    def _no_weights_by_arguments(self) -> Self:
        problem = sources_problem(self.model_kwargs) if self.builder is None else ""
        if problem:
            raise ValueError(problem)
        return self

    @cached_property
    def slug(self) -> str:
        """A file name for this entry: readable, safe, and different for every (model, img_size)."""
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", self.model)[:80].strip("-")
        identity = json.dumps([self.model, self.img_size]).encode()
        digest = hashlib.sha256(identity).hexdigest()[:12]
        return f"{readable}-{self.img_size}-{digest}"

    def __str__(self) -> str:
        return f"{self.model}@{self.img_size}"


def target_unit(column: str) -> str | None:
    """The unit of a column that is a target of the report: "%" or "logits"; None for a column that is none."""
    if is_accuracy(column):
        return "%"
    return "logits" if column.endswith("_effective_robustness") else None


def is_accuracy(column: str) -> bool:
    """Whether a column holds a published accuracy in percent."""
    return column != "subset_top1" and (
        column in ("top1", "top5") or column.endswith(("_top1", "_top5"))
    )
