"""Open a data set by its name, and recognise the one that a folder holds."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shown

from ..models.registry import seeded_zoo
from .base import ImageArray, LabelledImages, Part, split_numbers
from .folders import ImageFiles, list_class_folders, subfolders
from .imagenet import KAGGLE_TABLE, open_imagenet, synsets
from .labels_file import list_labels_file
from .layout import doubt_about, holds_images
from .libraries import (
    FASHION_CLASSES,
    STRIPS,
    TORCHVISION_SETS,
    digits_split,
    fashion_split,
    open_timm_dataset,
    photo_patches,
    torchvision_images,
)
from .names import DATASETS

TORCHVISION_FOLDERS = {
    "cifar-10-batches-py": "cifar10",
    "MNIST": "mnist",
    "FashionMNIST": "fashion",
    "stl10_binary": "stl10",
}


def open_dataset(
    name: str, root: Path | None = None, part: Part = "validation", allow_train_images: bool = False
) -> LabelledImages:
    """Open a data set; a folder of images is listed each time, because its owner may change it between two runs.

    Parameters
    ----------
    name
        One of ``DATASETS``, ``timm:NAME`` for what ``timm.data.create_dataset`` opens, or ``digits:SEED`` and
        ``fashion:SEED`` for another split, whose validation part only models trained with that seed have not seen.
    root
        The folder of the images; ``digits`` and ``photos`` need none, nor does ``fashion`` with Debian's package.
    part
        Embeddings are computed on ``validation``. The data sets in ``TRAINABLE``, on which networks are trained here,
        also have ``train`` and ``test``; the three parts are disjoint.
    allow_train_images
        Accept files of an ``imagenet`` folder that are training images by their names.

    Raises
    ------
    InputError
        For an unknown data set, or a folder that is missing or does not hold it.
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
        pixels, labels = photo_patches()
        numbers = split_numbers(labels, part, train=900, test=590)
        classes = tuple(f"{photo} {n + 1}" for photo in ("temple", "flower") for n in range(STRIPS))
        names = numbered("patch", numbers, 4)
        return ImageArray(f"photos/{part}", names, labels[numbers], pixels[numbers], classes)
    if name not in DATASETS and not name.startswith("timm:"):
        known = ", ".join(DATASETS)
        raise InputError(f"unknown data set {shown(name)}; there are: {known}, timm:NAME")
    if root is None:
        raise InputError(f"the data set {name} needs --data-root, the folder of its images")
    if not root.is_dir():
        raise InputError(f"--data-root {root} is not a folder")
    return _in_folder(name, root, part, allow_train_images)


def _in_folder(name: str, root: Path, part: Part, allow_train_images: bool) -> LabelledImages:
    if name == "imagenet":
        return open_imagenet(root, allow_train_images)
    if name in ("imagefolder", "csv"):
        listed = list_class_folders(root) if name == "imagefolder" else list_labels_file(root)
        class_names = dict(enumerate(listed.class_names))
        return ImageFiles(
            name, root, listed.names, listed.labels, class_names, len(class_names), listed.account
        )
    if name not in TORCHVISION_SETS:
        return open_timm_dataset(name.removeprefix("timm:"), root)
    pixels, labels, classes = torchvision_images(name, root, part == "train")
    numbers = np.arange(len(labels))
    if part != "train":  # half of the set's own test images give top-1, the other half embeddings
        numbers = split_numbers(labels, part, train=0, test=len(labels) // 2)
    names = numbered(name, numbers, 5)
    return ImageArray(f"{name}/{part}", names, labels[numbers], pixels[numbers], classes)


def numbered(what: str, numbers: Iterable[int], digits: int) -> tuple[str, ...]:
    """Return names for unnamed images, such as ``digit-0017``."""
    return tuple(f"{what}-{number:0{digits}d}" for number in numbers)


def dataset_in(root: Path) -> str:
    """Recognise a data set: a folder with a table of labels, a folder for each class, or a published set.

    Raises
    ------
    InputError
        For anything else.
    """
    if not root.is_dir():
        raise InputError(f"--data-root {root} is not a folder")
    if (root / "labels.csv").is_file():
        return "csv"
    if (root / KAGGLE_TABLE).is_file():
        return "imagenet"
    folders = {path.name for path in subfolders(root)}
    for folder, dataset in TORCHVISION_FOLDERS.items():
        if folder in folders:
            return dataset
    classes = {path.name for path in subfolders(root / "val")} if "val" in folders else folders
    if classes and classes <= set(synsets()):
        return "imagenet"
    doubt = doubt_about(root)
    if doubt is not None:
        raise InputError(f"{root}: {doubt}")
    if folders:
        return "imagefolder"
    images = "images, but " if holds_images(root) else ""
    table = next((path.name for path in sorted(root.glob("*.csv"))), None)
    remedy = (
        f"name {shown(table)} so, if it is that table" if table else "say with --dataset what it is"
    )
    raise InputError(
        f"{root}: holds {images}neither a folder of images for each class nor a labels.csv of the columns image,label; "
        f"{remedy}"
    )
