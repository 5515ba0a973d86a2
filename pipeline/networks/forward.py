"""Forward passes up to a layer, in batches of a size that fits."""

import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch

from dsmi_zoo._util.errors import InputError

from .layers import (
    LayerCollector,
    as_vectors,
    device_and_dtype,
    forward,
    has_pre_logits,
    unwrapped,
)

# Beyond this, layers outgrow a core's cache: a quarter slower at 64 x 160 x 160.
CPU_BATCH_PIXELS = 2**19
ACCELERATOR_BATCH = 64
MAX_BATCH = 1024
WORTH_DOUBLING = 1.05  # least gain in images per second
MAX_PROBABILITIES = 2**28
"""Most probabilities to keep, as float32 (1 GiB): 50,000 images by 5,368 classes, or 12,290 by 21,841."""
BLOCK = 2**22  # probabilities computed at once
SUM_TO_ONE = 1e-2  # tolerance, in half precision


@dataclass(frozen=True)
class Embedding:
    """The activations of a model for some images.

    Attributes
    ----------
    values : float32 [n, d]
        Activations of one layer, by default the penultimate one.
    predictions : int64 [n] or None
        The classifier's predictions; None when the model has no classifier.
    n_logits : int or None
        Number of the classifier's outputs.
    probabilities : float32 [n, n_logits] or None
        The classifier's probabilities, if requested and no more than ``MAX_PROBABILITIES``.
    others
        The values of further layers from the same passes, float32 [n, d], by name.
    problems
        Why a further layer has no values, by name.
    depths
        Relative depth at which each named layer ends, from 0 to 1, by `layers.relative_depths`.
    layer
        The layer of ``values``; None is the penultimate one.
    """

    values: np.ndarray
    predictions: np.ndarray | None
    n_logits: int | None = None
    probabilities: np.ndarray | None = None
    others: dict[str, np.ndarray] = field(default_factory=dict)
    problems: dict[str, InputError] = field(default_factory=dict)
    depths: dict[str, float] = field(default_factory=dict)
    layer: str | None = None

    def by_layer(self) -> dict[str | None, np.ndarray]:
        """Return the values of all layers that have some."""
        found: dict[str | None, np.ndarray] = {self.layer: self.values}
        return found | dict(self.others.items())


class Inputs(Protocol):
    """Images as a model takes them, made a batch at a time."""

    @property
    def pixels(self) -> int:
        """Pixels of one image."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Return the images from ``start`` up to ``stop`` (or the last), float [n, c, h, w], on the device."""


@dataclass(frozen=True)
class TensorInputs:
    """Images in one tensor, float [n, c, h, w], as `Inputs`."""

    images: torch.Tensor

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.images.shape[-2] * self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Return these images on the device."""
        return self.images[start:stop].to(device)


def default_batch(device: torch.device, pixels: int) -> int:
    """Return the initial number of images per forward pass, for images of ``pixels`` pixels each."""
    return max(8, CPU_BATCH_PIXELS // pixels) if device.type == "cpu" else ACCELERATOR_BATCH


class BatchSize:
    """Number of images per forward pass: halved when memory runs out, doubled on a GPU while that is faster.

    A small network leaves most of a large GPU idle at 64 images, a large one does not; the first pass of each size pays
    for choosing kernels and is not counted.

    Parameters
    ----------
    device
        The size grows only on an accelerator.
    pixels
        Pixels of one image.
    wanted
        A fixed size; None begins with ``default_batch``.
    """

    def __init__(self, device: torch.device, pixels: int, wanted: int | None = None) -> None:
        self.count = wanted or default_batch(device, pixels)
        self._may_grow = wanted is None and device.type != "cpu"
        self._rate_at_half = 0.0  # images per second, at half the size
        self._is_first_pass = True

    def record_pass(self, images: int, seconds: float) -> None:
        """Adapt the size to the speed of a pass."""
        if not self._may_grow or images < self.count:
            return
        if self._is_first_pass:
            self._is_first_pass = False
            return
        rate = images / seconds
        if rate < WORTH_DOUBLING * self._rate_at_half:
            self.count //= 2
            self._may_grow = False
        elif 2 * self.count > MAX_BATCH:
            self._may_grow = False
        else:
            self.count *= 2
            self._rate_at_half, self._is_first_pass = rate, True

    def shrink(self) -> bool:
        """Halve the size, because memory ran out, and stop growing; return False if not even one image fits."""
        self._may_grow = False
        self.count //= 2
        return self.count > 0


def in_batches(
    model: torch.nn.Module,
    inputs: Inputs,
    device: torch.device,
    size: BatchSize,
    layer: str | None,
    *,
    also: Sequence[str] = (),
    logits: bool = True,
    probabilities: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
) -> Embedding:
    """Pass images through a model, batch by batch; parameters are as in `embed_inputs`.

    Parameters
    ----------
    also
        Further layers to take from the same passes, each with the values that it would have as ``layer``.
    logits
        Whether predictions are wanted; without, a timm model's classifier does not run.
    probabilities
        Whether the probabilities behind the predictions are wanted too.
    channels_last
        Whether images get torch's memory format of that name.
    compiled
        Whether the model's features are compiled code, which takes batches of one size only.
    """
    _, dtype = device_and_dtype(model)
    whole: Embedding | None = None
    followed, start = LayerCollector(also), 0
    while start < len(inputs):
        began = perf_counter()
        try:
            images = inputs.batch(start, start + size.count, device).to(dtype)
            count = len(images)
            if compiled and count < size.count:
                images = torch.cat([images, images[-1:].expand(size.count - count, -1, -1, -1)])
            if channels_last or compiled:
                images = images.contiguous(memory_format=torch.channels_last)
            with followed.hooked(model, len(images)):
                output, answer = forward(model, images, layer, logits=logits)
            if logits and layer is None and has_pre_logits(model) and output.ndim != 2:
                raise ValueError(
                    f"the pre-logits have shape {tuple(output.shape)}, not one vector per image"
                )
            values = as_vectors(output, len(images), layer)[:count].float().cpu().numpy()
            vectors = {name: one[:count].cpu().numpy() for name, one in followed.vectors.items()}
            width = 0 if answer is None else answer.shape[1]
            outputs = None
            if answer is not None and probabilities and len(inputs) * width <= MAX_PROBABILITIES:
                outputs = answer[:count].float().cpu().numpy()
        except torch.OutOfMemoryError:
            if not size.shrink():
                raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        except Exception as error:
            if not compiled or isinstance(error, ValueError):
                raise
            reason = str(error).strip().partition("\n")[0][:200]
            raise InputError(
                f"--compile: torch cannot compile this network here ({type(error).__name__}: {reason})"
            ) from error
        if whole is None:
            # Allocated once: small arrays kept between the large ones of each batch would stop the C library from
            # reusing freed memory (glibc before 2.38: some gigabytes for a thousand large images).
            whole = Embedding(
                np.empty((len(inputs), *values.shape[1:]), values.dtype),
                None if answer is None else np.empty(len(inputs), np.int64),
                None if answer is None else width,
                None if outputs is None else np.empty((len(inputs), width), np.float32),
                {
                    name: np.empty((len(inputs), one.shape[1]), np.float32)
                    for name, one in vectors.items()
                },
                followed.problems,
            )
        for name, one in vectors.items():
            whole.others[name][start : start + count] = one
        whole.values[start : start + count] = values
        if whole.predictions is not None and answer is not None:
            whole.predictions[start : start + count] = answer.argmax(dim=1)[:count].cpu().numpy()
        if whole.probabilities is not None:
            whole.probabilities[start : start + count] = outputs
        size.record_pass(count, perf_counter() - began)
        start += count
    if whole is None:
        raise ValueError("there are no images to embed")
    for name in followed.problems:
        whole.others.pop(name, None)
    if whole.probabilities is not None:
        _make_probabilities(torch.from_numpy(whole.probabilities))
    return whole


def _make_probabilities(outputs: torch.Tensor) -> None:
    """Replace a classifier's outputs, float32 [n, k], by their softmax, unless all are probabilities already."""
    parts = outputs.split(max(1, BLOCK // outputs.shape[1]))
    if not all(_are_probabilities(part) for part in parts):
        for part in parts:
            part.copy_(part.softmax(dim=1))


def _are_probabilities(outputs: torch.Tensor) -> bool:
    return bool((outputs >= 0).all() and ((outputs.sum(dim=1) - 1).abs() < SUM_TO_ONE).all())


def activations(
    model: torch.nn.Module, images: torch.Tensor, layer: str | None, batch_size: int | None = None
) -> np.ndarray:
    """Return one layer's output for each image, float32 [n, d]; to be called inside ``evaluation_mode``.

    Parameters
    ----------
    model
        Any module that takes a batch of images.
    images : float [n, c, h, w]
        As the model takes them; they are moved to its device and type.
    layer
        As in `layers.forward`; one vector per image is made as in `layers.as_vectors`.
    batch_size
        The most images in a forward pass; None chooses by the device.

    Raises
    ------
    InputError
        When that layer does not run, gives no tensor, or, for None, no ``nn.Linear`` ends the network.
    """
    return _embedded(model, images, layer, batch_size).values


def _embedded(
    model: torch.nn.Module,
    images: torch.Tensor,
    layer: str | None,
    batch_size: int | None,
    also: Sequence[str] = (),
) -> Embedding:
    model, inputs = unwrapped(model), TensorInputs(images)
    device, _ = device_and_dtype(model)
    size = BatchSize(device, inputs.pixels, batch_size or default_batch(device, inputs.pixels))
    # Outside of autocast: its cache would keep weights cast without gradients for the next step.
    with torch.autocast(device.type, enabled=False):
        return in_batches(model, inputs, device, size, layer, also=also, logits=False)


def layer_activations(
    model: torch.nn.Module,
    images: torch.Tensor,
    layers: Sequence[str | None],
    batch_size: int | None = None,
) -> list[np.ndarray]:
    """Return the `activations` of each of several layers, from one forward pass."""
    main = None if None in layers else layers[0]
    others = [name for name in dict.fromkeys(layers) if name is not None and name != main]
    embedding = _embedded(model, images, main, batch_size, others)
    for problem in embedding.problems.values():
        raise problem
    found = replace(embedding, layer=main).by_layer()
    return [found[name] for name in layers]


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Use evaluation mode without gradients, then restore all modes, buffers, plain attributes and random states.

    Compiled modules run uncompiled: another batch size would make their next compilation dynamic. Training flags are
    set module by module, because ``eval()`` and ``train()`` may be overridden: those of an adapter that merges its
    weights would change them by rounding.
    """
    modes = [(module, module.training) for module in model.modules()]
    # Inference mode would leave unusable tensors in a model's caches.
    with (
        random_states_kept(),
        _buffers_kept(model),
        _attributes_kept(model),
        _not_compiled(),
        torch.no_grad(),
    ):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode


@contextmanager
def _buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Restore buffers, which some networks change in each forward pass: counters, queues, caches."""
    before = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not hasattr(buffer, "device_mesh")
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in before:
            module._buffers[name] = buffer
            if not torch.equal(buffer, values):
                buffer.detach().copy_(values)


@contextmanager
def _attributes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Restore the plain attributes of a network's own modules: call counts, caches, lists of features."""
    before = [(one, type(one), dict(vars(one))) for one in _own_modules(model)]
    containers = [
        (value, value.copy())
        for _, _, attributes in before
        for name, value in attributes.items()
        if isinstance(value, list | deque | dict) and name not in _OF_EVERY_MODULE
    ]
    try:
        yield
    finally:
        for value, contents in containers:
            value.clear()
            value.update(contents) if isinstance(value, dict) else value.extend(contents)
        for module, kind, attributes in before:
            if type(module) is kind:  # a lazy module changes its class
                _restore(vars(module), attributes)


def _own_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the modules that are not torch's; none for a sharded network, which keeps views of weights in them."""
    modules = list(model.modules())
    if any("FSDP" in type(one).__name__ or "FullySharded" in type(one).__name__ for one in modules):
        return []
    return [one for one in modules if not type(one).__module__.startswith("torch.")]


def _restore(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in now.keys() - before.keys():
        if isinstance(now[name], _PLAIN):
            del now[name]
    for name, value in before.items():
        if isinstance(value, _PLAIN) and now.get(name) is not value and name != "training":
            now[name] = value


_OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
_PLAIN = (int, float, str, type(None), torch.Tensor)


def _not_compiled() -> AbstractContextManager[Any]:
    """Return a context in which compiled modules run uncompiled, if the process has used ``torch.compile``."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states of torch, on the CPU and on each accelerator, of NumPy and of Python."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 the global one is the user's
    accelerators = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=accelerators))
        if torch.backends.mps.is_available():
            stack.enter_context(torch.random.fork_rng(devices=[0], device_type="mps"))
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextmanager
def defaults_kept() -> Iterator[None]:
    """Restore torch's default type, device and matrix-product precision after a model's own code has run."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        # None removes the default device, because having one slows torch's functions.
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_float32_matmul_precision(precision)
