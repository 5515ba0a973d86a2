"""A network for deployment, as one file that computes scores of the user's own classes and the embedding."""

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .layers import WHOLE, first_tensor, has_pre_logits, last_linear, pooled
from .timm import size_argument

SUFFIXES = (".onnx", ".pt2", ".safetensors")
ONNX = ("onnx", "onnxscript", "onnxruntime")
NOTE = "dsmi_zoo.json"  # in the file of torch.export
KEY = "dsmi_zoo"  # in the metadata of ONNX and safetensors
OUTPUTS = ("scores", "embedding")

Reader = Callable[[torch.Tensor], tuple[np.ndarray, np.ndarray]]
"""Function that runs an exported file on images, float32 [n, 3, h, w]: scores [n, classes], embedding [n, d]."""


class Deployed(torch.nn.Module):
    """A network up to its embedding, and a linear layer from there to the scores of classes.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    layer
        As in `layers.forward`.
    weights, intercepts
        Parameters of the linear layer, [d, classes] and [classes].
    images
        A batch as the network takes it, to find its penultimate layer.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        layer: str | None,
        weights: np.ndarray,
        intercepts: np.ndarray,
        images: torch.Tensor,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = torch.nn.Linear(*weights.shape)
        self.head.weight.data = torch.from_numpy(weights.T.astype(np.float32)).contiguous()
        self.head.bias.data = torch.from_numpy(intercepts.astype(np.float32))
        self.has_pre_logits = layer is None and has_pre_logits(network)
        self._seen: list[Any] = []
        if self.has_pre_logits:
            return
        if layer is None:
            place = network.get_submodule(last_linear(network, images))
            place.register_forward_pre_hook(lambda module, given: self._seen.append(given[0]))
        else:
            place = network.get_submodule("" if layer == WHOLE else layer)
            place.register_forward_hook(lambda module, given, output: self._seen.append(output))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores [n, classes] and embedding [n, d]."""
        network: Any = self.network
        if self.has_pre_logits:
            embedding = network.forward_head(network.forward_features(images), pre_logits=True)
        else:
            self._seen.clear()
            network(images)
            embedding = pooled(first_tensor(self._seen.pop()))
            self._seen.clear()
        return self.head(embedding), embedding


def refuse_format(file: Path) -> None:
    """Raise InputError for a file of another format, or one that needs a library that is not installed."""
    if file.suffix not in SUFFIXES:
        raise InputError(f"--to {file}: the name must end in {', '.join(SUFFIXES)}")
    lacking = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if file.suffix == ".onnx" and lacking:
        raise InputError(
            f"--to {file}: needs {', '.join(lacking)}; pip install 'dsmi-zoo[onnx]', or choose .pt2 or .safetensors"
        )


def timm_arguments(entry: ModelEntry, classes: int, pool: str | None) -> dict[str, Any]:
    """Return the arguments by which ``timm.create_model`` builds the network for an exported file of weights."""
    arguments: dict[str, Any] = dict(entry.model_kwargs) | size_argument(entry)
    arguments |= {"num_classes": classes}
    return arguments | ({"global_pool": pool} if pool is not None else {})


def write(
    model: Deployed,
    file: Path,
    images: torch.Tensor,
    note: Mapping[str, Any],
    entry: ModelEntry,
) -> None:
    """Write a network in the format that the file's suffix names, with ``note`` in it.

    Raises
    ------
    InputError
        When the exporter refuses the network; the message quotes its first line.
    """
    text = json.dumps(note, ensure_ascii=False)
    writers = {".onnx": _write_onnx, ".pt2": _write_pt2}
    try:
        with _quiet(), torch.inference_mode():
            if file.suffix in writers:
                writers[file.suffix](model, file, images, text)
            else:
                _write_safetensors(model, file, text, entry)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{entry}: cannot be exported as {file.suffix} ({first_line(error)})"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's root cause, which exporters wrap in many lines of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(f"{type(error).__name__}: {lines[0] if lines else ''}", 200)


def _write_onnx(model: Deployed, file: Path, images: torch.Tensor, text: str) -> None:
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    program.model.metadata_props[KEY] = text
    program.save(str(file), external_data=False)


def _write_pt2(model: Deployed, file: Path, images: torch.Tensor, text: str) -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (images,), dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, file, extra_files={NOTE: text})


def _write_safetensors(model: Deployed, file: Path, text: str, entry: ModelEntry) -> None:
    if not model.has_pre_logits or entry.builder is not None:
        raise InputError(
            f"{entry}: .safetensors is for networks of timm up to their penultimate layer; choose .onnx or .pt2"
        )
    network: Any = copy.deepcopy(model.network)
    network.reset_classifier(model.head.out_features)
    classifier = network.get_classifier()
    fits = isinstance(classifier, torch.nn.Linear) and classifier.bias is not None
    if not fits or classifier.weight.shape != model.head.weight.shape:
        raise InputError(
            f"{entry}: its classifier is not one linear layer of the embedding, so timm cannot load it with these "
            "classes; choose .onnx or .pt2"
        )
    classifier.load_state_dict(model.head.state_dict())
    state = {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, file, metadata={KEY: text})


def reader_of(file: Path, architecture: str, arguments: Mapping[str, Any]) -> Reader:
    """Return a function that runs an exported file as its users would: with onnxruntime, torch or timm.

    ``torch.export.load`` may unpickle, so only files that this process has just written are read. ``architecture`` and
    ``arguments`` are those of ``timm.create_model``.
    """
    if file.suffix == ".onnx":
        return _onnx_reader(file)
    if file.suffix == ".pt2":
        with _quiet():
            program = torch.export.load(file).module()
        return lambda images: _arrays(program(images))
    network: Any = timm.create_model(architecture, checkpoint_path=str(file), **arguments).eval()

    def by_timm(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features = network.forward_features(images)
        embedding = network.forward_head(features, pre_logits=True)
        return _arrays((network.forward_head(features), embedding))

    return by_timm


def _onnx_reader(file: Path) -> Reader:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def by_onnxruntime(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores, embedding = session.run(list(OUTPUTS), {"images": images.numpy()})
        return scores, embedding

    return by_onnxruntime


def _arrays(outputs: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, np.ndarray]:
    scores, embedding = outputs
    return scores.detach().numpy(), embedding.detach().numpy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence exporters, which print their progress and warn of their own internals."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
