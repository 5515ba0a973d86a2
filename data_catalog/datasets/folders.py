"""Image files: those of a folder per class, and which of them are copies or unreadable."""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.text import is_printable, shown

from .account import WHOLE, Account
from .decoding import read_image
from .deep_pixels import UnknownWhite
from .inventory import (
    LOOSE,
    FoundFile,
    account_of,
    files_below,
    is_ignored_folder,
    leads_upwards,
    with_alike_names,
)

BEGINNING_BYTES = 4096

Value = TypeVar("Value")


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

    ``white`` is the level of white of images of more than 8 bits; by default each image decides. Each file is hashed
    once, until the data set is opened again.
    """

    name: str
    root: Path
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: dict[int, str]
    classifier_width: int | None = None
    account: Account = WHOLE
    white: float | None = None
    _hashes: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hashes": {}}  # workers need none

    def path(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB, upright, 8 bits a channel."""
        return read_image(self.path(number), self.white)

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the file."""
        name = self.names[number]
        if name not in self._hashes:
            self._hashes[name] = self._of_file(_sha256, number)
        return self._hashes[name]

    def size(self, number: int) -> int:
        """Return the bytes of the file."""
        return self._of_file(os.path.getsize, number)

    def beginning(self, number: int) -> bytes:
        """Return the first bytes of the file."""
        return self._of_file(_beginning, number)

    def _of_file(self, read: Callable[[str], Value], number: int) -> Value:
        path = f"{self.root}/{self.names[number]}"  # tens of thousands of times: a Path would take longer than reading
        try:
            return read(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None

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


def _sha256(path: str) -> str:
    return file_sha256(Path(path))


def _beginning(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)  # half the time of a file object
    try:
        return os.read(file, BEGINNING_BYTES)
    finally:
        os.close(file)


def copies(
    images: ImageFiles, numbers: Iterable[int], *, few_are_hashed: bool = False
) -> list[list[int]]:
    """Return groups of images that have the same bytes.

    Parameters
    ----------
    numbers
        The images to compare.
    few_are_hashed
        Hash only files whose size and beginning are the same; otherwise all hashes are needed anyway.
    """
    steps: list[Callable[[int], Hashable]] = [images.fingerprint]
    if few_are_hashed:
        steps = [images.size, images.beginning, images.fingerprint]
    groups = [list(numbers)]
    for step in steps:
        groups = [part for group in groups for part in _parts(group, step)]
    return groups


def _parts(group: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Split a group by a key, and return the parts of at least two."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for number in group:
        parts[key(number)].append(number)
    return [part for part in parts.values() if len(part) > 1]


def refuse_odd_name(name: str, root: Path) -> None:
    """Raise InputError for a name that no table or page can hold."""
    if not is_printable(name):
        raise InputError(
            f"{root}: the name {shown(name, 200)} is not UTF-8, or holds a control character; rename it"
        )


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without hidden folders and those of the system."""
    place = os.path.realpath(root)
    try:
        return sorted(
            path
            for path in root.iterdir()
            if path.is_dir() and not is_ignored_folder(path.name) and not leads_upwards(path, place)
        )
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}") from None


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
    names, labels, account = images_by_folder(folders, root)
    classes = [folder.name for folder in folders]
    return Listing(names, labels, classes, with_alike_names(account, classes))


def images_by_folder(
    folders: Sequence[Path], root: Path
) -> tuple[tuple[str, ...], np.ndarray, Account]:
    """List the images in folders that lie side by side.

    Returns
    -------
    names
        The images' paths below ``root``.
    numbers : int64 [n]
        The index of each image's folder.
    account
        All other files in the folders, and beside them.
    """
    names: list[str] = []
    numbers: list[int] = []
    others: list[FoundFile] = []
    empty: list[str] = []
    for number, folder in enumerate(folders):
        files = files_below(folder, root)
        images = [file.name for file in files if not file.reason]
        for name in images:
            refuse_odd_name(name, root)
        if not images:
            what_else = "; ".join(str(part) for part in account_of(files).left_out)
            empty.append(f"{folder.name} ({what_else})" if what_else else folder.name)
        names += images
        numbers += [number] * len(images)
        others += [file for file in files if file.reason]
    if empty:
        some = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise InputError(
            f"{root}: {len(empty)} of {len(folders)} class folders hold no image: {some}"
        )
    parent = folders[0].parent
    beside = files_below(parent, root, skip={folder.name for folder in folders})
    others += [file if file.reason else file._replace(reason=LOOSE) for file in beside]
    return tuple(names), np.array(numbers, dtype=np.int64), account_of(others)
