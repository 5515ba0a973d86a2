"""The classes that a checkpoint or a network lists for its outputs."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tensor_files import read_tensors
from dsmi_zoo._util.text import printable, shortened
from dsmi_zoo.data_catalog.datasets.class_order import OPTION, ClassOrders

LISTS = ("classes", "CLASSES", "class_names", "label_names", "labels")
BY_OUTPUT = ("idx_to_class", "id2label")


@dataclass(frozen=True)
class ClassList:
    """The ``outputs`` of classes by name, and the key under which they are listed."""

    key: str
    outputs: dict[str, int]


def with_listed_order(
    orders: ClassOrders, width: int, model: Any, checkpoint: Path | None
) -> tuple[ClassOrders, str]:
    """Return the order that a checkpoint or its network lists for ``width`` outputs, else ``orders``.

    The text says why the order is unknown, when a checkpoint lists other classes; else it is empty.
    """
    listed = None if checkpoint is None else classes_of_checkpoint(checkpoint)
    found = listed or classes_of_network(model)
    known = found and orders.as_listed(found.outputs, width, found.key)
    if listed is None or known is not None or len(listed.outputs) != width:
        return known or orders, ""
    few = ", ".join(printable(shortened(name, 30)) for name in list(listed.outputs)[:3])
    return orders, f"{listed.key} of its checkpoint names other classes ({few}); {OPTION} decides"


def classes_of_checkpoint(weights: Path) -> ClassList | None:
    """Return the classes that a checkpoint lists beside its weights, as many trainings save them.

    None without a list, or for a file that cannot be read: `networks.checkpoints.load_file` says why.
    """
    if weights.suffix == ".safetensors":
        return None
    content = _content(weights)
    if not isinstance(content, Mapping):
        return None
    parts = [content, *(part for part in content.values() if isinstance(part, Mapping))]
    return next((found for part in parts for found in _lists_in(part)), None)


def classes_of_network(model: Any) -> ClassList | None:
    """Return the classes that a network, or the one it wraps, lists: timm's, transformers' or its own attribute."""
    for module in (model, *model.children()):
        places = (
            getattr(module, "pretrained_cfg", None),
            {"id2label": getattr(getattr(module, "config", None), "id2label", None)},
            {"class_to_idx": getattr(module, "class_to_idx", None)},
        )
        for place in places:
            if isinstance(place, Mapping) and (found := next(_lists_in(place), None)):
                return found
    return None


def _content(weights: Path) -> Any:
    """Read a checkpoint, without reading its tensors where its format allows that."""
    with suppress(Exception):  # torch does not document what it raises
        return torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    with suppress(InputError):
        return read_tensors(weights).content
    return None


def _lists_in(part: Mapping[Any, Any]) -> Iterator[ClassList]:
    """Yield each list of classes in a mapping."""
    pairs = [("class_to_idx", part.get("class_to_idx"))]
    for key in BY_OUTPUT:
        by_output = part.get(key)
        if isinstance(by_output, Mapping):
            names = {_number(number): name for number, name in by_output.items()}
            pairs.append((key, {name: number for number, name in names.items()}))
    for key in LISTS:
        listed = part.get(key)
        if isinstance(listed, list | tuple) and all(isinstance(name, str) for name in listed):
            pairs.append((key, {name: number for number, name in enumerate(listed)}))
    for key, outputs in pairs:
        if isinstance(outputs, Mapping) and outputs and _is_name_to_output(outputs):
            yield ClassList(key, dict(outputs))


def _is_name_to_output(outputs: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and type(n) is int and n >= 0 for name, n in outputs.items())


def _number(key: Any) -> Any:
    """Return a key as a number, because JSON turns numbers into text."""
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 10 else key
