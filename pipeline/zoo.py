"""Build a catalogue entry's model with its weights, and look up what timm knows about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, load_checkpoint

from data_catalog.errors import InputError
from data_catalog.models import ModelEntry, Preprocessing
from pipeline.weights import remote_weights

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


def with_timm_defaults(entries: Sequence[ModelEntry]) -> list[tuple[ModelEntry, str | None]]:
    """Fill what the catalogue leaves open (family, image size, preprocessing) from timm.

    Returns
    -------
    list of (entry, weights)
        ``weights`` identifies timm's pretrained weights, None when the entry brings its own.

    Raises
    ------
    InputError
        For an architecture that timm does not have, or one that has no weights where none are given.
    """
    return [_with_timm_defaults(entry) for entry in entries]


def _with_timm_defaults(entry: ModelEntry) -> tuple[ModelEntry, str | None]:
    if not timm.is_model(entry.architecture):
        raise InputError(f"{entry.model}: timm {timm.__version__} has no architecture {entry.architecture!r}")
    try:
        config = get_pretrained_cfg(entry.architecture, allow_unregistered=False)
    except RuntimeError as error:
        raise InputError(f"{entry.model}: timm has no weights of this tag: {error}") from None
    assert config is not None
    own_weights = entry.checkpoint is not None or entry.recipe is not None
    if not own_weights and not config.has_weights:
        raise InputError(f"{entry.model}: timm has no pretrained weights of {entry.architecture!r}; give a checkpoint")
    preprocessing = Preprocessing.model_validate(
        {name: getattr(config, name) for name in ("crop_pct", "crop_mode", "interpolation", "mean", "std")}
    )
    filled: dict[str, Any] = {
        "family": entry.family or _family(entry.architecture),
        "img_size": entry.img_size or entry.model_kwargs.get("img_size") or config.input_size[-1],
        "preprocessing": entry.preprocessing or preprocessing,
    }
    if not own_weights:
        filled["weights"] = entry.weights or config.hf_hub_id or config.url
    weights = None if own_weights else f"timm:{config.hf_hub_id or config.url or config.file}:{config.hf_hub_filename}"
    return entry.model_copy(update=filled), weights


def _family(architecture: str) -> str:
    """timm's module of an architecture, a name without its pretraining tag."""
    return timm.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1]


def build_model(entry: ModelEntry, weights: Path | None) -> torch.nn.Module:
    """The entry's model in evaluation mode on the CPU, with ``weights`` from a file, or timm's own if None.

    Published weights pass through timm's adaptations to the architecture, as if timm had downloaded them.

    Raises
    ------
    InputError
        For a checkpoint of a kind that cannot be read safely.
    """
    if weights is None:
        return timm.create_model(entry.architecture, pretrained=True, **entry.model_kwargs).eval()
    if weights.suffix not in CHECKPOINT_SUFFIXES:
        raise InputError(f"{weights}: a checkpoint must be one of {', '.join(CHECKPOINT_SUFFIXES)}")
    if remote_weights(entry) is not None:
        here = {"file": str(weights)}
        model = timm.create_model(entry.architecture, True, pretrained_cfg_overlay=here, **entry.model_kwargs)
        return model.eval()
    model = timm.create_model(entry.architecture, pretrained=False, **entry.model_kwargs)
    load_checkpoint(model, str(weights), device="cpu", weights_only=True)
    return model.eval()


def choose_device() -> torch.device:
    """The accelerator that is there, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
