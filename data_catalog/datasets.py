"""Data sets by their names."""

from functools import cache
from pathlib import Path

import numpy as np

from .dataset_names import DATASETS
from .digit_images import digits_split
from .errors import InputError
from .fashion_images import CLASSES as FASHION_CLASSES
from .fashion_images import fashion_split
from .image_files import ImageFiles, list_class_folders, list_labels_file
from .imagenet import open_imagenet
from .images import ImageArray, LabelledImages, Part, split_numbers
from .photos import STRIPS, photo_patches
from .text import shown
from .timm_datasets import open_timm_dataset
from .torchvision_sets import TORCHVISION_SETS, torchvision_images
from .trained_zoos import seeded_zoo


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
        return ImageArray(
            f"{name}/{part}", tuple(f"digit-{n:04d}" for n in numbers), labels, pixels
        )
    if zoo == "fashion":
        pixels, labels, numbers = fashion_split(part, seed, root)
        return ImageArray(
            f"{name}/{part}",
            tuple(f"item-{n:05d}" for n in numbers),
            labels,
            pixels,
            FASHION_CLASSES,
        )
    if name == "photos":
        pixels, labels, numbers = photo_patches()
        numbers = split_numbers(labels, part, train=900, test=590)
        classes = tuple(
            f"{photo} {strip + 1}" for photo in ("temple", "flower") for strip in range(STRIPS)
        )
        names = tuple(f"patch-{n:04d}" for n in numbers)
        return ImageArray(f"photos/{part}", names, labels[numbers], pixels[numbers], classes)
    if name not in DATASETS and not name.startswith("timm:"):
        raise InputError(
            f"unknown data set {shown(name)}; there are: {', '.join(DATASETS)}, timm:NAME"
        )
    if root is None:
        raise InputError(
            f"the data set {name} needs --data-root, the folder that its images are in"
        )
    if not root.is_dir():
        raise InputError(f"--data-root {root} is no folder")
    if name in TORCHVISION_SETS:
        pixels, labels, classes = torchvision_images(name, root, part == "train")
        numbers = np.arange(len(labels))
        # The set's own test images serve twice: half for top-1, half for embeddings.
        if part != "train":
            numbers = split_numbers(labels, part, train=0, test=len(labels) // 2)
        names = tuple(f"{name}-{n:05d}" for n in numbers)
        return ImageArray(f"{name}/{part}", names, labels[numbers], pixels[numbers], classes)
    if name == "imagenet":
        return open_imagenet(root, allow_train_images)
    if name == "imagefolder":
        names, labels, class_names = list_class_folders(root)
        return ImageFiles(name, root, names, labels, dict(enumerate(class_names)), len(class_names))
    if name == "csv":
        names, labels, class_names = list_labels_file(root)
        return ImageFiles(name, root, names, labels, dict(enumerate(class_names)), len(class_names))
    return open_timm_dataset(name.removeprefix("timm:"), root)
