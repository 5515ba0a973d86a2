"""CIFAR-10, MNIST and STL-10 as torchvision keeps them, for those who have them or ask for the download."""

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
    """The training or the test images of a data set.

    Returns
    -------
    images : uint8 [n, h, w] or [n, h, w, 3]
    labels : int64 [n]
    classes : names of the classes

    Raises
    ------
    InputError
        When the files are not there, or are not what they should be.
    """
    opened = _opened(name, root, train, download=False)
    pixels = np.asarray(opened.data)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = opened.labels if name == "stl10" else opened.targets
    return pixels, np.asarray(labels, dtype=np.int64), tuple(opened.classes)


def download(name: str, root: Path) -> None:
    """Fetch a data set into ``root``, unless it is there."""
    for train in (True, False):
        _opened(name, root, train, download=True)


def _opened(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    part: dict[str, Any] = (
        {"split": "train" if train else "test"} if name == "stl10" else {"train": train}
    )
    try:
        return kind(str(root), **part, download=download)
    # What torchvision raises for damaged files is no part of what it promises.
    except Exception as error:
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset {name}: torchvision cannot open it in {root}: {reason}"
        ) from None
