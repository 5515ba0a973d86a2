"""A folder with one folder of images per class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError

from .image_files import SUFFIXES, Listing, refuse_odd_name


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
    return Listing(names, labels, [folder.name for folder in folders])


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
