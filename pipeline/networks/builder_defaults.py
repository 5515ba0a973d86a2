"""Defaults for what the catalogue leaves open in an entry with a builder."""

from dsmi_zoo.data_catalog.datasets import imagenet
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.data_catalog.models.taxonomy import kind_of

IMG_SIZE = 224
PREPROCESSING = Preprocessing(
    crop_pct=0.875, interpolation="bicubic", mean=imagenet.MEAN, std=imagenet.STD
)


def with_builder_defaults(entry: ModelEntry) -> ModelEntry:
    """Fill in what the catalogue leaves open: the family from the builder's module, ImageNet's usual preprocessing."""
    assert entry.builder is not None
    module = entry.builder.partition(":")[0]
    family = entry.family or module.rpartition(".")[2]
    defaults = {
        "family": family,
        "kind": kind_of(family, entry.architecture),
        "img_size": IMG_SIZE,
        "preprocessing": PREPROCESSING,
    }
    return entry.model_copy(
        update={name: value for name, value in defaults.items() if getattr(entry, name) is None}
    )
