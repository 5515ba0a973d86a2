"""What a monitor is given: images and labels that are checked, and an order of which every beginning is even."""

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dsmi_zoo._util.errors import InputError

from ..embedding.views import CLUSTER_SIDE
from ..measures import cluster_inputs
from ..measures.core.halves import MOST_LEFT_OUT

FEWEST_PER_CLASS = 4  # images; a standard error over images takes as many


def whole_number(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def checked_images(images: Any, labels: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Images on the CPU, float [m, c, h, w], and labels, int64 [m] numbered from 0."""
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise InputError(
            f"images come as {type(images).__name__}; pass one tensor or array [m, c, h, w]"
        )
    images = torch.as_tensor(images).detach().cpu()
    labels = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if images.ndim != 4:
        raise InputError(f"images have shape {list(images.shape)} where [m, c, h, w] is needed")
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}; pass them as the model takes them: normalised floats"
        )
    if not torch.isfinite(images).all():
        raise InputError("images hold values that are NaN or infinite; pass others")
    if labels.shape != (len(images),):
        raise InputError(
            f"labels have shape {list(labels.shape)} where [{len(images)}] is needed: one an image"
        )
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise InputError("labels are continuous; pass classes")
    classes, numbered = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"the {len(images)} images are of {len(classes)} class; at least two are needed"
        )
    return images, numbered.astype(np.int64)


def tell_of_small_classes(labels: np.ndarray) -> None:
    sizes = np.bincount(labels)
    small = sizes[sizes < FEWEST_PER_CLASS]
    if small.sum() > MOST_LEFT_OUT * len(labels):
        warnings.warn(
            f"monitor: {len(small)} of {len(sizes)} classes have fewer than {FEWEST_PER_CLASS} images, so there is no "
            "standard error over images; pass more of them",
            stacklevel=3,
        )


def evenly_interleaved(labels: np.ndarray) -> np.ndarray:
    """An order of which every beginning holds the classes as evenly as can be; within a class it is drawn, seeded."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels[drawn] == label)
        turn[of_class] = np.arange(len(of_class))
    return drawn[np.lexsort((labels[drawn], turn))]


def clusters_of(images: torch.Tensor, labels: np.ndarray) -> np.ndarray | None:
    """Clusters of the inputs, as many as classes, from images of at most 64 x 64 pixels; None if there are too few."""
    if max(images.shape[-2:]) > CLUSTER_SIDE:
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), CLUSTER_SIDE)
    try:
        return cluster_inputs(images.flatten(1).double().numpy(), len(np.unique(labels)))
    except ValueError as error:
        warnings.warn(f"monitor: no DSMI(Z;X): {error}", stacklevel=5)
        return None


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
