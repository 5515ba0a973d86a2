"""Python by which a user loads a measured network, and transforms images, without this package."""

from pathlib import Path
from typing import Any

from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.data_catalog.models.timm_registry import timm_config

LONGEST_CALL = 70  # characters that a page shows without scrolling


def loading_code(entry: ModelEntry) -> str | None:
    """Three statements: the import, the network with its weights, the transform of an image to what the network takes.

    Returns
    -------
    str or None
        None for what is not timm's, or was trained on the spot. A checkpoint goes by its file's name alone.
    """
    if entry.builder is not None or entry.recipe is not None or entry.preprocessing is None:
        return None
    transform = _transform(entry.preprocessing, entry.img_size)
    return f"import timm\nmodel = {_network(entry)}.eval()\ntransform = {transform}"


def _network(entry: ModelEntry) -> str:
    arguments: dict[str, Any] = dict(entry.model_kwargs)
    config = timm_config(entry.architecture)
    if config.fixed_input_size and entry.img_size not in (None, config.input_size[-1]):
        arguments.setdefault("img_size", entry.img_size)
    if entry.checkpoint is not None:
        arguments["checkpoint_path"] = Path(entry.checkpoint).name
    else:
        arguments["pretrained"] = True
        arguments |= _source(entry)
    return _call("timm.create_model", entry.architecture, **arguments)


def _source(entry: ModelEntry) -> dict[str, Any]:
    """The argument that names weights other than those that timm takes by the network's name."""
    if entry.weights is None or entry.weights == f"timm/{entry.architecture}":
        return {}
    if entry.weights.startswith(("http://", "https://")):
        return {"pretrained_cfg_overlay": {"url": entry.weights, "hf_hub_id": None}}
    return {"pretrained_cfg_overlay": {"hf_hub_id": entry.weights}}


def _transform(preprocessing: Preprocessing, img_size: int | None) -> str:
    return _call(
        "timm.data.create_transform",
        input_size=(3, img_size, img_size),
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


def _call(function: str, *positional: Any, **named: Any) -> str:
    written = [repr(value) for value in positional]
    written += [f"{name}={value!r}" for name, value in named.items() if name.isidentifier()]
    others = {name: value for name, value in named.items() if not name.isidentifier()}
    written += [f"**{others!r}"] if others else []
    on_one_line = f"{function}({', '.join(written)})"
    if len(on_one_line) <= LONGEST_CALL:
        return on_one_line
    return f"{function}(\n" + "".join(f"    {argument},\n" for argument in written) + ")"
