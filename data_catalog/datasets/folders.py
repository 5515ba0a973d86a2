"""Find image files with their classes: one folder per class, or a table of labels."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import is_printable, natural_order, shortened, shown

from .decoding import read_image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

Listing = tuple[tuple[str, ...], np.ndarray, list[str]]
"""Names below the root, their labels (int64 [n]), and the classes' names in the order of the labels."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files below one folder; ``names`` are relative paths, so they are the same on every machine."""

    name: str
    root: Path
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: dict[int, str]
    classifier_width: int | None = None

    def path(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits a channel."""
        return read_image(self.path(number))

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
    """Return why images cannot be decoded, by their index in ``paths``."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(problem, paths)
    return {number: text for number, text in enumerate(problems) if text is not None}


def subfolders(root: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted by name."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def list_class_folders(root: Path) -> Listing:
    """List a folder with one folder of images per class; the labels follow the order of their names.

    Raises
    ------
    InputError
        Without class folders, or when one of them is empty.
    """
    folders = subfolders(root)
    for folder in folders:
        refuse_odd_name(folder.name, root)
    if not folders:
        raise InputError(
            f"{root}: holds no class folders; it needs one folder of images for each class"
        )
    names, labels = images_by_folder(folders, root)
    return names, labels, [folder.name for folder in folders]


def images_by_folder(folders: Sequence[Path], root: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the images in folders, as paths below ``root``, and the index of each one's folder, int64 [n]."""
    names: list[str] = []
    numbers: list[int] = []
    empty: list[str] = []
    for number, folder in enumerate(folders):
        images = list(image_names(folder, root))
        if not images:
            empty.append(folder.name)
        names += images
        numbers += [number] * len(images)
    if empty:
        some = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise InputError(
            f"{root}: {len(empty)} of {len(folders)} class folders hold no image: {some}"
        )
    return tuple(names), np.array(numbers, dtype=np.int64)


def image_names(folder: Path, root: Path) -> Iterator[str]:
    """Yield the image files at any depth of ``folder``, sorted, as paths below ``root``."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            name = path.relative_to(root).as_posix()
            refuse_odd_name(name, root)
            yield name


def refuse_odd_name(name: str, root: Path) -> None:
    """Raise InputError for a name that no table or page can hold."""
    if not is_printable(name):
        raise InputError(
            f"{root}: the name {shown(name, 200)} is not UTF-8, or holds a control character; rename it"
        )


def list_labels_file(root: Path) -> Listing:
    """List a folder of images with a table of the columns ``image`` (a path in the folder) and ``label``.

    Raises
    ------
    InputError
        Names the table's line that is wrong.
    """
    table = root / "labels.csv"
    if not table.is_file():
        raise InputError(f"{root}: holds no labels.csv with the columns image,label")
    columns, rows = read_table(table, "labels of images")
    if not {"image", "label"} <= set(columns):
        raise InputError(
            f"{table}: needs the columns image,label; it has {shortened(','.join(columns), 300)}"
        )
    resolved_root = root.resolve()
    names: list[str] = []
    classes: list[str] = []
    lines: dict[PurePath, int] = {}
    for line, cells in rows:
        where = f"{table}, line {line}"
        name, label = cells["image"], cells["label"]
        if not name or not label:
            raise InputError(f"{where}: an image or its label is missing")
        if not is_file(resolved_root / name):
            raise InputError(f"{where}: {shown(name)} is not a file")
        if not (resolved_root / name).resolve().is_relative_to(resolved_root):
            raise InputError(f"{where}: {shown(name)} lies outside the folder")
        normalised = PurePath(name)  # drops the dot of ./name
        if normalised in lines:
            raise InputError(f"{where}: {shown(name)} is already in line {lines[normalised]}")
        lines[normalised] = line
        names.append(name)
        classes.append(label)
    class_names = sorted(set(classes), key=natural_order)
    number = {name: label for label, name in enumerate(class_names)}
    return tuple(names), np.array([number[c] for c in classes], dtype=np.int64), class_names
