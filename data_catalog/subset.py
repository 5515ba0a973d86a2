"""The shared subset: the same images, in the same order, for every model on every machine."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_catalog.datasets import LabelledImages
from data_catalog.errors import InputError


@dataclass(frozen=True)
class Subset:
    """Which images of a data set are embedded.

    Attributes
    ----------
    numbers : int64 [n]
        Each image's number in its data set.
    labels : int64 [n]
    names : n names of images
    digest : str
        Hash of names, contents and labels.
    """

    dataset: str
    numbers: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digest: str

    @property
    def n_classes(self) -> int:
        """How many classes the subset holds."""
        return len(np.unique(self.labels))

    def table(self) -> pd.DataFrame:
        """One row an image, in the embedding's order."""
        return pd.DataFrame({"image": self.names, "label": self.labels, "number": self.numbers})


def select_subset(images: LabelledImages, images_per_class: int | None = None, seed: int = 0) -> Subset:
    """Choose images, sorted by label, then name.

    The choice depends on names and seed, not on the order in which the data set lists its images.

    Parameters
    ----------
    images_per_class
        So many of every class, drawn without replacement; None takes all images.

    Raises
    ------
    InputError
        When a class has too few images, or there are fewer than two classes.
    """
    order = np.lexsort((np.array(images.names), images.labels))
    classes, counts = np.unique(images.labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{images.name} has {len(classes)} class; at least two are needed")
    if images_per_class is not None:
        if images_per_class < 2:
            raise InputError(f"images per class must be at least 2, not {images_per_class}")
        if counts.min() < images_per_class:
            poorest = classes[counts.argmin()]
            raise InputError(
                f"class {poorest} of {images.name} has only {counts.min()} images; ask for at most that many per class"
            )
        keep = [
            np.sort(
                np.random.default_rng([seed, int(label)]).choice(
                    np.flatnonzero(images.labels[order] == label), images_per_class, replace=False
                )
            )
            for label in classes
        ]
        order = order[np.concatenate(keep)]
    names = tuple(images.names[i] for i in order)
    labels = images.labels[order]
    content = hashlib.sha256(images.name.encode())
    for number, name, label in zip(order, names, labels, strict=True):
        content.update(f"\n{name}\t{label}\t{images.fingerprint(int(number))}".encode())
    return Subset(images.name, order.astype(np.int64), labels.astype(np.int64), names, content.hexdigest()[:16])
