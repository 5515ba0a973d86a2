"""From a model and a view to the penultimate embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data_catalog.entries import Preprocessing

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
ACCELERATOR_BATCH = 64
CPU_BATCH_PIXELS = 2**19  # beyond about so many, layers outgrow a core's cache: a quarter slower at 64 x 160 x 160


@dataclass(frozen=True)
class Embedding:
    """A model's view of the subset.

    Attributes
    ----------
    values : float32 [n, d]
        The penultimate activations.
    predictions : int64 [n] or None
        The classifier's choices; None when the model has no classifier.
    """

    values: np.ndarray
    predictions: np.ndarray | None


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 [n, h, w, 3] as the float32 [n, 3, h, w] that a model takes."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def default_batch(device: torch.device, pixels: int) -> int:
    """How many images of so many pixels go through a model at once."""
    return max(8, CPU_BATCH_PIXELS // pixels) if device.type == "cpu" else ACCELERATOR_BATCH


@torch.inference_mode()
def embed(
    model: torch.nn.Module,
    view: np.ndarray,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Embedding:
    """The penultimate embedding of a view, and the classifier's predictions.

    Parameters
    ----------
    model
        A timm model in evaluation mode; it is moved to ``device``.
    view : uint8 [n, h, w, 3]
        May be memory-mapped; only one batch is read at a time.
    batch_size
        At most so many images in a forward pass; None chooses by the device. It is halved when the device's memory
        runs out.
    precision
        ``fp32`` (TF32 off), ``tf32``, ``bf16`` or ``fp16`` (autocast).

    Raises
    ------
    ValueError
        When the pre-logits of the model are not one vector an image.
    torch.OutOfMemoryError
        When even a single image does not fit.
    """
    model = model.to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    batch_size = batch_size or default_batch(device, view.shape[1] * view.shape[2])
    values, predictions = [], []
    start = 0
    with _numerics(device, precision):
        while start < len(view):
            try:
                batch = _forward(model, np.array(view[start : start + batch_size]), preprocessing, device)
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size //= 2
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            values.append(batch.values)
            if batch.predictions is not None:
                predictions.append(batch.predictions)
            start += len(batch.values)
    return Embedding(np.concatenate(values), np.concatenate(predictions) if predictions else None)


def _forward(model: Any, pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device) -> Embedding:
    inputs = normalised(torch.from_numpy(pixels).to(device), preprocessing)
    if device.type == "cuda":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    features = model.forward_features(inputs)
    pre_logits = model.forward_head(features, pre_logits=True)
    if pre_logits.ndim != 2:
        raise ValueError(f"the pre-logits have shape {tuple(pre_logits.shape)}, not one vector an image")
    values = pre_logits.float().cpu().numpy()
    if model.num_classes <= 0:
        return Embedding(values, None)
    return Embedding(values, model.forward_head(features).argmax(dim=1).cpu().numpy())


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
