"""The images of a monitor: checked, drawn from a data set, and in a class-balanced order."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

from ..embedding.views import CLUSTER_SIDE
from ..measures import cluster_inputs
from ..measures.core.halves import MAX_LEFT_OUT
from ..networks.forward import random_states_kept

MIN_PER_CLASS = 4  # images that a standard error over images needs
_SHAPES = {
    2: "; of one-hot vectors pass labels.argmax(1)",
    3: "; a label per pixel has no place here, pass a class per image",
}
IMAGE_KEYS = ("pixel_values", "image", "images", "img")
LABEL_KEYS = ("labels", "label", "targets", "target")


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
    try:
        images = torch.as_tensor(images).detach().cpu()
        is_tensor = isinstance(labels, torch.Tensor)
        labels = labels.detach().cpu().numpy() if is_tensor else np.asarray(labels)
    except (TypeError, ValueError) as error:  # arrays of text, labels of several lengths
        raise InputError(
            f"images or labels are no arrays of numbers: {shortened(str(error))}"
        ) from None
    if images.ndim != 4:
        raise InputError(f"images have shape {list(images.shape)} where [m, c, h, w] is needed")
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}; pass them as the model takes them: normalised floats"
        )
    if not torch.isfinite(images).all():
        raise InputError("images have NaN or infinite values")
    if labels.shape != (len(images),):
        hint = (
            _SHAPES.get(labels.ndim, "") if len(labels.shape) and len(labels) == len(images) else ""
        )
        raise InputError(
            f"labels have shape {list(labels.shape)} where [{len(images)}] is needed, one per image{hint}"
        )
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise InputError("labels are continuous; pass classes")
    try:
        classes, numbered = np.unique(labels, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels})
        raise InputError(
            f"labels are of several types ({', '.join(kinds)}); pass all as numbers or all as text"
        ) from None
    if len(classes) < 2:
        raise InputError(
            f"the {len(images)} images have {len(classes)} class; at least two are needed"
        )
    return images, numbered.astype(np.int64)


def warning_of_small_classes(labels: np.ndarray) -> str | None:
    """Return a line if too many images are of classes without a standard error; None otherwise."""
    sizes = np.bincount(labels)
    small = sizes[sizes < MIN_PER_CLASS]
    if small.sum() <= MAX_LEFT_OUT * len(labels):
        return None
    return (
        f"{len(small)} of {len(sizes)} classes have fewer than {MIN_PER_CLASS} images, so there is no standard "
        "error over images; pass more of them"
    )


def clusters_of(images: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    """Cluster the inputs at 64 x 64 pixels or less, into as many clusters as classes; ValueError if too few differ."""
    if max(images.shape[-2:]) > CLUSTER_SIDE:
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), CLUSTER_SIDE)
    return cluster_inputs(images.flatten(1).double().numpy(), len(np.unique(labels)))


def draw_from(
    source: Dataset[Any] | DataLoader[Any], most: int, per_class: int
) -> tuple[torch.Tensor, np.ndarray]:
    """Draw up to ``most`` images from a data set, or ``per_class`` of each class if that is more, with seed 0.

    If the data set has ``targets``, as torchvision's do, the classes are balanced; otherwise the first images of a
    random order are taken. From a loader, only images that its sampler and ``drop_last`` keep are drawn, and its
    ``collate_fn`` makes them. Random states are restored.

    Returns
    -------
    images : float [n, c, h, w]
    labels : [n]

    Raises
    ------
    InputError
        When items are not pairs of an image and a class, or images have several sizes.
    """
    loader = source if isinstance(source, DataLoader) else None
    dataset: Any = source if loader is None else loader.dataset
    with random_states_kept(), _generators_kept(loader):
        _seed_everything()
        if isinstance(dataset, IterableDataset):
            parts: Iterator[Any] = islice(dataset, most) if loader is None else iter(loader)
        else:
            indices = _indices(loader, dataset, most)
            order = indices[np.random.default_rng(0).permutation(len(indices))]
            targets: Any = getattr(dataset, "targets", None)
            has_classes = targets is not None and len(targets) == len(dataset)
            if has_classes and np.ndim(targets[0]) == 0:
                classes = np.asarray(targets)[order]
                order = order[np.argsort(_rank_in_class(classes), kind="stable")]
                most = max(most, per_class * len(np.unique(classes)))
            parts = _fetched(dataset, order[:most], loader)
        try:
            return _joined(parts, most)
        except InputError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {shortened(str(error), 200)}"
            raise InputError(f"the data set cannot be read: {reason}") from error


@contextmanager
def _generators_kept(loader: DataLoader[Any] | None) -> Iterator[None]:
    """Seed a loader's own generators with 0 for the block, then restore them, because training may use them too."""
    owners = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    found = (getattr(owner, "generator", None) for owner in owners)
    generators = [one for one in found if isinstance(one, torch.Generator)]
    states = [one.get_state() for one in generators]
    try:
        for one in generators:
            one.manual_seed(0)
        yield
    finally:
        for one, state in zip(generators, states, strict=True):
            one.set_state(state)


def _seed_everything() -> None:
    """Seed the global random states, from which samplers and augmentations draw."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def _indices(loader: DataLoader[Any] | None, dataset: Any, most: int) -> np.ndarray:
    """Return the data set's indices, or those that a loader's sampler gives in one epoch, each once."""
    if loader is None:
        return np.arange(len(dataset))
    batched: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    try:
        batches = len(batched)
    except TypeError:  # an infinite sampler
        batches = most
    given: list[Any] = []
    for batch in islice(batched, batches):
        given += [batch] if loader.batch_sampler is None else list(batch)
    if not all(isinstance(index, int | np.integer) for index in given):
        raise InputError(
            "the loader's sampler gives no whole numbers; pass tensors of images and labels"
        )
    if not given:
        raise InputError(
            "the loader gives no batch (drop_last?); pass one with a smaller batch_size"
        )
    return np.unique(np.asarray(given, dtype=np.int64))


def _fetched(dataset: Any, order: np.ndarray, loader: DataLoader[Any] | None) -> Iterator[Any]:
    """Yield the items as batches, made by the loader's ``collate_fn``."""
    if loader is None:
        yield from (dataset[int(index)] for index in order)
    elif loader.batch_sampler is None:
        for index in order:
            yield loader.collate_fn(dataset[int(index)])
    else:
        size = loader.batch_size or 32
        for start in range(0, len(order), size):
            yield loader.collate_fn([dataset[int(index)] for index in order[start : start + size]])


def _joined(parts: Iterable[Any], most: int) -> tuple[torch.Tensor, np.ndarray]:
    """Join batches and single images until there are ``most`` images."""
    images: list[torch.Tensor] = []
    labels: list[Any] = []
    for part in parts:
        some, classes = _pair(part)
        images += list(some)
        labels += classes
        if len(images) >= most:
            break
    if len({tuple(image.shape) for image in images}) != 1:
        raise InputError(
            "the data set has images of several shapes, or none; pass a tensor of images of one size"
        )
    return torch.stack(images[:most]), _label_array(labels[:most])


def _pair(part: Any) -> tuple[torch.Tensor, list[Any]]:
    """Return the images [b, c, h, w] and the labels of a batch or of one item."""
    image, label = _of_dict(part) if isinstance(part, Mapping) else _of_tuple(part)
    if not isinstance(image, torch.Tensor) or image.ndim not in (3, 4):
        raise InputError(
            "the data set has no pairs (image tensor, label); pass tensors of images and labels"
        )
    if image.ndim == 3:
        return image[None], [label]
    classes = list(label) if isinstance(label, list | tuple | np.ndarray | torch.Tensor) else []
    if len(classes) != len(image):
        raise InputError(f"a batch has {len(image)} images and {len(classes)} labels")
    return image, classes


def _of_tuple(part: Any) -> tuple[Any, Any]:
    if not isinstance(part, tuple | list) or len(part) < 2:
        raise InputError(
            "the data set has no pairs (image tensor, label); pass tensors of images and labels"
        )
    if len(part) > 2:
        kinds = ", ".join(type(value).__name__ for value in part)
        raise InputError(
            f"the data set gives {len(part)} values ({kinds}), of which any may be the label; pass pairs (image, label)"
        )
    return part[0], part[1]


def _of_dict(part: Mapping[Any, Any]) -> tuple[Any, Any]:
    images = [name for name in IMAGE_KEYS if name in part]
    labels = [name for name in LABEL_KEYS if name in part]
    if len(images) != 1 or len(labels) != 1:
        names = ", ".join(map(str, part))
        raise InputError(
            f"the data set gives dicts ({shortened(names)}) without one image ({', '.join(IMAGE_KEYS)}) and one label "
            f"({', '.join(LABEL_KEYS)}); pass pairs (image, label)"
        )
    return part[images[0]], part[labels[0]]


def _label_array(labels: Sequence[Any]) -> np.ndarray:
    """Return labels as one array; InputError for a label that is not a single class."""
    plain = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    for label in plain:
        if isinstance(label, list | tuple | Mapping):
            raise InputError(
                "the data set's labels are vectors or maps, not a class per image; of one-hot vectors take argmax"
            )
    of_text = {isinstance(label, str) for label in plain}
    return np.asarray(plain, dtype=object if len(of_text) > 1 else None)


def class_balanced_order(labels: np.ndarray) -> np.ndarray:
    """Return a seeded permutation whose prefixes are class-balanced."""
    drawn = np.random.default_rng(0).permutation(len(labels))
    return drawn[np.lexsort((labels[drawn], _rank_in_class(labels[drawn])))]


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Return each element's position within its class, counted from 0."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        rank[of_class] = np.arange(len(of_class))
    return rank
