"""Files of images: find them with their classes, and read them right."""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

HINT = "mend it, or go on without such images by --skip-bad-images"

Listing = tuple[tuple[str, ...], np.ndarray, list[str]]
"""Names below the root, their labels (int64 [n]), and the classes' names in the order of the labels."""


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


def read_image(path: Path) -> Image.Image:
    """An image as RGB, upright (by its EXIF orientation), 8 bits a channel, transparency on white.

    Raises
    ------
    InputError
        Names a file that is missing, empty, truncated or no image.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return _as_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise InputError(f"{path}: no image that can be read ({path.stat().st_size} bytes); {HINT}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the image cannot be read: {error}; {HINT}") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits: Pillow's own conversion would clip, not scale
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255
        return Image.fromarray(np.rint(np.clip(values * (255 / top), 0, 255)).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def unreadable(paths: Sequence[Path], threads: int = 4) -> dict[int, str]:
    """Which of the images cannot be decoded, by their place among ``paths``, and why."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(problem, paths)
    return {number: text for number, text in enumerate(found) if text is not None}


def list_class_folders(root: Path) -> Listing:
    """A folder with one folder of images a class, in the order of their names.

    Raises
    ------
    InputError
        Without class folders, or when one of them is empty.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root}: holds no class folders; it needs one folder of images for each class")
    names: list[str] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        found = list(image_names(folder, root))
        if not found:
            empty.append(folder.name)
        names += found
        labels += [label] * len(found)
    if empty:
        shown = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise InputError(f"{root}: {len(empty)} of {len(folders)} class folders hold no image: {shown}")
    return tuple(names), np.array(labels, dtype=np.int64), [folder.name for folder in folders]


def image_names(folder: Path, root: Path) -> Iterator[str]:
    """Image files at any depth of ``folder``, sorted, as paths below ``root``."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path.relative_to(root).as_posix()


def list_labels_file(root: Path, file_name: str = "labels.csv") -> Listing:
    """A folder of images with a table of the columns ``image`` (a path in the folder) and ``label``.

    Raises
    ------
    InputError
        Names the table's line that is wrong.
    """
    table = root / file_name
    if not table.is_file():
        raise InputError(f"{root}: holds no {file_name} with the columns image,label")
    names: list[str] = []
    classes: list[str] = []
    lines: dict[str, int] = {}
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"image", "label"} <= set(rows.fieldnames or ()):
            raise InputError(f"{table}: needs the columns image,label; it has {','.join(rows.fieldnames or ())}")
        for row in rows:
            where = f"{table}, line {rows.line_num}"
            name, label = (row["image"] or "").strip(), (row["label"] or "").strip()
            if not name or not label:
                raise InputError(f"{where}: an image or its label is missing")
            path = root / name
            if not path.resolve().is_relative_to(root.resolve()):
                raise InputError(f"{where}: {name!r} lies outside the folder")
            if not path.is_file():
                raise InputError(f"{where}: {name!r} is no file")
            if name in lines:
                raise InputError(f"{where}: {name!r} stands in line {lines[name]} already")
            lines[name] = rows.line_num
            names.append(name)
            classes.append(label)
    class_names = sorted(set(classes), key=_as_people_sort)
    number = {name: label for label, name in enumerate(class_names)}
    return tuple(names), np.array([number[c] for c in classes], dtype=np.int64), class_names


def _as_people_sort(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", text)]
