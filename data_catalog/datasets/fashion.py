"""Fashion-MNIST in three disjoint parts, from Debian's package or from torchvision's folder."""

import gzip
from functools import cache
from pathlib import Path

import numpy as np

from dsmi_zoo._util.errors import InputError

from .base import Part, split_numbers

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TRAIN, TEST, VALIDATION = 900, 2000, 500
SIDE = 28
HOW_TO_GET_IT = (
    "install Debian's package dataset-fashion-mnist (apt-get install dataset-fashion-mnist), or pass torchvision's "
    "folder by --data-root"
)


@cache
def fashion_split(
    part: Part, seed: int = 0, root: Path | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One of three disjoint, stratified parts: 900 of the 60,000 training images; 2,000 and 500 of the 10,000 others.

    Parameters
    ----------
    part, seed
        As for ``digits_split``: 900 are ``train``, 2,000 ``test``, 500 ``validation``.
    root
        A folder that holds the four files, or torchvision's folder ``FashionMNIST/raw`` with them; None takes that of
        Debian's package.

    Returns
    -------
    images : uint8 [n, 28, 28]
    labels : int64 [n]
    numbers : int64 [n]
        Each image's number in the training images, or in the test images.

    Raises
    ------
    InputError
        When the files are not there, or are not what they should be.

    References
    ----------
    Xiao, Rasul and Vollgraf, Fashion-MNIST (arXiv 1708.07747).
    """
    folder = _folder(root)
    images, labels = _read(folder, "train" if part == "train" else "t10k")
    if part == "train":
        # What split_numbers leaves over is not used.
        numbers = split_numbers(labels, "train", train=TRAIN, test=TEST, seed=seed)
    else:
        others = split_numbers(labels, "test", train=0, test=TEST + VALIDATION, seed=seed)
        numbers = others[split_numbers(labels[others], part, train=0, test=TEST, seed=seed)]
    return images[numbers], labels[numbers], numbers


def _folder(root: Path | None) -> Path:
    if root is None:
        candidates = [DEBIAN]
    else:
        candidates = [root, root / "FashionMNIST" / "raw"]
    for folder in candidates:
        if _file(folder, "t10k-labels-idx1-ubyte") is not None:
            return folder
    where = f"in --data-root {root}" if root else f"at {DEBIAN}"
    raise InputError(f"the data set fashion is not there {where}; {HOW_TO_GET_IT}")


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of one of the two sets."""
    count = 60_000 if prefix == "train" else 10_000
    pixels = _values(folder, f"{prefix}-images-idx3-ubyte", 16, count * SIDE * SIDE)
    labels = _values(folder, f"{prefix}-labels-idx1-ubyte", 8, count)
    if labels.max() >= len(CLASSES):
        raise InputError(
            f"{folder}: the labels of fashion are 0 to 9, and {labels.max()} is among them"
        )
    return pixels.reshape(count, SIDE, SIDE), labels.astype(np.int64)


def _values(folder: Path, name: str, header: int, count: int) -> np.ndarray:
    """The bytes after the header of an IDX file, uint8 [count]; no more of it is read."""
    path = _file(folder, name)
    if path is None:
        raise InputError(f"{folder}: {name} is missing; {HOW_TO_GET_IT}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + count + 1)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {HOW_TO_GET_IT}") from None
    if len(content) != header + count:
        raise InputError(
            f"{path}: is not Fashion-MNIST's file of that name, by its size; {HOW_TO_GET_IT}"
        )
    return np.frombuffer(content, np.uint8, count, header)
