"""Networks made by a user's builder: call it, load its weights, and apply its own transform."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsmi_zoo._util.user_code import NOT_AS_PLANNED, find_module
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .checkpoints import Loaded, load_file
from .forward import random_states_kept
from .timm import refuse_unsafe

Transform = Callable[[Image.Image], torch.Tensor]


class BuilderError(RuntimeError):
    """A user's builder or transform failed; the message names the builder."""


@dataclass(frozen=True)
class Built:
    """A builder's network in evaluation mode, its own transform, if it has one, and how its weights were read."""

    model: torch.nn.Module
    transform: Transform | None = None
    loaded: Loaded = field(default_factory=Loaded)


@dataclass(frozen=True)
class Transformed:
    """Images that pass through a builder's transform as they are needed, as `networks.forward.Inputs`."""

    builder: str
    images: LabelledImages
    transform: Transform

    @property
    def pixels(self) -> int:
        """Height times width of the first image, as transformed."""
        return int(np.prod(self._transformed(0).shape[1:]))

    def __len__(self) -> int:
        return len(self.images.labels)

    def batch(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Decode and transform these images, float [n, c, h, w]."""
        tensors = [self._transformed(number) for number in range(start, min(stop, len(self)))]
        first = tensors[0].shape
        for number, tensor in enumerate(tensors, start):
            if tensor.shape != first:
                raise BuilderError(
                    f"the transform of builder {self.builder} gives {list(first)} for one image and "
                    f"{list(tensor.shape)} for {self.images.names[number]}"
                )
        return torch.stack(tensors).to(device)

    def _transformed(self, number: int) -> torch.Tensor:
        image = self.images.image(number)
        what = f"the transform of builder {self.builder}"
        with _as_builder_error(f"{what}, of image {self.images.names[number]},"):
            tensor = self.transform(image)
        is_tensor = isinstance(tensor, torch.Tensor)
        if not is_tensor or not tensor.is_floating_point() or tensor.ndim != 3:
            raise BuilderError(f"{what} gives {_described(tensor)}, not a float tensor [c, h, w]")
        return tensor


def build(entry: ModelEntry, builder_sha256: str | None, weights: Path | None) -> Built:
    """Call the entry's builder with its ``model_kwargs`` and load its weights, if it names any, strictly.

    Random weights are the same on every machine: the builder is called with torch's, NumPy's and Python's random states
    at seed 0, and the states are restored.

    Parameters
    ----------
    builder_sha256
        SHA-256 of the builder's module file when the run was planned.
    weights
        A file with a state dict; None leaves the weights as the builder made them.

    Raises
    ------
    BuilderError
        When the module's file has changed, or the module or its function raises, exits or returns something else.
    InputError
        When the module is not found, or for a checkpoint that cannot be read safely or does not fit the network.
    """
    builder = entry.builder
    assert builder is not None
    if weights is not None:
        refuse_unsafe(weights)
    with random_states_kept():
        function = _function(builder, builder_sha256)
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 a builder that draws from NumPy draws from its global state
        random.seed(0)
        with _as_builder_error(f"builder {builder}"):
            returned = function(**entry.model_kwargs)
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    model, transform = returned if is_pair else (returned, None)
    if not isinstance(model, torch.nn.Module) or not (transform is None or callable(transform)):
        wanted = "an nn.Module, or a pair of one and a transform"
        raise BuilderError(f"builder {builder} returned {_described(returned)}, not {wanted}")
    loaded = Loaded() if weights is None else load_file(model, weights, entry.checkpoint_key)
    model.eval()
    return Built(model, transform, loaded)


def _function(builder: str, sha256: str | None) -> Callable[..., Any]:
    module_name, _, name = builder.partition(":")
    source = find_module(module_name, f"builder {builder}")
    if source.sha256 != sha256:
        raise BuilderError(f"builder {builder}: {source.path} {NOT_AS_PLANNED}")
    with _as_builder_error(f"builder {builder}: its module"):
        module = source.imported()
    function = getattr(module, name, None)
    if not callable(function):
        raise BuilderError(f"builder {builder}: {source.path} has no function {name!r}")
    return function


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    return f"a {type(value).__name__}"


@contextmanager
def _as_builder_error(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises, even an exit, into an error that names the code."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise BuilderError(f"{what} raised {type(error).__name__}: {error}") from error
