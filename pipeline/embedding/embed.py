"""From a model and images to an embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch

from dsmi_zoo.data_catalog.models.entry import Preprocessing

from ..networks.forward import BatchSize, cannot_compile, compile_features, default_batch, filled
from ..networks.layers import as_vectors, check_layer, forward, has_pre_logits, place_of, unwrapped
from .view_file import StoredView
from .view_on_gpu import ReadAhead, pixels_on

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


class Inputs(Protocol):
    """Images as a model takes them, made a batch at a time."""

    @property
    def pixels(self) -> int:
        """Of one image."""

    def __len__(self) -> int:
        """How many images there are."""

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """The images from ``start`` up to ``stop`` (or the last), float [n, c, h, w], on the device."""


class View:
    """A view, uint8 [n, h, w, 3], in memory or on disk, that is normalised on the device."""

    def __init__(self, values: np.ndarray | StoredView, preprocessing: Preprocessing) -> None:
        self._values = values
        self._preprocessing = preprocessing
        self._ahead: ReadAhead | None = None

    @property
    def pixels(self) -> int:
        """Height times width."""
        return int(self._values.shape[1] * self._values.shape[2])

    def __len__(self) -> int:
        return len(self._values)

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """These images, from the device where the whole view is there, else read."""
        return normalised(self._raw(start, min(stop, len(self)), device), self._preprocessing)

    def _raw(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        whole = pixels_on(device, self._values)
        if whole is not None:
            return whole[start:stop]
        if device.type == "cpu":
            return torch.from_numpy(np.ascontiguousarray(self._values[start:stop]))
        self._ahead = self._ahead or ReadAhead(self._values, device)
        return self._ahead.batch(start, stop)


def embed(
    model: torch.nn.Module,
    view: np.ndarray | StoredView,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Embedding:
    """The penultimate embedding of a view, uint8 [n, h, w, 3]; all else is as in ``embed_inputs``."""
    return embed_inputs(
        model, View(view, preprocessing), device, batch_size=batch_size, precision=precision
    )


@torch.inference_mode()
def embed_inputs(
    model: torch.nn.Module,
    inputs: Inputs,
    device: torch.device,
    *,
    layer: str | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    compiled: bool = False,
) -> Embedding:
    """The embedding of images by one layer of a model, and the classifier's predictions.

    Parameters
    ----------
    model
        Any module in evaluation mode; it is moved to ``device``.
    inputs
        Only one batch of them is in memory at a time.
    layer
        A name of ``named_modules()``; None is the penultimate layer (see ``dsmi_zoo.pipeline.networks.layers.forward``).
    batch_size
        At most so many images in a forward pass; None chooses by the device, and on a GPU by what is fastest. It is
        halved when the device's memory runs out.
    precision
        ``fp32`` (TF32 off), ``tf32``, ``bf16`` or ``fp16`` (autocast).
    compiled
        Whether the penultimate layer of a timm model is computed by compiled code; other layers and networks are not.

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
    channels_last = takes_channels_last(model, device)
    is_compiled = compiled and layer is None and has_pre_logits(model)
    if is_compiled:
        compile_features(model)
        batch_size = batch_size or default_batch(device, inputs.pixels)
    size = BatchSize(device, inputs.pixels, batch_size)
    whole: Embedding | None = None
    start = 0
    with _numerics(device, precision), _weights_ordered(model, channels_last):
        while start < len(inputs):
            began = perf_counter()
            try:
                images = inputs.batch(start, start + size.count, device)
                if channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                part = (
                    _forward_filled(model, images, size.count)
                    if is_compiled
                    else _forward(model, images, layer)
                )
            except torch.OutOfMemoryError:
                if not size.shrink():
                    raise
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            size.record_pass(len(part.values), perf_counter() - began)
            whole = whole or _room_like(part, len(inputs))
            _put(part, whole, start)
            start += len(part.values)
    if whole is None:
        raise ValueError("there are no images to embed")
    return whole


@contextmanager
def _weights_ordered(model: torch.nn.Module, channels_last: bool) -> Iterator[None]:
    """Have a network's weights with channels last, and then as they were: it may be trained on.

    Weights that are made in inference mode cannot be trained at all.
    """
    if not channels_last:
        yield
        return
    try:
        with torch.inference_mode(False):
            model.to(memory_format=torch.channels_last)
        yield
    finally:
        with torch.inference_mode(False):
            model.to(memory_format=torch.contiguous_format)


def takes_channels_last(model: Any, device: torch.device) -> bool:
    """Whether weights and images are put in the order in memory that convolutions are fastest in.

    On a CPU it pays for convolutional networks: a transformer's first layer alone gains nothing. Code of one's own may
    call ``view``, which needs the usual order.
    """
    pays = device.type == "cuda" or (device.type == "cpu" and _is_convolutional(model))
    return pays and has_pre_logits(model)


def _is_convolutional(model: torch.nn.Module) -> bool:
    """Whether convolutions hold a quarter of the weights: more, but for a classifier of many classes."""
    of_convolutions = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Conv2d)
    )
    return 4 * of_convolutions > sum(weight.numel() for weight in model.parameters())


def _forward(model: torch.nn.Module, images: torch.Tensor, layer: str | None) -> Embedding:
    _, dtype = place_of(model)
    output, logits = forward(model, images.to(dtype), layer, logits=True)
    if layer is None and has_pre_logits(model) and output.ndim != 2:
        raise ValueError(
            f"the pre-logits have shape {tuple(output.shape)}, not one vector an image"
        )
    values = as_vectors(output, len(images), layer).float().cpu().numpy()
    if logits is None:
        return Embedding(values, None)
    return Embedding(values, logits.argmax(dim=1).cpu().numpy(), logits.shape[1])


def _forward_filled(model: torch.nn.Module, images: torch.Tensor, size: int) -> Embedding:
    """The part of a compiled network, which takes batches of one size only."""
    try:
        part = _forward(model, filled(images, size), None)
    except (torch.OutOfMemoryError, ValueError):
        raise
    except Exception as error:
        raise cannot_compile(error) from error
    predictions = None if part.predictions is None else part.predictions[: len(images)]
    return Embedding(part.values[: len(images)], predictions, part.n_logits)


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
        with torch.autocast(
            device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
