"""Embedding of images by a model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dsmi_zoo.data_catalog.models.entry import Preprocessing

from ..networks.forward import BatchSize, Embedding, Inputs, default_batch, in_batches
from ..networks.layers import (
    check_layer,
    device_and_dtype,
    has_pre_logits,
    relative_depths,
    unwrapped,
)
from .views import StoredView

log = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
KEPT_ON = ("cuda",)  # torch's names of devices with their own memory that report how much is free
MAX_SHARE = 0.2  # of the free memory: models and other processes need the rest

_CHUNK_BYTES = 2**26

_kept: tuple[StoredView, torch.device, torch.Tensor] | None = None


def normalised(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Return uint8 [n, h, w, 3] as the float32 [n, 3, h, w] that a model takes."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pixels.device).view(1, 3, 1, 1)
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


class View:
    """A view, uint8 [n, h, w, 3], in memory or on disk, that is normalised on the device."""

    def __init__(self, values: np.ndarray | StoredView, preprocessing: Preprocessing) -> None:
        self._values = values
        self._preprocessing = preprocessing

    @property
    def pixels(self) -> int:
        """Height times width."""
        return int(self._values.shape[1] * self._values.shape[2])

    def __len__(self) -> int:
        return len(self._values)

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Return these images, float32 [n, 3, h, w], from the device if the whole view is there, else from disk."""
        stop = min(stop, len(self))
        whole = pixels_on(device, self._values)
        if whole is not None:
            pixels = whole[start:stop]
        else:
            pixels = torch.from_numpy(np.ascontiguousarray(self._values[start:stop])).to(device)
        return normalised(pixels, self._preprocessing)

    def at(self, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
        """Return the images of these numbers, float32 [k, 3, h, w], as ``batch`` does."""
        whole = pixels_on(device, self._values)
        if whole is not None:
            pixels = whole[torch.as_tensor(numbers, device=device)]
        else:
            rows = [self._values[number : number + 1] for number in numbers]
            pixels = torch.from_numpy(np.concatenate(rows)).to(device)
        return normalised(pixels, self._preprocessing)


def pixels_on(device: torch.device, view: np.ndarray | StoredView) -> torch.Tensor | None:
    """Return a whole stored view, uint8 [n, h, w, 3], on the device, where it stays until another one is asked for.

    Return None if it does not fit or is not stored, so that the caller reads it batch by batch.
    """
    global _kept
    if not isinstance(view, StoredView) or device.type not in KEPT_ON:
        return None
    if _kept is not None and _kept[:2] == (view, device):
        return _kept[2]
    _kept = None
    free, _ = torch.cuda.mem_get_info(device)
    if len(view) * view.bytes_of_a_row > MAX_SHARE * free:
        return None
    try:
        pixels = torch.empty(view.shape, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:  # another process was faster
        return None
    step = max(1, _CHUNK_BYTES // view.bytes_of_a_row)
    for start in range(0, len(view), step):
        pixels[start : start + step] = torch.from_numpy(view[start : start + step])
    _kept = view, device, pixels
    return pixels


def embed(
    model: torch.nn.Module,
    view: np.ndarray | StoredView,
    preprocessing: Preprocessing,
    device: torch.device,
    batch_size: int | None = None,
) -> Embedding:
    """Return the penultimate embedding of a view, uint8 [n, h, w, 3], as ``embed_inputs`` does."""
    return embed_inputs(model, View(view, preprocessing), device, batch_size=batch_size)


@torch.inference_mode()
def embed_inputs(
    model: torch.nn.Module,
    inputs: Inputs,
    device: torch.device,
    *,
    layer: str | None = None,
    also: Sequence[str] = (),
    probabilities: bool = False,
    batch_size: int | None = None,
    precision: str = "fp32",
    compiled: bool = False,
) -> Embedding:
    """Return the embedding of images by one layer of a model, and the classifier's predictions.

    Parameters
    ----------
    model
        Any module in evaluation mode; it is moved to ``device``.
    inputs
        Only one batch of them is in memory at a time.
    layer
        A name of ``named_modules()``; None is the penultimate layer (see `layers.forward`).
    also
        Names of further layers to take from the same passes, if the network `shares_a_pass`.
    probabilities
        Whether the classifier's probabilities are wanted beside its predictions.
    batch_size
        The most images in a forward pass; None chooses by the device, and on a GPU by what is fastest. It is halved
        when the device's memory runs out.
    precision
        ``fp32`` (TF32 off), ``tf32``, ``bf16`` or ``fp16`` (autocast).
    compiled
        Whether the penultimate layer of a timm model is computed by compiled code; other layers and networks are not.

    Raises
    ------
    ValueError
        When the pre-logits of a timm model are not one vector per image.
    InputError
        When there is no such layer, or it does not give one output per image.
    torch.OutOfMemoryError
        When even a single image does not fit.
    """
    network: Any = unwrapped(model.to(device))
    named = [name for name in (layer, *also) if name is not None]
    for name in named:
        check_layer(network, name)
    channels_last = takes_channels_last(network, device)
    is_compiled = compiled and layer is None and has_pre_logits(network)
    if is_compiled:
        network.forward_features = torch.compile(network.forward_features)
        batch_size = batch_size or default_batch(device, inputs.pixels)
    size = BatchSize(device, inputs.pixels, batch_size)
    with numerics(device, precision), _weights_ordered(network, channels_last):
        embedding = in_batches(
            network,
            inputs,
            device,
            size,
            layer,
            also=also,
            probabilities=probabilities,
            channels_last=channels_last,
            compiled=is_compiled,
        )
        depths = _depths(network, inputs, device, named) if named else {}
    return replace(embedding, depths=depths, layer=layer)


def shares_a_pass(model: torch.nn.Module) -> bool:
    """Return whether hooks leave the network's arithmetic as is; torch's encoder layers take another path with them."""
    return not any(isinstance(one, torch.nn.TransformerEncoderLayer) for one in model.modules())


def _depths(
    network: torch.nn.Module, inputs: Inputs, device: torch.device, layers: Sequence[str]
) -> dict[str, float]:
    """Return the relative depths of layers by a pass of one image; empty if that pass fails."""
    _, dtype = device_and_dtype(network)
    try:
        return relative_depths(network, inputs.batch(0, 1, device).to(dtype), layers)
    except Exception as error:
        log.debug("the depths of its layers are unknown: %s", error)
        return {}


@contextmanager
def _weights_ordered(model: torch.nn.Module, channels_last: bool) -> Iterator[None]:
    """Put a network's weights into channels-last order, and back at the end, because the caller may train it further.

    Inference mode is off for this, because weights that are made in it cannot be trained.
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
    """Return whether weights and images are put into channels-last order, in which convolutions are fastest.

    On a CPU it pays if convolutions hold a quarter of the weights (a low share, because a large classifier counts too):
    a transformer's first layer alone gains nothing. A user's network may call ``view``, which needs the usual order.
    """
    if not has_pre_logits(model):
        return False
    of_convolutions = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Conv2d)
    )
    is_convolutional = 4 * of_convolutions > sum(weight.numel() for weight in model.parameters())
    return device.type == "cuda" or (device.type == "cpu" and is_convolutional)


@contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Compute matrix products and convolutions with this precision."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(
            device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
