"""Build a timm model with its weights, fill in what timm knows about it, and write the code that loads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import default_cache
from dsmi_zoo.data_catalog.models.entry import ModelEntry, sources_problem
from dsmi_zoo.data_catalog.models.taxonomy import kind_of
from dsmi_zoo.data_catalog.models.timm_registry import family_of, input_of, timm_config, weights_of

from ..weights.cache import fetch_weights, remote_weights
from ..weights.hub import is_offline, is_on_hub
from .checkpoints import JOIN_SHARDS, Loaded, load_file
from .forward import random_states_kept
from .layers import as_vectors, check_layer, forward

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


def with_timm_defaults(entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Fill in from timm what the catalogue leaves open: family, image size, preprocessing, weights and their facts.

    An entry with its own weights, or a recipe to train them, gets none of timm's.

    Raises
    ------
    InputError
        For an architecture that timm does not have, or one without published weights where none are given.
    """
    filled = []
    for entry in entries:
        try:
            config = timm_config(entry.architecture)
        except InputError as error:
            raise InputError(f"{entry.model}: {error}") from None
        family = entry.family or family_of(entry.architecture)
        known: dict[str, Any] = input_of(config)
        known |= {"family": family, "kind": kind_of(family, entry.architecture)}
        if "img_size" in entry.model_kwargs:
            known["img_size"] = entry.model_kwargs["img_size"]
        if entry.checkpoint is None and entry.recipe is None and entry.weights is None:
            if not config.has_weights:
                raise InputError(
                    f"{entry.model}: timm has no pretrained weights of {entry.architecture!r}; give a checkpoint"
                )
            known |= weights_of(config)
        missing = {name: value for name, value in known.items() if getattr(entry, name) is None}
        filled.append(entry.model_copy(update=missing))
    return filled


def build_model(entry: ModelEntry, weights: Path | None) -> torch.nn.Module:
    """Return the entry's model from `loaded_model`, without the report on its weights."""
    return loaded_model(entry, weights)[0]


def loaded_model(entry: ModelEntry, weights: Path | None) -> tuple[torch.nn.Module, Loaded]:
    """Return the entry's model in evaluation mode on the CPU, for the entry's image size, and how it was loaded.

    Published weights pass through timm's adaptations to the architecture, as if timm had downloaded them.

    Parameters
    ----------
    weights
        File of the weights; None takes those that ``entry.weights`` names, or timm's own.

    Raises
    ------
    InputError
        For a checkpoint of a kind that cannot be read safely, or that does not fit the network, or arguments by which
        timm would load other weights.
    FileNotFoundError
        When the weights are missing and HF_HUB_OFFLINE forbids downloading them.
    """
    if weights is None:
        return _from_its_source(entry).eval(), Loaded()
    refuse_unsafe(weights)
    if remote_weights(entry) is not None:
        model, loaded = _with_published(entry, weights)
    else:
        model = _create(entry, pretrained=False)
        loaded = load_file(model, weights, entry.checkpoint_key)
    return model.eval(), loaded


def build_untrained(entry: ModelEntry) -> torch.nn.Module:
    """Return the entry's model like ``build_model``, with timm's initial weights, drawn with seed 0."""
    with random_states_kept():
        torch.manual_seed(0)
        return _create(entry, pretrained=False).eval()


def pooling_of(model: Any) -> str | None:
    """Return timm's name for the network's pooling of positions or tokens; None where timm has none."""
    for place in (model, getattr(model, "head", None)):
        pool = getattr(place, "global_pool", None)
        name = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        if isinstance(name, str) and name:
            return name
    return None


def repool(model: Any, pool: str) -> None:
    """Give a backbone without a classifier another pooling; leave a network with a classifier as it is.

    The norm before or after the pooling stays where the weights were trained with it.

    Raises
    ------
    InputError
        When the network has no such pooling, such as a class token or a trained attention pool.
    """
    if model.num_classes != 0:
        return
    try:
        model.reset_classifier(0, pool)
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise InputError(
            f"this network cannot pool by {pool}: {reason}; leave it out, or --pool"
        ) from None


def _from_its_source(entry: ModelEntry) -> torch.nn.Module:
    """Build the model with weights that timm downloads; offline, timm would still open a URL."""
    source = entry.weights or weights_of(timm_config(entry.architecture))["weights"]
    if is_offline() and source is not None and not is_on_hub(source):
        return _with_published(entry, fetch_weights(source, default_cache(), keep=False))[0]
    return _create(entry, pretrained=True, pretrained_cfg_overlay=_weights_overlay(entry))


def _with_published(entry: ModelEntry, weights: Path) -> tuple[torch.nn.Module, Loaded]:
    # The file holds a state dict, whatever form timm's other sources of the weights have.
    overlay = {"file": str(weights), "custom_load": False}
    try:
        return _create(entry, pretrained=True, pretrained_cfg_overlay=overlay), Loaded()
    except MemoryError:
        raise
    except Exception:
        model = _create(entry, pretrained=False)  # raises if the file is not to blame
        return model, load_file(model, weights)


def refuse_unsafe(checkpoint: Path) -> None:
    """Raise InputError for a checkpoint of a kind that cannot be read without executing its content."""
    if checkpoint.name.endswith(".index.json"):
        raise InputError(f"{checkpoint} only lists the shards of a checkpoint; {JOIN_SHARDS}")
    if checkpoint.suffix.lower() not in CHECKPOINT_SUFFIXES:
        raise InputError(
            f"{checkpoint}: a checkpoint must be one of {', '.join(CHECKPOINT_SUFFIXES)}"
        )


@torch.inference_mode()
def embedding_shape(entry: ModelEntry) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of one image's embedding, and the width that the model declares (None with ``entry.layer``).

    Nothing is computed or downloaded: the model is on PyTorch's meta device, which knows shapes only.

    Raises
    ------
    InputError
        For a network that does not take images of the entry's size; for a layer that it does not have.
    """
    if entry.img_size is None:
        (entry,) = with_timm_defaults([entry])
    assert entry.img_size is not None
    with torch.device("meta"):
        model: Any = _create(entry, pretrained=False).eval()
        check_layer(model, entry.layer)
        image = torch.zeros(1, 3, entry.img_size, entry.img_size)
        try:
            output, _ = forward(model, image, entry.layer, logits=False)
        except (RuntimeError, AssertionError) as error:
            size = timm_config(entry.architecture).input_size[-1]
            if entry.img_size == size:
                raise
            raise InputError(
                f"made for {size} pixels, it does not take {entry.img_size}: {error}"
            ) from None
    if entry.layer is not None:
        return tuple(as_vectors(output, 1, entry.layer).shape), None
    return tuple(output.shape), getattr(model, "head_hidden_size", None) or model.num_features


def _create(entry: ModelEntry, **arguments: Any) -> torch.nn.Module:
    problem = sources_problem(entry.model_kwargs)
    if problem:
        raise InputError(f"{entry.model}: {problem}")
    arguments |= entry.model_kwargs | size_argument(entry)
    return timm.create_model(entry.architecture, **arguments)


def size_argument(entry: ModelEntry) -> dict[str, Any]:
    """Return the argument for the entry's image size if timm builds the network for another fixed size; else empty."""
    config = timm_config(entry.architecture)
    usual_size = entry.img_size in (None, config.input_size[-1])
    if usual_size or not config.fixed_input_size or "img_size" in entry.model_kwargs:
        return {}
    return {"img_size": entry.img_size}


def source_overlay(weights: str) -> dict[str, Any]:
    """Return the change to timm's configuration that makes these weights its source."""
    if is_on_hub(weights):
        return {"hf_hub_id": weights}
    return {"url": weights, "hf_hub_id": None}


def _weights_overlay(entry: ModelEntry) -> dict[str, Any]:
    """Return the changes to timm's configuration by which it loads the entry's weights; empty for timm's own.

    timm treats a changed source as a plain state dict, which some of its own are not; a revision of its own
    repository keeps their format.
    """
    config = timm_config(entry.architecture)
    own = weights_of(config)["weights"]
    if entry.weights is None or entry.weights == own:
        return {}
    overlay = source_overlay(entry.weights)
    if entry.weights.partition("@")[0] == own:
        overlay["custom_load"] = config.custom_load
    elif is_on_hub(entry.weights):
        overlay["url"] = ""
    return overlay


def choose_device() -> torch.device:
    """Return the accelerator of this machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


MAX_CALL_LENGTH = 70  # characters that a page shows without scrolling


def loading_code(entry: ModelEntry) -> str | None:
    """Return three statements: the import, the network with its weights, the transform of an image.

    None for networks that are not timm's or were trained here. A checkpoint, which must be one that timm's own loader
    reads, is named by its path from the catalogue's folder if inside, else by its file name; a comment says which.
    """
    if entry.builder is not None or entry.recipe is not None or entry.preprocessing is None:
        return None
    size = (3, entry.img_size, entry.img_size)
    preprocessing = entry.preprocessing.model_dump()
    transform = _call("timm.data.create_transform", input_size=size, **preprocessing)
    comment = ""
    if entry.checkpoint is not None and entry.checkpoint_in_catalog is not None:
        comment = "# a path relative to the folder of the catalogue\n"
    elif entry.checkpoint is not None:
        comment = "# the checkpoint's name; put its folder before it\n"
    return f"import timm\n{comment}model = {_network(entry)}.eval()\ntransform = {transform}"


def _network(entry: ModelEntry) -> str:
    arguments = dict(entry.model_kwargs) | size_argument(entry)
    if entry.checkpoint is not None:
        arguments["checkpoint_path"] = entry.checkpoint_in_catalog or entry.checkpoint.name
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
