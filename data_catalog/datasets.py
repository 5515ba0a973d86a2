"""Labelled images: every data set looks the same from here on."""

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from data_catalog.errors import InputError


class LabelledImages(Protocol):
    """A data set, or one part of it: ``len(names) == len(labels)`` images."""

    @property
    def name(self) -> str:
        """The data set's name, and its part's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The images' names."""

    @property
    def labels(self) -> np.ndarray:
        """The images' classes, int64 [n]."""

    def image(self, number: int) -> Image.Image:
        """The image as RGB."""

    def fingerprint(self, number: int) -> str:
        """A hash that changes when the image's content does."""


@dataclass(frozen=True)
class Digits:
    """One part of scikit-learn's handwritten digits."""

    name: str
    names: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray

    def image(self, number: int) -> Image.Image:
        """The digit as white ink on black, RGB, 8 x 8 pixels."""
        return Image.fromarray(self.pixels[number]).convert("RGB")

    def fingerprint(self, number: int) -> str:
        """SHA-256 of the pixels."""
        return hashlib.sha256(self.pixels[number].tobytes()).hexdigest()


DATASETS = ("digits",)
Part = Literal["train", "test", "validation"]


@cache
def open_dataset(name: str, part: Part = "validation") -> LabelledImages:
    """A data set by its name; ``part`` is ``validation`` (what embeddings are taken of), ``train`` or ``test``.

    Raises
    ------
    InputError
        For an unknown data set.
    """
    if name != "digits":
        raise InputError(f"unknown data set {name!r}; there is: {', '.join(DATASETS)}")
    from data_catalog.digits import digits_split

    pixels, labels, numbers = digits_split(part)
    return Digits(f"{name}/{part}", tuple(f"digit-{n:04d}" for n in numbers), labels, pixels)
