"""Data sets by their names."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shown

from ..models.trained_zoos import seeded_zoo
from .base import ImageArray, LabelledImages, Part, split_numbers
from .digits import digits_split
from .fashion import CLASSES as FASHION_CLASSES
from .fashion import fashion_split
from .folders import ImageFiles, list_class_folders, list_labels_file
from .imagenet import open_imagenet
from .names import DATASETS
from .photos import STRIPS, photo_patches
from .timm import open_timm_dataset
from .torchvision import TORCHVISION_SETS, torchvision_images


@cache
def open_dataset(
    name: str, root: Path | None = None, part: Part = "validation", allow_train_images: bool = False
) -> LabelledImages:
    """A data set by its name.

    Parameters
    ----------
    name
        One of ``DATASETS``, or ``timm:NAME`` for what ``timm.data.create_dataset`` opens, or ``digits:SEED`` and
        ``fashion:SEED`` for those split by another seed: only models of that seed's recipes have not seen the
        validation part.
    root
        Where the images are; ``digits`` and ``photos`` need none, nor does ``fashion`` with Debian's package.
    part
        ``validation`` is what embeddings are taken of; ``train`` and ``test``, disjoint from it and each other, are
        there for the data sets that networks are trained on here: ``TRAINABLE``.
    allow_train_images
        Accept files of an ``imagenet`` folder whose names say that they are training images.

    Raises
    ------
    InputError
        For an unknown data set, a folder that is not there, or one that does not hold what it should.
    """
    zoo, seed = seeded_zoo(name) or (None, 0)
    if zoo == "digits":
        pixels, labels, numbers = digits_split(part, seed)
        return ImageArray(f"{name}/{part}", numbered("digit", numbers, 4), labels, pixels)
    if zoo == "fashion":
        pixels, labels, numbers = fashion_split(part, seed, root)
        names = numbered("item", numbers, 5)
        return ImageArray(f"{name}/{part}", names, labels, pixels, FASHION_CLASSES)
    if name == "photos":
        return _photos(part)
    if name not in DATASETS and not name.startswith("timm:"):
        known = ", ".join(DATASETS)
        raise InputError(f"unknown data set {shown(name)}; there are: {known}, timm:NAME")
    return _in_folder(name, _folder(name, root), part, allow_train_images)


def _folder(name: str, root: Path | None) -> Path:
    if root is None:
        raise InputError(f"the data set {name} needs --data-root, the folder of its images")
    if not root.is_dir():
        raise InputError(f"--data-root {root} is no folder")
    return root


def _in_folder(name: str, root: Path, part: Part, allow_train_images: bool) -> LabelledImages:
    if name in TORCHVISION_SETS:
        return _of_torchvision(name, root, part)
    if name == "imagenet":
        return open_imagenet(root, allow_train_images)
    if name in LISTED:
        names, labels, class_names = LISTED[name](root)
        return ImageFiles(name, root, names, labels, dict(enumerate(class_names)), len(class_names))
    return open_timm_dataset(name.removeprefix("timm:"), root)


LISTED = {"imagefolder": list_class_folders, "csv": list_labels_file}
"""How the images of a folder are listed, by the data set's name."""


def _photos(part: Part) -> ImageArray:
    pixels, labels, _ = photo_patches()
    numbers = split_numbers(labels, part, train=900, test=590)
    photos = ("temple", "flower")
    classes = tuple(f"{photo} {strip + 1}" for photo in photos for strip in range(STRIPS))
    names = numbered("patch", numbers, 4)
    return ImageArray(f"photos/{part}", names, labels[numbers], pixels[numbers], classes)


def _of_torchvision(name: str, root: Path, part: Part) -> ImageArray:
    pixels, labels, classes = torchvision_images(name, root, part == "train")
    numbers = np.arange(len(labels))
    # The set's own test images serve twice: half for top-1, half for embeddings.
    if part != "train":
        numbers = split_numbers(labels, part, train=0, test=len(labels) // 2)
    names = numbered(name, numbers, 5)
    return ImageArray(f"{name}/{part}", names, labels[numbers], pixels[numbers], classes)


def numbered(what: str, numbers: Iterable[int], digits: int) -> tuple[str, ...]:
    """Names of images that have none: ``digit-0017``."""
    return tuple(f"{what}-{number:0{digits}d}" for number in numbers)
