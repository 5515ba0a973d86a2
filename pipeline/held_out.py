"""A seeded choice of images from a data set, for what measures a network again and again."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..data_catalog.errors import InputError


def drawn_from(
    source: Dataset[Any] | DataLoader[Any], most: int, per_class: int
) -> tuple[torch.Tensor, np.ndarray]:
    """Up to ``most`` images of a data set, or ``per_class`` of each class if that is more, and their labels.

    The order is drawn by the seed 0. Where the data set tells its labels beforehand (``targets``, as torchvision's do),
    the classes are taken as evenly as can be; else the first images of the order are.

    Returns
    -------
    images : float [n, c, h, w]
    labels : int64 [n]

    Raises
    ------
    InputError
        For items that are no pairs of a tensor and a class, or images of several sizes.
    """
    dataset = source.dataset if isinstance(source, DataLoader) else source
    images, labels = [], []
    for item in _items(dataset, most, per_class):
        if (
            not isinstance(item, tuple | list)
            or len(item) < 2
            or not isinstance(item[0], torch.Tensor)
        ):
            raise InputError(
                "the data set gives no pairs (image tensor, label); pass tensors of images and labels"
            )
        images.append(item[0])
        labels.append(int(item[1]))
    if len({tuple(image.shape) for image in images}) != 1:
        raise InputError(
            "the data set gives images of several shapes, or none; pass a tensor of images of one size"
        )
    return torch.stack(images), np.array(labels, dtype=np.int64)


def _items(dataset: Any, most: int, per_class: int) -> Iterator[Any]:
    if isinstance(dataset, IterableDataset):
        yield from islice(dataset, most)
        return
    order = np.random.default_rng(0).permutation(len(dataset))
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):
        order = _evenly(order, np.asarray(targets))
        most = max(most, per_class * len(np.unique(targets)))
    for index in order[:most]:
        yield dataset[int(index)]


def _evenly(order: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The order with the first of each class before the second of any."""
    seen: dict[Any, int] = {}
    turns = []
    for index in order:
        turns.append(seen.get(targets[index], 0))
        seen[targets[index]] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")]
