"""The images of a monitor: checked, drawn from a data set, and in a class-balanced order."""

import warnings
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dsmi_zoo._util.errors import InputError

from ..embedding.views import CLUSTER_SIDE
from ..measures import cluster_inputs
from ..measures.core.halves import MOST_LEFT_OUT

FEWEST_PER_CLASS = 4  # images that a standard error over images needs


def whole_number(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def checked_images(images: Any, labels: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Return images on the CPU, float [m, c, h, w], and labels, int64 [m] numbered from 0."""
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise InputError(
            f"images are {type(images).__name__}; pass one tensor or array [m, c, h, w]"
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
        raise InputError("images have NaN or infinite values")
    if labels.shape != (len(images),):
        raise InputError(
            f"labels have shape {list(labels.shape)} where [{len(images)}] is needed, one per image"
        )
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise InputError("labels are continuous; pass classes")
    classes, numbered = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"the {len(images)} images have {len(classes)} class; at least two are needed"
        )
    return images, numbered.astype(np.int64)


def warn_of_small_classes(labels: np.ndarray) -> None:
    sizes = np.bincount(labels)
    small = sizes[sizes < FEWEST_PER_CLASS]
    if small.sum() > MOST_LEFT_OUT * len(labels):
        warnings.warn(
            f"monitor: {len(small)} of {len(sizes)} classes have fewer than {FEWEST_PER_CLASS} images, so there is no "
            "standard error over images; pass more of them",
            stacklevel=3,
        )


def clusters_of(images: torch.Tensor, labels: np.ndarray) -> np.ndarray | None:
    """Cluster the inputs at 64 x 64 pixels or less, into as many clusters as classes; None if there are too few."""
    if max(images.shape[-2:]) > CLUSTER_SIDE:
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), CLUSTER_SIDE)
    try:
        return cluster_inputs(images.flatten(1).double().numpy(), len(np.unique(labels)))
    except ValueError as error:
        warnings.warn(f"monitor: no DSMI(Z;X): {error}", stacklevel=5)
        return None


def draw_from(
    source: Dataset[Any] | DataLoader[Any], most: int, per_class: int
) -> tuple[torch.Tensor, np.ndarray]:
    """Draw up to ``most`` images of a data set, or ``per_class`` of each class if that is more, with the seed 0.

    If the data set has ``targets``, as torchvision's do, the classes are balanced; otherwise the first images of a
    random order are taken.

    Returns
    -------
    images : float [n, c, h, w]
    labels : int64 [n]

    Raises
    ------
    InputError
        When items are not pairs of a tensor and a class, or images have several sizes.
    """
    dataset: Any = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(dataset, IterableDataset):
        items: Iterable[Any] = islice(dataset, most)
    else:
        order = np.random.default_rng(0).permutation(len(dataset))
        targets = getattr(dataset, "targets", None)
        if targets is not None and len(targets) == len(dataset):
            order = order[np.argsort(_rank_in_class(np.asarray(targets)[order]), kind="stable")]
            most = max(most, per_class * len(np.unique(targets)))
        items = (dataset[int(index)] for index in order[:most])
    images, labels = [], []
    for item in items:
        is_pair = isinstance(item, tuple | list) and len(item) >= 2
        if not is_pair or not isinstance(item[0], torch.Tensor):
            raise InputError(
                "the data set has no pairs (image tensor, label); pass tensors of images and labels"
            )
        images.append(item[0])
        labels.append(int(item[1]))
    if len({tuple(image.shape) for image in images}) != 1:
        raise InputError(
            "the data set has images of several shapes, or none; pass a tensor of images of one size"
        )
    return torch.stack(images), np.array(labels, dtype=np.int64)


def class_balanced_order(labels: np.ndarray) -> np.ndarray:
    """Return a seeded permutation whose prefixes are class-balanced."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    return drawn[np.lexsort((labels[drawn], _rank_in_class(labels[drawn])))]


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Return each element's number among those of its class, counted from 0."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        rank[of_class] = np.arange(len(of_class))
    return rank
