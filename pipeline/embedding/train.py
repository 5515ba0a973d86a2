"""Train one small model by its recipe; its weights are cached, so a machine trains it once.

If other weights come out, raise ``TRAINING_VERSION`` in ``plan/identity.py``.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import timm
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import update_bn

from dsmi_zoo._util.files import make_unless_intact, write_checksummed
from dsmi_zoo.data_catalog.models.entry import ModelEntry, TrainingRecipe

from .embed import embed, normalised

log = logging.getLogger(__name__)

STATISTICS_BATCH = 300  # most images in a pass that estimates batch norm's statistics


def train_weights(
    path: Path,
    entry: ModelEntry,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> Path:
    """Train the entry's model unless ``path`` holds its weights, and store the weights with their test accuracy.

    Parameters
    ----------
    train, test
        A view (cropped and resized images), uint8 [n, h, w, 3], and its labels, int64 [n].

    Returns
    -------
    Path
        The safetensors file, whose metadata hold ``top1``: the accuracy on ``test`` in percent.
    """

    def make() -> None:
        assert entry.recipe is not None
        assert entry.preprocessing is not None
        log.debug("training %s on %s images", entry, len(train[1]))
        with reproducible(entry.recipe.seed):
            model = timm.create_model(entry.architecture, pretrained=False, **entry.model_kwargs)
            fit(model, entry, entry.recipe, *train)
            tested = embed(model.eval(), test[0], entry.preprocessing, torch.device("cpu"))
        assert tested.predictions is not None
        top1 = 100 * float(np.mean(tested.predictions == test[1]))
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        metadata = {"top1": repr(top1), "model": str(entry)}
        content = safetensors.torch.save(state, metadata=metadata)
        write_checksummed(path, lambda file: file.write(content))

    make_unless_intact(path, "the weights", f"training {entry} again", make)
    return path


def stored_top1(path: Path) -> float:
    """Return the test accuracy, in percent, of weights that ``train_weights`` stored."""
    with safetensors.safe_open(path, framework="np") as file:
        return float(file.metadata()["top1"])


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Use one CPU thread and a fixed seed, so that every run on one machine gives the same weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def fit(
    model: torch.nn.Module,
    entry: ModelEntry,
    recipe: TrainingRecipe,
    view: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Train a network by a recipe, then re-estimate batch norm's statistics.

    Parameters
    ----------
    entry
        Gives the preprocessing of the images.
    view, labels
        uint8 [n, h, w, 3] and int64 [n]; the recipe's number of images is chosen from them.
    """
    assert entry.preprocessing is not None
    chosen = stratified(labels, recipe.train_images, recipe.seed)
    inputs = normalised(torch.from_numpy(np.array(view[chosen])), entry.preprocessing)
    targets = torch.from_numpy(labels[chosen])

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(inputs[batch]), targets[batch])

    descend(model, recipe, len(targets), loss_of)
    estimate_batch_norms(model, inputs)


def estimate_batch_norms(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Re-estimate batch norm's running statistics as the mean over the batches of these images.

    The moving averages of a training of a hundred steps lag far behind its weights: with them one network got 26% of
    the test images right; re-estimated, 99%. Weights, mode and random states stay as they are.

    Parameters
    ----------
    images : float32 [n, 3, h, w]
        The training images.

    References
    ----------
    ``torch.optim.swa_utils.update_bn``.
    """
    batches = -(-len(images) // STATISTICS_BATCH)
    # Strided, so that each batch holds all classes whatever the order of the images.
    update_bn([images[start::batches] for start in range(batches)], model)


class DescentSettings(Protocol):
    """The settings of a recipe for the steps of a training."""

    @property
    def epochs(self) -> int:
        """Passes over the images."""

    @property
    def batch_size(self) -> int:
        """Images per step."""

    @property
    def learning_rate(self) -> float:
        """The greatest learning rate."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""


def descend(
    model: torch.nn.Module,
    recipe: DescentSettings,
    n_images: int,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    after_epoch: Callable[[int], object] = lambda epoch: None,
    *,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    at_once: int | None = None,
) -> None:
    """Train by AdamW on random batches.

    Parameters
    ----------
    n_images
        The number of training images.
    loss_of
        Returns the mean loss, a scalar, of the images with these numbers, int64 [batch].
    after_epoch
        Called with the number of finished epochs.
    schedule
        Makes the schedule of the learning rate, which advances after each step; None keeps the rate constant.
    groups
        Parameter groups as torch's optimisers take them; None trains all parameters alike.
    at_once
        The most images in a forward pass; the gradients of a batch's parts add up. None passes whole batches.
    """
    trained = model.parameters() if groups is None else list(groups)
    optimiser = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scheduler = None if schedule is None else schedule(optimiser)
    for epoch in range(recipe.epochs):
        model.train()
        for batch in torch.randperm(n_images).split(recipe.batch_size):
            optimiser.zero_grad(set_to_none=True)
            for part in batch.split(at_once or len(batch)):
                (loss_of(part) * (len(part) / len(batch))).backward()
            optimiser.step()
            if scheduler is not None:
                scheduler.step()
        after_epoch(epoch + 1)


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the sorted numbers of ``count`` images, with the classes in proportion; int64 [count]."""
    from sklearn.model_selection import train_test_split

    if count >= len(labels):
        return np.arange(len(labels))
    chosen, _ = train_test_split(
        np.arange(len(labels)), train_size=count, stratify=labels, random_state=seed
    )
    return np.sort(chosen)
