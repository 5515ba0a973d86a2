"""The images of a run: the classes and images that its settings choose, without damaged files."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_atomically
from dsmi_zoo._util.text import shown
from dsmi_zoo.data_catalog.datasets.base import LabelledImages
from dsmi_zoo.data_catalog.datasets.class_order import class_orders
from dsmi_zoo.data_catalog.datasets.image_files import ImageFiles, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import PRESETS
from dsmi_zoo.data_catalog.datasets.layout import doubt_about
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset

from ..config.run import SubsetSettings
from .white import with_white


def open_subset(settings: SubsetSettings, repeats: int, cache: Path) -> Subset:
    """Open the images that the settings choose; skip those that cannot be decoded, if the settings allow it.

    Raises
    ------
    InputError
        For an unknown data set, class or level of white, a wrong folder or order of classes, or too few images.
    """
    images = open_dataset(
        settings.dataset, settings.data_root, allow_train_images=settings.allow_train_images
    )
    classes = class_numbers(settings.classes, images)
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
            return with_white(_with_readings(subset, settings), settings.white, cache)
        images = images.take(
            np.array([i for i, name in enumerate(images.names) if name not in bad])
        )


def _with_readings(subset: Subset, settings: SubsetSettings) -> Subset:
    """Add the order of the classes, and what is ambiguous in the folders and in that order."""
    root, account = settings.data_root, subset.account
    if settings.dataset == "imagefolder" and root is not None and (doubt := doubt_about(root)):
        account = doubt.as_reading(account)
    orders, account = class_orders(subset.images, root, account, settings.class_order)
    return replace(subset, orders=orders, account=account)


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


def class_numbers(classes: str | None, images: LabelledImages) -> tuple[int, ...] | None:
    """Return the labels of a preset, or of a list of classes by name or number.

    A class is meant by its name; by its number only where no class is named by a number.

    Raises
    ------
    InputError
        For an unknown class, or text that can be read in two ways.
    """
    number = {name: label for label, name in images.class_names.items()}
    if classes is None or (classes == "all" and classes not in number):
        return None
    if classes in (*PRESETS, "all") and classes in number:
        raise InputError(
            f"--classes: {classes} is a class of {images.name} and a choice of several: "
            f"write '\"{classes}\"' for the class, or rename it"
        )
    if classes in PRESETS:
        if images.classifier_width != 1000:
            raise InputError(
                f"--classes {classes} names ImageNet classes; {images.name} has others"
            )
        return PRESETS[classes]
    if not any(name.isdecimal() for name in number):
        number |= {str(label): label for label in images.class_names}
    chosen = _class_list(classes, number)
    for name in chosen:
        if name not in number:
            raise InputError(f"--classes: {images.name} has no class {_unknown(name, number)}")
    return tuple(number[name] for name in chosen)


def _class_list(classes: str, number: Mapping[str, int]) -> list[str]:
    """Split at the commas outside quotes; a class's name that holds commas may stand alone without them."""
    try:
        parts = next(csv.reader([classes], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise InputError(f"--classes {shown(classes)}: a quote is not closed") from None
    parts = [part.strip() for part in parts]
    if classes not in number or parts == [classes]:
        return parts
    if all(part in number for part in parts):
        raise InputError(
            f"--classes {shown(classes)} is one class and {len(parts)} classes: "
            f"write '\"{classes}\"' for the one, or change their order"
        )
    return [classes]


def _unknown(name: str, number: Mapping[str, int]) -> str:
    """Return an unknown class as text, and which may be meant."""
    near = get_close_matches(name, number, n=1) or [
        known for known in number if name in known.split(",")
    ]
    if near:
        quotes = " (names with a comma need quotes)" if "," in near[0] else ""
        return f"{shown(name)}: did you mean {shown(near[0])}?{quotes}"
    known = ", ".join([*PRESETS, "all", *list(number)[:3]])
    return f"{shown(name)}; there are {known} ..."
