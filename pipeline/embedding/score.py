"""Measure any network on labelled images: embed them, and compute every score, in one call."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import signature_with

from ..measures import measure
from ..measures.core.checks import as_count
from ..measures.core.conversion import DEVICES, as_array
from ..measures.core.registry import Value
from ..measures.run import SETTINGS, checked_settings, is_group, names_of
from ..networks.forward import activations, evaluation_mode, random_states_kept
from ..networks.layers import check_layer, device_and_dtype, unwrapped

Images = torch.Tensor | np.ndarray | Dataset | Iterable[Any]


@signature_with(SETTINGS)
def score(
    model: torch.nn.Module,
    images: Images,
    labels: ArrayLike | None = None,
    *,
    scores: str | Iterable[str] | None = None,
    layer: str | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    image_ids: ArrayLike | None = None,
    input_clusters: ArrayLike | None = None,
    **settings: Any,
) -> dict[str, Value]:
    """Embed images with a network and measure the embedding.

    The network's mode and device and all random states are left as they were.

    Parameters
    ----------
    model : torch.nn.Module
        A timm model, or any module that takes a batch of images.
    images : tensor or array [n, c, h, w], Dataset, DataLoader, or iterable of batches
        Images as the model takes them: normalised floats. A Dataset or loader may give pairs (images, labels).
    labels : [n], optional
        The class of each image; by default those that the Dataset or loader gives. Without labels, only the scores that
        need none are computed.
    scores : str or iterable of str, optional
        The columns to compute, as for `measure`; by default all.
    layer : str, optional
        A name of ``model.named_modules()``, whose output is the embedding, or ``.`` for the model's own; by default the
        penultimate layer: a timm model's pre-logits, or the input of the ``nn.Linear`` that ends any other model.
    batch_size : int, optional
        The most images in a forward pass; by default chosen by the device.
    device : str or torch.device, optional
        Where to compute; by default where the model is. On a GPU the embedding is measured there too.
    image_ids, input_clusters : [n], optional
        As for `measure`.
    **settings
        The settings of `measure`, such as ``sigma`` and ``t``.

    Returns
    -------
    dict
        As `measure` returns them.

    Raises
    ------
    ValueError
        As `measure`; also for images that are not floats [n, c, h, w], a layer that the model lacks, or a loader that
        changes the order of the data, together with labels, ids or clusters.
    """
    wanted = scores if is_group(scores) else names_of(scores)
    checked_settings(settings, "score")
    check_layer(model, layer)
    if batch_size is not None:
        batch_size = as_count(batch_size, "batch_size")
    in_order = any(one is not None for one in (labels, image_ids, input_clusters))
    embeddings, given = [], []
    with random_states_kept(), _on_device(model, device):  # a loader draws random numbers too
        place, _ = device_and_dtype(model)
        for pixels, of_batch in _batches(images, in_order, batch_size):
            with evaluation_mode(unwrapped(model)):
                embeddings.append(activations(model, pixels, layer, batch_size))
            given.append(of_batch)
    if not embeddings:
        raise InputError("there are no images; pass at least one batch")
    if labels is None and all(of_batch is not None for of_batch in given):
        labels = np.concatenate([as_array(of_batch, "labels") for of_batch in given])
    Z = np.concatenate(embeddings)
    broken = ~np.isfinite(Z).all(axis=1)
    if broken.any():
        raise InputError(
            f"the model gives NaN or infinite values for {broken.sum()} of {len(Z)} images, the first of them number "
            f"{broken.argmax()}; look at its weights and at the images"
        )
    there = torch.from_numpy(Z).to(place) if place.type in DEVICES else Z
    return measure(
        there, labels, scores=wanted, image_ids=image_ids, input_clusters=input_clusters, **settings
    )


def _batches(
    images: Images, in_order: bool, batch_size: int | None
) -> Iterator[tuple[torch.Tensor, Any]]:
    """Yield batches of images, float [b, c, h, w], and the labels that come with them, or None."""
    loader: Any = images
    if isinstance(images, torch.Tensor | np.ndarray):
        loader = [torch.as_tensor(images)]
    elif not isinstance(images, Iterable | Dataset) or isinstance(images, str | bytes):
        raise InputError(
            f"images are a {type(images).__name__}; pass a tensor [n, c, h, w], a Dataset or a loader"
        )
    # PyTorch's IterableDataset has a __getitem__, which only raises.
    is_stream = isinstance(loader, IterableDataset)
    is_indexed = hasattr(loader, "__getitem__") and not isinstance(
        loader, IterableDataset | DataLoader | list | tuple
    )
    if is_indexed and len(loader):
        first, _ = _parted(loader[0])  # a loader would fail to join anything but tensors
        _check(first[None] if isinstance(first, torch.Tensor) else first)
    if is_indexed or is_stream:
        loader = DataLoader(loader, batch_size=batch_size or 64)
    if in_order and not _keeps_order(loader):
        raise InputError(
            "the loader has an order of its own, as with shuffle=True, so labels, ids and clusters would not fit; "
            "let it give the labels, or pass shuffle=False"
        )
    for batch in loader:
        pixels, labels = _parted(batch)
        _check(pixels)
        if len(pixels):
            yield pixels, labels


def _parted(batch: Any) -> tuple[Any, Any]:
    """Return images and their labels, or None."""
    if not isinstance(batch, tuple | list):
        return batch, None
    return batch[0], batch[1] if len(batch) > 1 else None


def _keeps_order(loader: Any) -> bool:
    """Return whether batches come in the order of the data; only PyTorch's loaders can be checked."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return True
    # Without a batch sampler the sampler gives whole batches; a user's batch sampler need not have a sampler.
    sampler: Any = loader.sampler
    if loader.batch_sampler is not None:
        sampler = getattr(loader.batch_sampler, "sampler", None)
    return isinstance(sampler, SequentialSampler)


def _check(images: Any) -> None:
    """Raise InputError unless these are a batch of images as a model takes them."""
    if not isinstance(images, torch.Tensor):
        raise InputError(
            f"images come as {type(images).__name__}; give the data set a transform that makes tensors"
        )
    if images.ndim != 4:
        raise InputError(f"images have shape {list(images.shape)} where [n, c, h, w] is needed")
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}; pass them as the model takes them: normalised floats"
        )


@contextmanager
def _on_device(model: torch.nn.Module, device: str | torch.device | None) -> Iterator[None]:
    """Move the model to a device, and put it back where it was."""
    before, _ = device_and_dtype(model)
    if before.type == "meta":
        raise InputError(
            "the model is on the meta device, where it has no weights; load them first"
        )
    try:
        wanted = before if device is None else torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # the latter is a torch without CUDA
        reason = str(error).split("\n")[0]
        raise InputError(
            f"device={device!r} cannot be used here ({reason}); pass cpu, or leave it out"
        ) from None
    if wanted == before:
        yield
        return
    if wanted.type == "meta":
        raise InputError("device='meta' computes nothing; pass cpu, cuda or leave it out")
    try:
        model.to(wanted)
        yield
    finally:
        model.to(before)
