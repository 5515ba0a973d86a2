"""Labelled images: every data set looks the same from here on."""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image

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


def split_numbers(
    labels: np.ndarray, part: Part, *, train: int, test: int, seed: int = 0
) -> np.ndarray:
    """Numbers of the images of one of three disjoint, stratified parts, sorted; the rest is validation; int64 [n]."""
    from sklearn.model_selection import train_test_split

    parts: dict[str, np.ndarray] = {"train": np.arange(0)}
    rest = np.arange(len(labels))
    if train:
        parts["train"], rest = train_test_split(
            rest, train_size=train, stratify=labels, random_state=seed
        )
    parts["test"], parts["validation"] = train_test_split(
        rest, train_size=test, stratify=labels[rest], random_state=seed
    )
    return np.sort(parts[part])
