"""From a model and images to an embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..data_catalog.entries import Preprocessing
from .layers import as_vectors, check_layer, forward, has_pre_logits, place_of, unwrapped
from .stored_view import StoredView

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
ACCELERATOR_BATCH = 64
CPU_BATCH_PIXELS = 2**19  # beyond about so many, layers outgrow a core's cache: a quarter slower at 64 x 160 x 160


@dataclass(frozen=True)
class Embedding:
    """A model's view of the subset.

    Attributes
    ----------
    values : float32 [n, d]
        One layer's activations, by default the penultimate one's.
    predictions : int64 [n] or None
        The classifier's choices; None when the model has no classifier.
    n_logits : int or None
        How many outputs the classifier chooses from.
    """

    values: np.ndarray
    predictions: np.ndarray | None
    n_logits: int | None = None


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [n, h, w, 3] as the float32 [n, 3, h, w] that a model takes."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def default_batch(device: torch.device, pixels: int) -> int:
    """How many images of so many pixels go through a model at once."""
    return max(8, CPU_BATCH_PIXELS // pixels) if device.type == "cpu" else ACCELERATOR_BATCH


class Inputs(Protocol):
    """Images as a model takes them, made a batch at a time."""

    @property
    def pixels(self) -> int:
        """Of one image."""

    def __len__(self) -> int:
        """How many images there are."""

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """The images from ``start`` up to ``stop`` (or the last), float [n, c, h, w], on the device."""


@dataclass(frozen=True)
class View:
    """A view, uint8 [n, h, w, 3], in memory or on disk, that is normalised on the device."""

    values: np.ndarray | StoredView
    preprocessing: Preprocessing

    @property
    def pixels(self) -> int:
        """Height times width."""
        return int(self.values.shape[1] * self.values.shape[2])

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Read only these images."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.values[start:stop]))
        return normalised(pixels.to(device), self.preprocessing)


def embed(
    model: torch.nn.Module,
    view: np.ndarray | StoredView,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Embedding:
    """The penultimate embedding of a view, uint8 [n, h, w, 3]; all else is as in ``embed_inputs``."""
    return embed_inputs(model, View(view, preprocessing), device, batch_size=batch_size, precision=precision)


@torch.inference_mode()
def embed_inputs(
    model: torch.nn.Module,
    inputs: Inputs,
    device: torch.device,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Embedding:
    """The embedding of images by one layer of a model, and the classifier's predictions.

    Parameters
    ----------
    model
        Any module in evaluation mode; it is moved to ``device``.
    inputs
        Only one batch of them is in memory at a time.
    layer
        A name of ``named_modules()``; None is the penultimate layer (see ``dsmi_zoo.pipeline.layers.forward``).
    batch_size
        At most so many images in a forward pass; None chooses by the device. It is halved when the device's memory
        runs out.
    precision
        ``fp32`` (TF32 off), ``tf32``, ``bf16`` or ``fp16`` (autocast).

    Raises
    ------
    ValueError
        When the pre-logits of a timm model are not one vector an image.
    InputError
        When there is no such layer, or it does not give one output an image.
    torch.OutOfMemoryError
        When even a single image does not fit.
    """
    model = unwrapped(model.to(device))
    check_layer(model, layer)
    if device.type == "cuda" and has_pre_logits(model):  # code of one's own may call ``view``, which needs contiguity
        model = model.to(memory_format=torch.channels_last)
    batch_size = batch_size or default_batch(device, inputs.pixels)
    whole: Embedding | None = None
    start = 0
    with _numerics(device, precision):
        while start < len(inputs):
            try:
                part = _forward(model, inputs.batch(start, start + batch_size, device), layer)
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size //= 2
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            whole = whole or _room_like(part, len(inputs))
            _put(part, whole, start)
            start += len(part.values)
    if whole is None:
        raise ValueError("there are no images to embed")
    return whole


def _forward(model: torch.nn.Module, images: torch.Tensor, layer: str | None) -> Embedding:
    by_timm = has_pre_logits(model)
    if images.device.type == "cuda" and by_timm:
        images = images.contiguous(memory_format=torch.channels_last)
    _, dtype = place_of(model)
    output, logits = forward(model, images.to(dtype), layer, logits=True)
    if layer is None and by_timm and output.ndim != 2:
        raise ValueError(f"the pre-logits have shape {tuple(output.shape)}, not one vector an image")
    values = as_vectors(output, len(images), layer).float().cpu().numpy()
    if logits is None:
        return Embedding(values, None)
    return Embedding(values, logits.argmax(dim=1).cpu().numpy(), logits.shape[1])


def _room_like(part: Embedding, images: int) -> Embedding:
    """Room for so many images, of which ``part`` holds some.

    It is made at once, not joined from parts: small arrays that stay between the large ones of each batch keep the C
    library from using freed memory again (glibc before 2.38: some gigabytes for a thousand large images).
    """
    values = np.empty((images, *part.values.shape[1:]), part.values.dtype)
    predictions = None if part.predictions is None else np.empty(images, part.predictions.dtype)
    return Embedding(values, predictions, part.n_logits)


def _put(part: Embedding, whole: Embedding, start: int) -> None:
    rows = slice(start, start + len(part.values))
    whole.values[rows] = part.values
    if whole.predictions is not None:
        whole.predictions[rows] = part.predictions


@contextmanager
def _numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Matrix products and convolutions of the precision asked for, and of no other."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
