"""Labelled images: the interface of every data set."""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
from PIL import Image

from .account import WHOLE, Account

Part = Literal["train", "test", "validation"]


class LabelledImages(Protocol):
    """All images of a data set, or some, with their classes."""

    @property
    def name(self) -> str:
        """The names of the data set and its part."""

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names, all different."""

    @property
    def labels(self) -> np.ndarray:
        """The images' classes, int64 [n]."""

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names."""

    @property
    def classifier_width(self) -> int | None:
        """The outputs of a classifier whose argmax is a label; None if unknown."""

    @property
    def account(self) -> Account:
        """What of the data set is not among these images, by reason, and how ambiguous input was read."""

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits a channel."""

    def fingerprint(self, number: int) -> str:
        """Return a hash of the image's content."""

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""


@dataclass(frozen=True)
class ImageArray:
    """Images in memory, uint8 [n, h, w] or [n, h, w, 3]."""

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray
    classes: tuple[str, ...] = tuple("0123456789")
    account: Account = WHOLE

    @property
    def class_names(self) -> dict[int, str]:
        """The classes' names by label."""
        return dict(enumerate(self.classes))

    @property
    def classifier_width(self) -> int | None:
        """One output a class."""
        return len(self.classes)

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB."""
        return Image.fromarray(self.pixels[number]).convert("RGB")

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the pixels."""
        return hashlib.sha256(self.pixels[number].tobytes()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, labels=self.labels[numbers], pixels=self.pixels[numbers])


def split_numbers(
    labels: np.ndarray, part: Part, *, train: int, test: int, seed: int = 0
) -> np.ndarray:
    """Return the sorted indices of one of three disjoint, stratified parts, int64 [n]; validation is the rest."""
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
