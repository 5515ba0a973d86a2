"""Image files below one folder: their names, and what a listing of them is."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.text import is_printable, shown

from .account import WHOLE, Account
from .decoding import read_image
from .deep_pixels import UnknownWhite

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)


@dataclass(frozen=True)
class Listing:
    """Images below a folder: their names (relative paths), their labels (int64 [n]) and the names of all labels.

    It unpacks to these three; ``account`` says what else the folder holds.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: list[str]
    account: Account = WHOLE

    def __iter__(self) -> Iterator[Any]:
        return iter((self.names, self.labels, self.class_names))


@dataclass(frozen=True)
class ImageFiles:
    """Image files below one folder; ``names`` are relative paths, so they are the same on every machine.

    ``white`` is the level of white of images of more than 8 bits; by default each image decides.
    """

    name: str
    root: Path
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: dict[int, str]
    classifier_width: int | None = None
    account: Account = WHOLE
    white: float | None = None

    def path(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits a channel."""
        return read_image(self.path(number), self.white)

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the file."""
        try:
            return file_sha256(self.path(number))
        except OSError as error:
            raise InputError(f"{self.path(number)}: cannot be read: {error.strerror}") from None

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        names = tuple(self.names[i] for i in numbers)
        return replace(self, names=names, labels=self.labels[numbers])


def unreadable(paths: Sequence[Path], threads: int = 4) -> dict[int, str]:
    """Return why images cannot be decoded, by their index in ``paths``; an unknown level of white is no reason."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except UnknownWhite:
            return None
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(problem, paths)
    return {number: text for number, text in enumerate(problems) if text is not None}


def refuse_odd_name(name: str, root: Path) -> None:
    """Raise InputError for a name that no table or page can hold."""
    if not is_printable(name):
        raise InputError(
            f"{root}: the name {shown(name, 200)} is not UTF-8, or holds a control character; rename it"
        )
