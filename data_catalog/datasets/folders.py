"""A folder with one folder of images per class."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError

from .account import Account
from .image_files import Listing, refuse_odd_name
from .inventory import (
    LOOSE,
    FoundFile,
    account_of,
    files_below,
    is_ignored_folder,
    leads_upwards,
    with_alike_names,
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
