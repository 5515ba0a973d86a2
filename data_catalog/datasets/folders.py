"""Files of images: find them with their classes, and read them right."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.tables import read_table
from dsmi_zoo._util.text import as_people_sort, is_printable, shortened, shown

from .decoding import read_image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

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
        return replace(
            self, names=tuple(self.names[i] for i in numbers), labels=self.labels[numbers]
        )


def unreadable(paths: Sequence[Path], threads: int = 4) -> dict[int, str]:
    """Which of the images cannot be decoded, by their place among ``paths``, and why."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(problem, paths)
    return {number: text for number, text in enumerate(problems) if text is not None}


def list_class_folders(root: Path) -> Listing:
    """A folder with one folder of images per class, in the order of their names.

    Raises
    ------
    InputError
        Without class folders, or when one of them is empty.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    for folder in folders:
        refuse_odd_name(folder.name, root)
    if not folders:
        raise InputError(
            f"{root}: holds no class folders; it needs one folder of images for each class"
        )
    names: list[str] = []
    labels: list[int] = []
    empty = []
    for label, folder in enumerate(folders):
        images = list(image_names(folder, root))
        if not images:
            empty.append(folder.name)
        names += images
        labels += [label] * len(images)
    if empty:
        some = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise InputError(
            f"{root}: {len(empty)} of {len(folders)} class folders hold no image: {some}"
        )
    return tuple(names), np.array(labels, dtype=np.int64), [folder.name for folder in folders]


def image_names(folder: Path, root: Path) -> Iterator[str]:
    """Image files at any depth of ``folder``, sorted, as paths below ``root``; InputError for an odd name."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            name = path.relative_to(root).as_posix()
            refuse_odd_name(name, root)
            yield name


def refuse_odd_name(name: str, root: Path) -> None:
    """Raise InputError for a name that is not UTF-8, or holds control characters: no table or page can hold it."""
    if not is_printable(name):
        raise InputError(
            f"{root}: the name {shown(name, 200)} is not UTF-8, or holds a control character; rename it"
        )


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
    columns, rows = read_table(table, "labels of images")
    if not {"image", "label"} <= set(columns):
        raise InputError(
            f"{table}: needs the columns image,label; it has {shortened(','.join(columns), 300)}"
        )
    whole_root = root.resolve()
    names: list[str] = []
    classes: list[str] = []
    lines: dict[PurePath, int] = {}
    for line, cells in rows:
        where = f"{table}, line {line}"
        name, label = cells["image"], cells["label"]
        if not name or not label:
            raise InputError(f"{where}: an image or its label is missing")
        _check_place(name, whole_root, where)
        same = PurePath(name)  # as ./name
        if same in lines:
            raise InputError(f"{where}: {shown(name)} stands in line {lines[same]} already")
        lines[same] = line
        names.append(name)
        classes.append(label)
    class_names = sorted(set(classes), key=as_people_sort)
    number = {name: label for label, name in enumerate(class_names)}
    return tuple(names), np.array([number[c] for c in classes], dtype=np.int64), class_names


def _check_place(name: str, root: Path, where: str) -> None:
    """Raise InputError unless the image is a file in the folder ``root``, which is resolved."""
    try:
        is_inside = (root / name).resolve().is_relative_to(root)
        is_there = (root / name).is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise InputError(f"{where}: {shown(name)} cannot be looked for: {shown(error)}") from None
    if not is_inside:
        raise InputError(f"{where}: {shown(name)} lies outside the folder")
    if not is_there:
        raise InputError(f"{where}: {shown(name)} is no file")
