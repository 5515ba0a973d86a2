"""The recipe by which all models are fine-tuned: its settings, and the parts of the images that it holds out."""

from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from dsmi_zoo._util.files import content_hash

# Increment it when pipeline/embedding/finetune.py gives other predictions for the same recipe.
FINETUNING_VERSION = 1


class Steps(NamedTuple):
    """The steps of one training on a number of images, as `embedding.train.descend` takes them."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    total: int


class FineTuning(BaseModel):
    """The recipe: AdamW trains all weights of a network, with a new classifier; docs/choose.md describes it.

    Attributes
    ----------
    epochs, min_steps
        Passes over the training images; more if ``min_steps`` steps need them.
    learning_rate
        The peak: the rate rises linearly over the first ``warm_up`` of the steps, and falls to 0 as a cosine.
    classifier_rate
        Factor on the learning rate of the new classifier.
    folds
        Parts of the images; each is held out once, while a network is trained on all others.
    few_images, folds_of_many
        With more than ``few_images`` images, only ``folds_of_many`` folds are held out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = 5
    min_steps: int = 100
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    classifier_rate: float = 10.0
    warm_up: float = 0.1
    folds: int = 5
    few_images: int = 2000
    folds_of_many: int = 2
    seed: int = 0

    def steps(self, images: int) -> Steps:
        """Return the steps of a training on this many images; no batch is a single image, which batch norm refuses."""
        batch = min(self.batch_size, images)
        while batch > 2 and images % batch == 1:
            batch -= 1
        per_epoch = -(-images // batch)
        epochs = max(self.epochs, -(-self.min_steps // per_epoch))
        return Steps(epochs, batch, self.learning_rate, self.weight_decay, epochs * per_epoch)

    def held_out(self, classes: np.ndarray) -> list[np.ndarray]:
        """Return the indices of the images that each training holds out: int64, disjoint, every class spread evenly.

        Parameters
        ----------
        classes
            The class of each image, int64 [m].
        """
        fold_of = folds_of(classes, self.folds, self.seed)
        used = self.folds if len(classes) <= self.few_images else self.folds_of_many
        parts = [np.flatnonzero(fold_of == fold) for fold in range(used)]
        return [part for part in parts if len(part)]

    def identity(self, embedding_id: str) -> str:
        """Return the identity of a fine-tuning: the recipe, and the weights and images of an embedding."""
        recipe: dict[str, Any] = self.model_dump(mode="json")
        return content_hash(FINETUNING_VERSION, recipe, embedding_id)


def folds_of(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal the images of each class out to the folds in turn, in random order; int64 [m].

    Each class starts at the fold after the previous one's last, so that folds differ by one image at most.
    """
    generator = np.random.default_rng(seed)
    fold_of = np.empty(len(classes), dtype=np.int64)
    dealt = 0
    for label in np.unique(classes):
        images = generator.permutation(np.flatnonzero(classes == label))
        fold_of[images] = (dealt + np.arange(len(images))) % folds
        dealt += len(images)
    return fold_of
