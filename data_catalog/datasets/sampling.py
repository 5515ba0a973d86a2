"""The number of images of each class that a stage of a search takes, and their weights."""

import re
from dataclasses import dataclass

import numpy as np

MIN_TAKEN = 2  # images per class: a probe is tested on an image that it was not trained on
FORM = re.compile(r"1/([2-9]|[1-9]\d{1,8})|([2-9]|[1-9]\d{1,8})")


@dataclass(frozen=True)
class Sample:
    """A sampling rule: one in ``one_in`` images of each class, or ``most`` images of each class; the other is None.

    ``1/9`` takes one image in nine, each with the same probability, so that classes keep their frequencies; from a
    class of fewer than 18 images it takes two, with weights below 1. ``15`` takes 15 images of each class, or all
    images of a smaller class, with larger weights, so that classes count equally.
    """

    one_in: int | None = None
    most: int | None = None

    @classmethod
    def of(cls, text: str) -> "Sample":
        """Parse ``1/9`` or ``15``; raise ValueError for anything else."""
        match = FORM.fullmatch(text)
        if match is None:
            raise ValueError("must be such as 1/9, one image in nine of each class, or 15 of each")
        share, most = match.groups()
        return cls(one_in=int(share)) if share else cls(most=int(most))

    def __str__(self) -> str:
        return f"1/{self.one_in}" if self.one_in is not None else str(self.most)

    def sizes(self, class_sizes: np.ndarray, seed: int = 0) -> np.ndarray:
        """Return for each class the number of its images to take, int64 [k], at most its ``class_sizes``, int64 [k].

        References
        ----------
        Systematic sampling (Madow and Madow, 1944): every ``one_in``-th image, in the order of their classes, from a
        random start.
        """
        if self.one_in is None:
            assert self.most is not None
            return np.minimum(class_sizes, self.most)
        # If one sample's one_in divides another's, the starts that one seed gives them agree modulo the smaller one_in,
        # so the larger sample holds the smaller one.
        start = int(np.random.default_rng(seed).integers(2**62)) % self.one_in
        ends = np.cumsum(class_sizes)
        taken = -(-(ends - start) // self.one_in)
        taken = np.diff(np.maximum(taken, 0), prepend=0)
        return np.where(self._is_small(class_sizes), np.minimum(class_sizes, MIN_TAKEN), taken)

    def weights(self, class_sizes: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Return for each class the weight of any of its images, float64 [k], if ``taken`` of ``class_sizes`` are used.

        The weighted mean over the images estimates the accuracy on all of them, or the mean of the classes' accuracies.
        """
        if self.one_in is None:
            return taken.max() / taken
        return np.where(self._is_small(class_sizes), class_sizes / (self.one_in * taken), 1.0)

    def _is_small(self, class_sizes: np.ndarray) -> np.ndarray:
        assert self.one_in is not None
        return class_sizes < MIN_TAKEN * self.one_in


def samples(class_sizes: np.ndarray, *, balanced: bool, shrink: int, fewest: int) -> list[Sample]:
    """Return the samples of the stages before the one on all images, the smallest first.

    Each has about 1 in ``shrink`` of the images of the next one, at least ``fewest`` images per class on average, and
    at most half of all images, because a stage must save some.

    Parameters
    ----------
    balanced
        Whether classes count equally; a stage then takes the same number of images of each, as far as a class has them.
    """
    found: list[Sample] = []
    images, parts = int(class_sizes.sum()), shrink
    while images // parts >= fewest * len(class_sizes):
        if balanced:
            sample = Sample(most=_most(class_sizes, images // parts))
        else:
            sample = Sample(one_in=parts)
        if 2 * sample.sizes(class_sizes).sum() <= images and sample not in found:
            found.insert(0, sample)
        parts *= shrink
    return found


def _most(class_sizes: np.ndarray, images: int) -> int:
    """Return the largest number of images per class for which all classes together have at most ``images``."""
    low, high = MIN_TAKEN, int(class_sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(class_sizes, middle).sum() <= images:
            low = middle
        else:
            high = middle - 1
    return low
