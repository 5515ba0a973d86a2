"""The images of a run: the classes and images that its settings choose, without damaged files."""

from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically
from dsmi_zoo._util.text import shown
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.datasets.image_files import ImageFiles, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import PRESETS
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset

from ..config.run import SubsetSettings
from .white import with_white


def open_subset(settings: SubsetSettings, repeats: int, cache: Path) -> Subset:
    """Open the images that the settings choose; skip those that cannot be decoded, if the settings allow it.

    Raises
    ------
    InputError
        For an unknown data set or class, a wrong folder, too few images, or an unknown level of white.
    """
    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    classes = _class_numbers(settings.classes, images)
    while True:
        subset = select_subset(
            images,
            classes=classes,
            images_per_class=settings.images_per_class,
            repeats=repeats,
            seed=settings.seed,
        )
        bad = _bad_images(subset, cache) if settings.skip_bad_images else {}
        if not bad:
            return with_white(subset, settings.white, cache)
        images = images.take(
            np.array([i for i, name in enumerate(images.names) if name not in bad])
        )


def _bad_images(subset: Subset, cache: Path) -> dict[str, str]:
    """Find the chosen images that cannot be decoded, by name; a subset once found good is not read again."""
    images = subset.images
    note = cache / "checked" / subset.digest
    if not isinstance(images, ImageFiles) or note.exists():
        return {}
    bad = unreadable([images.path(number) for number in range(len(images.names))])
    if not bad:
        write_atomically(note, lambda file: None)
    return {images.names[number]: problem for number, problem in bad.items()}


def _class_numbers(classes: str | None, images: LabelledImages) -> tuple[int, ...] | None:
    """Return the labels of a preset, or of a list of classes by name or number."""
    if classes is None or classes == "all":
        return None
    if classes in PRESETS:
        if images.classifier_width != 1000:
            raise InputError(
                f"--classes {classes} names ImageNet classes; {images.name} has others"
            )
        return PRESETS[classes]
    number = {name: label for label, name in images.class_names.items()}
    chosen = []
    for part in (p.strip() for p in classes.split(",")):
        label = number.get(part, _as_label(part))
        if label not in images.class_names:
            known = ", ".join([*PRESETS, "all", *list(number)[:3]])
            raise InputError(
                f"--classes: {images.name} has no class {shown(part)}; there are {known} ..."
            )
        chosen.append(label)
    return tuple(chosen)


def _as_label(text: str) -> int:
    """Return a class's number, or -1 if it is not one; Python cannot read numbers of thousands of digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else -1
