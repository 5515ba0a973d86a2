"""The shared subset: the same images in the same order for every model, on every machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError

from .base import NOTHING_LEFT_OUT, Account, LabelledImages
from .class_order import NO_ORDER, ClassOrders
from .sampling import Sample

SINGLE = "alone in a class"
"""The reason for leaving out an image that is the only one of its class."""


@dataclass(frozen=True)
class Subset:
    """The images to embed, sorted by class and name.

    An embedding has ``repeats`` consecutive rows per image, each with a seed for its random crop.

    Attributes
    ----------
    images : the n images
    repeats : int
    seed : int
    digest : str
        Hash of names, contents and labels, and of the crop seeds where crops are random.
    account : Account
        What else the data set holds, and how ambiguous input was read; not part of the digest.
    orders : ClassOrders
        How a classifier's outputs map to the classes; not part of the digest.
    """

    images: LabelledImages
    repeats: int
    seed: int
    digest: str
    account: Account = NOTHING_LEFT_OUT
    orders: ClassOrders = NO_ORDER

    @property
    def labels(self) -> np.ndarray:
        """The images' classes, int64 [n]."""
        return self.images.labels

    @property
    def class_sizes(self) -> np.ndarray:
        """The number of images in each class, int64 [classes]."""
        return np.unique(self.labels, return_counts=True)[1]

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_sizes)

    def crop_seed(self, number: int, repeat: int) -> int:
        """Return the seed of a random crop; it depends on the image's name, but on no other image."""
        text = f"{self.seed}\t{self.images.names[number]}\t{repeat}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def table(self) -> pd.DataFrame:
        """Return the rows of an embedding: ``image`` (name), ``label``, ``number`` (of the image), ``repeat``."""
        number = np.repeat(np.arange(len(self.labels)), self.repeats)
        repeat = np.tile(np.arange(self.repeats), len(self.labels))
        names = np.array(self.images.names, dtype=object)[number]
        return pd.DataFrame(
            {"image": names, "label": self.labels[number], "number": number, "repeat": repeat}
        )


def select_subset(
    images: LabelledImages,
    *,
    classes: Sequence[int] | None = None,
    images_per_class: int | None = None,
    sample: Sample | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> Subset:
    """Choose images, sorted by class, then name.

    The choice depends on names and seed, not on the order in which the data set lists its images. A class of one image
    is left out if at least two larger classes remain: it alone would make every held-out accuracy undefined.

    Parameters
    ----------
    classes
        The labels to keep; None keeps all.
    images_per_class
        Images per class, drawn without replacement; None keeps all.
    sample
        The sample to draw from the remaining images, as a stage of a search does; None keeps all.
    repeats
        Random crops per image.

    Raises
    ------
    InputError
        When a class is missing or has too few images, or there are fewer than two classes.
    """
    account = images.account
    order = np.lexsort((np.array(images.names, dtype=str), images.labels))
    if classes is not None:
        absent = sorted(set(classes) - set(images.labels.tolist()))
        if absent:
            raise InputError(
                f"{images.name} has no image of class {absent[0]} ({len(absent)} of {len(classes)} absent)"
            )
        is_chosen = np.isin(images.labels[order], list(classes))
        others = [images.names[i] for i in order[~is_chosen]]
        account = account.leaving_out("of classes not in --classes", others, by_choice=True)
        order = order[is_chosen]
    present = np.unique(images.labels[order])
    if len(present) < 2:
        raise InputError(f"{images.name}: {len(present)} class is chosen; at least two are needed")
    order, account = _without_single_images(images, order, account)
    labels = images.labels[order]
    present, counts = np.unique(labels, return_counts=True)
    if images_per_class is not None:
        if counts.min() < images_per_class:
            poorest, has = int(present[counts.argmin()]), int(counts.min())
            raise InputError(
                f"class {images.class_names.get(poorest, poorest)} of {images.name} has only {has} images, "
                f"not {images_per_class}; ask for at most {has} images per class"
            )
        drawn = []
        for label in present:
            generator = np.random.default_rng([seed, int(label)])
            of_class = np.flatnonzero(labels == label)
            drawn.append(np.sort(generator.choice(of_class, images_per_class, replace=False)))
        is_drawn = np.isin(np.arange(len(order)), np.concatenate(drawn))
        others = [images.names[i] for i in order[~is_drawn]]
        account = account.leaving_out("not drawn by --images-per-class", others, by_choice=True)
        order = order[is_drawn]
    if sample is not None:
        of_classes = [np.flatnonzero(images.labels[order] == label) for label in present]
        class_sizes = np.array([len(of_class) for of_class in of_classes])
        of_sample: list[np.ndarray] = []
        for label, of_class, size in zip(
            present, of_classes, sample.sizes(class_sizes, seed), strict=True
        ):
            generator = np.random.default_rng([seed, int(label), 1])
            of_sample.append(np.sort(generator.permutation(of_class)[:size]))
        taken = np.concatenate(of_sample)
        left = np.setdiff1d(np.arange(len(order)), taken)
        names = [images.names[order[i]] for i in left]
        account = account.leaving_out("not in the sample", names, by_choice=True)
        order = order[taken]
    chosen = images.take(order)
    content = hashlib.sha256(images.name.encode())
    for number, (name, label) in enumerate(zip(chosen.names, chosen.labels, strict=True)):
        content.update(f"\n{name}\t{label}\t{chosen.fingerprint(number)}".encode())
    if repeats > 1:
        content.update(f"\nrepeats {repeats}, seed {seed}".encode())
    return Subset(chosen, repeats, seed, content.hexdigest()[:16], account)


def _without_single_images(
    images: LabelledImages, order: np.ndarray, account: Account
) -> tuple[np.ndarray, Account]:
    """Leave out classes of one image if at least two larger ones remain, and record this in the account."""
    labels = images.labels[order]
    present, counts = np.unique(labels, return_counts=True)
    if (counts > 1).sum() < 2:
        return order, account
    is_single = np.isin(labels, present[counts == 1])
    alone = [described(images, int(number)) for number in order[is_single]]
    return order[~is_single], account.leaving_out(SINGLE, alone)


def described(images: LabelledImages, number: int) -> str:
    """Return the name of an image, with its class unless that is its folder."""
    name, label = images.names[number], int(images.labels[number])
    of_class = images.class_names.get(label, str(label))
    return name if name.startswith(f"{of_class}/") else f"{name} of class {of_class}"
