"""A catalogue entry: a network, how to build it, its preprocessing, and its published accuracies."""

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

CURRENT_NAMES = {"licence": "license"}
"""Current names of renamed columns and settings, by their former names: older files are still read."""

SOURCES = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
)  # fmt: skip


def sources_problem(model_kwargs: Iterable[str]) -> str:
    """Return why arguments that make timm load weights other than the entry's are refused, or "".

    timm would download them even where downloads are forbidden. This does not apply to entries with a builder, which
    may use such names differently.
    """
    forbidden = [repr(name) for name in SOURCES if name in model_kwargs]
    if not forbidden:
        return ""
    names = ", ".join(forbidden)
    return f"model_kwargs may not hold {names}: name a model's weights in the column weights or checkpoint"


MAX_IMG_SIZE = 4096  # pixels; at 20,000 a view of the 447 digits would take 536 GB
MAX_MEAN = 1e6  # far beyond any in use, for means and standard deviations

Mean = Annotated[float, Field(ge=-MAX_MEAN, le=MAX_MEAN)]
Std = Annotated[float, Field(ge=1 / MAX_MEAN, le=MAX_MEAN)]


def module_and_function(text: str) -> tuple[str, str] | None:
    """Split ``package.module:function``; return None for anything else, such as the name of a file."""
    module, _, function = text.partition(":")
    if module.endswith(".py") or not function.isidentifier():
        return None
    is_a_module = all(part.isidentifier() for part in module.split("."))
    return (module, function) if is_a_module else None


class Preprocessing(BaseModel):
    """The steps from an image to a model's input: timm's evaluation transform, then mean and std."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_pct: float = Field(ge=0.1, le=10)
    crop_mode: Literal["center", "squash", "border", "paper"] = "center"
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"] = (
        "bicubic"
    )
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]


class TrainingRecipe(BaseModel):
    """Everything that determines the weights of a model that the pipeline trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    train_images: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int


class ModelEntry(BaseModel):
    """One entry of a catalogue: weights at one image size.

    ``dsmi_zoo.pipeline.plan.plan.resolve_entries`` fills ``preprocessing``, ``img_size``, ``family`` and ``weights``
    where they are None.

    Attributes
    ----------
    weights
        A repository of the Hugging Face hub (``owner/name``, with ``@revision`` if pinned) or a URL.
    builder
        The function that makes the network in place of timm: ``module:function``.
    layer
        The layer whose output is the embedding, a name of ``named_modules()``; by default the penultimate layer.
    checkpoint_in_catalog
        The checkpoint's path below the catalogue's folder, as the catalogue writes it; None if it is elsewhere. Not
        part of any identity.
    checkpoint_key
        The dotted path of the dict of weights in a checkpoint that holds several, such as ``state_dict.ema``.
    extra_data
        Whether the weights saw images beyond ImageNet-1k.
    extras
        The catalogue's other numeric columns, among them further accuracies.
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
    img_size: int | None = Field(default=None, ge=1, le=MAX_IMG_SIZE)
    group: str | None = None
    builder: str | None = None
    layer: str | None = Field(default=None, min_length=1)
    weights: str | None = None
    checkpoint: Path | None = None
    checkpoint_in_catalog: str | None = Field(default=None, exclude=True)
    checkpoint_key: str | None = Field(default=None, min_length=1)
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
        repository = re.fullmatch(r"([^\s@]+/[^\s@]+)(@[A-Za-z0-9_./-]+)?", text)
        if repository is None:
            repository_form = "owner/name or owner/name@revision"
            raise ValueError(
                f"must be a repository of the Hugging Face hub ({repository_form}) or a URL"
            )
        problem = repository_problem(repository[1])
        if problem:
            raise ValueError(problem)
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
        if type(size) is not int or not 1 <= size <= MAX_IMG_SIZE:
            rule = f"one whole number, 1 to {MAX_IMG_SIZE}, for images are square"
            raise ValueError(f"img_size must be {rule}, not {shown(size)}")
        return arguments

    @model_validator(mode="after")
    def _no_weights_by_arguments(self) -> Self:
        problem = sources_problem(self.model_kwargs) if self.builder is None else ""
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _key_of_a_checkpoint(self) -> Self:
        if self.checkpoint_key is not None and self.checkpoint is None:
            raise ValueError("checkpoint_key chooses among the weights of a checkpoint; name one")
        return self

    @cached_property
    def slug(self) -> str:
        """A readable and safe file name, unique to the pair (model, img_size)."""
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", self.model)[:80].strip("-")
        identity = json.dumps([self.model, self.img_size]).encode()
        digest = hashlib.sha256(identity).hexdigest()[:12]
        return f"{readable}-{self.img_size}-{digest}"

    def at_layer(self, layer: str) -> Self:
        """Return the entry of another layer of the same network, ``MODEL:LAYER``."""
        # Not by model_copy, which would keep the cached slug.
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**fields | {"model": f"{self.model}:{layer}", "layer": layer})

    def __str__(self) -> str:
        return f"{self.model}@{self.img_size}"


def target_unit(column: str) -> str | None:
    """Return the unit of a column that is a target of the report, "%" or "logits", else None."""
    if is_accuracy(column):
        return "%"
    return "logits" if column.endswith("_effective_robustness") else None


def is_accuracy(column: str) -> bool:
    """Return whether a column holds a published accuracy in percent."""
    return column != "subset_top1" and (
        column in ("top1", "top5") or column.endswith(("_top1", "_top5"))
    )
