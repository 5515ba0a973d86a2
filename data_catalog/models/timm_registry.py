"""Facts about models from timm's registry. Imports timm and torch, so the driver must not import it."""

from typing import Any

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg

from dsmi_zoo._util.errors import InputError

from .entry import ModelEntry, Preprocessing
from .taxonomy import kind_of, saw_extra_data


def family_of(architecture: str) -> str:
    """Return the name of the timm module that defines an architecture."""
    return timm.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1]


def timm_config(architecture: str) -> PretrainedCfg:
    """Return timm's configuration for ``architecture`` or ``architecture.tag``; without a tag, the default one's.

    Raises
    ------
    InputError
        For a name unknown to timm.
    """
    if not timm.is_model(architecture):
        name = architecture.rpartition("/")[2].lower()  # drop the hub's owner and upper case
        hint = f": did you mean {name}?" if timm.is_model(name) else ""
        raise InputError(f"timm {timm.__version__} has no architecture {architecture!r}{hint}")
    try:
        config = get_pretrained_cfg(architecture, allow_unregistered=False)
    except RuntimeError as error:
        raise InputError(f"timm has no weights of this tag: {error}") from None
    assert config is not None
    return config


def input_of(config: PretrainedCfg) -> dict[str, Any]:
    """Return a configuration's image size and preprocessing, as fields of an entry."""
    names = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
    preprocessing = Preprocessing.model_validate({name: getattr(config, name) for name in names})
    return {"img_size": config.input_size[-1], "preprocessing": preprocessing}


def weights_of(config: PretrainedCfg) -> dict[str, Any]:
    """Return the source of a configuration's weights and what is known about them, as fields of an entry."""
    return {
        "weights": config.hf_hub_id or config.url or None,
        "pretraining": config.tag or None,
        "extra_data": saw_extra_data(f"{config.architecture}.{config.tag or ''}"),
        "license": None if config.license in (None, "unknown") else config.license,
    }


def pretrained_models() -> list[ModelEntry]:
    """Return every model for which timm has weights, at its own size, with or without a classifier.

    Two dozen are left out: those whose input is not square, as the shared views are, and the ``_enc`` variants, which
    produce tokens for a language model instead of one vector per image.
    """
    entries = []
    for name in timm.list_models(pretrained=True):
        config = timm_config(name)
        is_square = config.input_size[-1] == config.input_size[-2]
        if not is_square or name.partition(".")[0].endswith("_enc"):
            continue
        family = family_of(name)
        fields: dict[str, Any] = {"family": family, "kind": kind_of(family, name)}
        fields |= weights_of(config) | input_of(config)
        entries.append(ModelEntry(model=name, architecture=name, **fields))
    return entries
