"""CIFAR-10, MNIST and STL-10 in torchvision's folders."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

TORCHVISION_SETS = {"cifar10": "CIFAR10", "mnist": "MNIST", "stl10": "STL10"}


@cache
def torchvision_images(
    name: str, root: Path, train: bool
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the training or the test images of a data set.

    Returns
    -------
    images : uint8 [n, h, w] or [n, h, w, 3]
    labels : int64 [n]
    classes : the classes' names

    Raises
    ------
    InputError
        When the files are missing or damaged.
    """
    opened = _opened(name, root, train, download=False)
    pixels = np.asarray(opened.data)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = opened.labels if name == "stl10" else opened.targets
    return pixels, np.asarray(labels, dtype=np.int64), tuple(opened.classes)


def download(name: str, root: Path) -> None:
    """Download a data set into ``root``, unless it is there."""
    for train in (True, False):
        _opened(name, root, train, download=True)


def _opened(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    part: dict[str, Any] = {"train": train}
    if name == "stl10":
        part = {"split": "train" if train else "test"}
    try:
        return kind(str(root), **part, download=download)
    except Exception as error:  # torchvision does not document what it raises for damaged files
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset {name}: torchvision cannot open it in {root}: {reason}"
        ) from None
