"""Python code that loads a measured network, and transforms images, without this package."""

from pathlib import Path
from typing import Any

from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .timm import size_argument, source_overlay

MAX_CALL_LENGTH = 70  # characters that a page shows without scrolling


def loading_code(entry: ModelEntry) -> str | None:
    """Return three statements: the import, the network with its weights, the transform of an image.

    None for networks that are not timm's or were trained here. A checkpoint, which must be one that timm's own loader
    reads, is named without its folder.
    """
    if entry.builder is not None or entry.recipe is not None or entry.preprocessing is None:
        return None
    size = (3, entry.img_size, entry.img_size)
    preprocessing = entry.preprocessing.model_dump()
    transform = _call("timm.data.create_transform", input_size=size, **preprocessing)
    return f"import timm\nmodel = {_network(entry)}.eval()\ntransform = {transform}"


def _network(entry: ModelEntry) -> str:
    arguments = dict(entry.model_kwargs) | size_argument(entry)
    if entry.checkpoint is not None:
        arguments["checkpoint_path"] = Path(entry.checkpoint).name
    else:
        arguments["pretrained"] = True
        if entry.weights is not None and entry.weights != f"timm/{entry.architecture}":
            arguments["pretrained_cfg_overlay"] = source_overlay(entry.weights)
    return _call("timm.create_model", entry.architecture, **arguments)


def _call(function: str, *positional: Any, **named: Any) -> str:
    written = [repr(value) for value in positional]
    written += [f"{name}={value!r}" for name, value in named.items() if name.isidentifier()]
    others = {name: value for name, value in named.items() if not name.isidentifier()}
    written += [f"**{others!r}"] if others else []
    on_one_line = f"{function}({', '.join(written)})"
    if len(on_one_line) <= MAX_CALL_LENGTH:
        return on_one_line
    return f"{function}(\n" + "".join(f"    {argument},\n" for argument in written) + ")"
