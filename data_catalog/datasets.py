"""Labelled images: every data set looks the same from here on."""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image

from .dataset_names import DATASETS
from .errors import InputError
from .image_files import read_image

Part = Literal["train", "test", "validation"]


class LabelledImages(Protocol):
    """Images with classes, all of a data set or some."""

    @property
    def name(self) -> str:
        """The data set's name, and its part's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names, which differ from each other."""

    @property
    def labels(self) -> np.ndarray:
        """The images' classes, int64 [n]."""

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names."""

    @property
    def classifier_width(self) -> int | None:
        """How many outputs a classifier must have for its argmax to be a label; None if that cannot be told."""

    def image(self, number: int) -> Image.Image:
        """The image as RGB, upright, 8 bits a channel."""

    def fingerprint(self, number: int) -> str:
        """A hash that changes when the image's content does."""

    def take(self, numbers: np.ndarray) -> Self:
        """Only these images, in this order."""


@dataclass(frozen=True)
class ImageArray:
    """Images in memory, uint8 [n, h, w] or [n, h, w, 3]."""

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray
    classes: tuple[str, ...] = tuple("0123456789")

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names by label."""
        return dict(enumerate(self.classes))

    @property
    def classifier_width(self) -> int | None:
        """One output a class."""
        return len(self.classes)

    def image(self, number: int) -> Image.Image:
        """The image as RGB."""
        return Image.fromarray(self.pixels[number]).convert("RGB")

    def fingerprint(self, number: int) -> str:
        """SHA-256 of the pixels."""
        return hashlib.sha256(self.pixels[number].tobytes()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Only these images, in this order."""
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, labels=self.labels[numbers], pixels=self.pixels[numbers])


@dataclass(frozen=True)
class ImageFiles:
    """Image files below one folder; ``names`` are their paths in it, so they hold on every machine."""

    name: str
    root: Path
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: dict[int, str]
    classifier_width: int | None = None

    def path(self, number: int) -> Path:
        """Where the image stands."""
        return self.root / self.names[number]

    def image(self, number: int) -> Image.Image:
        """The image as RGB, upright, 8 bits a channel."""
        return read_image(self.path(number))

    def fingerprint(self, number: int) -> str:
        """SHA-256 of the file."""
        try:
            with self.path(number).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{self.path(number)}: cannot be read: {error.strerror}") from None

    def take(self, numbers: np.ndarray) -> Self:
        """Only these images, in this order."""
        return replace(self, names=tuple(self.names[i] for i in numbers), labels=self.labels[numbers])


@cache
def open_dataset(
    name: str, root: Path | None = None, part: Part = "validation", allow_train_images: bool = False
) -> LabelledImages:
    """A data set by its name.

    Parameters
    ----------
    name
        One of ``DATASETS``, or ``timm:NAME`` for what ``timm.data.create_dataset`` opens, or ``digits:SEED`` for the
        digits split by another seed, of which only models of that seed's recipes have not seen the validation part.
    root
        Where the images are; ``digits`` and ``photos`` need none.
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
    digits = re.fullmatch(r"digits(?::(\d{1,9}))?", name)
    if digits:
        from .digits import digits_split

        pixels, labels, numbers = digits_split(part, int(digits[1] or 0))
        return ImageArray(f"{name}/{part}", tuple(f"digit-{n:04d}" for n in numbers), labels, pixels)
    if name == "photos":
        from .photos import STRIPS, photo_patches

        pixels, labels, numbers = photo_patches()
        numbers = split_numbers(labels, part, train=900, test=590)
        classes = tuple(f"{photo} {strip + 1}" for photo in ("temple", "flower") for strip in range(STRIPS))
        names = tuple(f"patch-{n:04d}" for n in numbers)
        return ImageArray(f"photos/{part}", names, labels[numbers], pixels[numbers], classes)
    if name not in DATASETS and not name.startswith("timm:"):
        raise InputError(f"unknown data set {name!r}; there are: {', '.join(DATASETS)}, timm:NAME")
    if root is None:
        raise InputError(f"the data set {name} needs --data-root, the folder that its images are in")
    if not root.is_dir():
        raise InputError(f"--data-root {root} is no folder")
    if name in ("cifar10", "mnist", "stl10"):
        from .torchvision_sets import torchvision_images

        pixels, labels, classes = torchvision_images(name, root, part == "train")
        numbers = np.arange(len(labels))
        if part != "train":  # the set's own test images serve twice: half for top-1, half for embeddings
            numbers = split_numbers(labels, part, train=0, test=len(labels) // 2)
        names = tuple(f"{name}-{n:05d}" for n in numbers)
        return ImageArray(f"{name}/{part}", names, labels[numbers], pixels[numbers], classes)
    if name == "imagenet":
        from .imagenet import open_imagenet

        return open_imagenet(root, allow_train_images)
    if name == "imagefolder":
        from .image_files import list_class_folders

        names, labels, class_names = list_class_folders(root)
        return ImageFiles(name, root, names, labels, dict(enumerate(class_names)), len(class_names))
    if name == "csv":
        from .image_files import list_labels_file

        names, labels, class_names = list_labels_file(root)
        return ImageFiles(name, root, names, labels, dict(enumerate(class_names)), len(class_names))
    from .timm_datasets import open_timm_dataset

    return open_timm_dataset(name.removeprefix("timm:"), root)


def split_numbers(labels: np.ndarray, part: Part, *, train: int, test: int, seed: int = 0) -> np.ndarray:
    """Numbers of the images of one of three disjoint, stratified parts, sorted; the rest is validation; int64 [n]."""
    from sklearn.model_selection import train_test_split

    parts: dict[str, np.ndarray] = {"train": np.arange(0)}
    rest = np.arange(len(labels))
    if train:
        parts["train"], rest = train_test_split(rest, train_size=train, stratify=labels, random_state=seed)
    parts["test"], parts["validation"] = train_test_split(
        rest, train_size=test, stratify=labels[rest], random_state=seed
    )
    return np.sort(parts[part])
