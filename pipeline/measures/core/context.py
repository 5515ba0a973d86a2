"""Values that the measures of one embedding share; each is computed when a measure first needs it, and kept."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array
from .checks import UndefinedScore, as_groups, as_images
from .conversion import as_array, as_one_line
from .decomposition import Decomposition, centred, decomposed, scaled
from .distances import SQUARES_FIT, Points, as_points, direction_points
from .halves import random_halves, too_few_images
from .hits import first_rows
from .settings import MeasureSettings
from .threads import computed_once

MAX_IMAGES = 4096
"""Most images that intrinsic dimensions are computed from; all pairs of more images would take too much memory."""


class NotGiven(ValueError):
    """Raised when a measure needs labels or clusters that the context does not have."""


class MeasureContext:
    """A validated embedding with its labels and settings, and the values derived from them.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1] or None
        The class of each sample.
    image_ids : [n] or None
        The image of each sample; by default, each sample is a separate image.
    input_clusters : [n] or [n, 1] or None
        The cluster of each sample's input.
    settings : MeasureSettings
        Settings of the measures.

    Raises
    ------
    ValueError
        If the embedding is not a finite matrix of numbers, labels or clusters do not fit it, or repeats of an image
        have different labels.
    """

    def __init__(
        self,
        Z: ArrayLike | Points,
        labels: ArrayLike | None,
        image_ids: ArrayLike | None,
        input_clusters: ArrayLike | None,
        settings: MeasureSettings,
    ) -> None:
        self.points = as_points(Z)
        self.settings = settings
        self.n, self.d = self.points.values.shape
        self.sigma = settings.sigma_for(self.d)
        self._labels, self._image_ids = labels, image_ids  # as given, for the text of reasons
        self._classes = None if labels is None else as_groups(labels, self.n)
        self._images = None if self._classes is None else as_images(image_ids, self._classes)
        self._clusters = (
            None if input_clusters is None else as_groups(input_clusters, self.n, "input_clusters")
        )
        self.results: dict[str, Any] = {}  # by column, as `Computation.result` keeps them

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self._classes is not None

    @property
    def has_clusters(self) -> bool:
        """Whether there are clusters of the inputs."""
        return self._clusters is not None

    def require_image_pairs(self) -> None:
        """Raise UndefinedScore unless each class has at least two images, so that one can be left out."""
        first = first_rows(self.images)
        class_of_image = self.classes[first]
        sizes = np.bincount(class_of_image)
        single = np.flatnonzero(sizes == 1)
        if not len(single):
            return
        row = int(first[class_of_image == single[0]][0])
        label = as_one_line(as_array(self._labels, "labels").reshape(-1)[row])
        image = f"row {row}"
        if self._image_ids is not None:
            image = as_one_line(as_array(self._image_ids, "image_ids").reshape(-1)[row], 100)
        many = f"class {label} has one image ({image})"
        if len(single) > 1:
            many = (
                f"{len(single)} of {len(sizes)} classes have one image, such as {label} ({image})"
            )
        raise UndefinedScore(f"{many}, an accuracy needs two images of each class")

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each sample, numbered from 0, int64 [n]; UndefinedScore if there is only one."""
        return _several(self._classes, "labels")

    @property
    def images(self) -> NDArray[np.int64]:
        """The image of each sample, numbered from 0, int64 [n]."""
        return _given(self._images)

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The cluster of each sample's input, numbered from 0, int64 [n]; UndefinedScore if there is only one."""
        return _several(self._clusters, "input_clusters")

    @property
    def largest_group(self) -> int:
        """The number of samples in the largest class or cluster; 0 without either."""
        groups = [group for group in (self._classes, self._clusters) if group is not None]
        return max((int(np.bincount(group).max()) for group in groups), default=0)

    # Singular values

    @computed_once
    def uncentred_decomposition(self) -> Decomposition:
        """The decomposition of the embedding, scaled by a power of two."""
        return decomposed(self.scaled_values[0])

    @computed_once
    def scaled_values(self) -> tuple[Array, int]:
        """The embedding divided by 2 to the power of e, so that its squares stay in range, float64 [n, d], and e."""
        return scaled(self.points.values)

    @computed_once
    def _centred(self) -> tuple[Array, int]:
        return centred(self.points.values)

    @property
    def centred_values(self) -> Array:
        """The embedding minus its mean, divided by 2 to the power of ``exponent``, float64 [n, d]."""
        return self._centred[0]

    @property
    def exponent(self) -> int:
        """The power of two that ``centred_values`` are divided by."""
        return self._centred[1]

    @computed_once
    def decomposition(self) -> Decomposition:
        """The decomposition of ``centred_values``."""
        return decomposed(self.centred_values)

    # Distances and directions

    @computed_once
    def points_in_range(self) -> Points:
        """The points, divided by a power of two if their squares would leave the range of float64."""
        values, exponent = self.scaled_values
        return self.points if abs(exponent) <= SQUARES_FIT else Points(values)

    @computed_once
    def direction_points(self) -> Points:
        """The directions of ``points_in_range``."""
        return direction_points(self.points_in_range)

    # Images: crops of one image would be each other's neighbours

    @computed_once
    def some_first_rows(self) -> NDArray[np.int64]:
        """The first row of each image; with more than ``MAX_IMAGES`` images, those of a random choice of them."""
        first = first_rows(self._images_or_rows)
        if len(first) <= MAX_IMAGES:
            return first
        generator = np.random.default_rng(self.settings.seed)
        return np.sort(generator.choice(first, MAX_IMAGES, replace=False))

    @computed_once
    def different_image_points(self) -> Points:
        """The points of ``some_first_rows``, without duplicates."""
        first, points = self.some_first_rows, self.points_in_range
        if len(first) < self.n:
            points = points.part(first)
        different = points.different()
        return points if len(different) == len(points) else points.part(different)

    # Halves, for standard errors

    @computed_once
    def halves(self) -> list[Self]:
        """Random halves of the images of each class; an empty list if classes are too small.

        Without labels, all images count as one class.
        """
        halves = random_halves(self._classes_or_one, self._images_or_rows, self.settings.seed)
        return [self._part(rows) for rows in halves]

    def require_halves(self) -> None:
        """Raise UndefinedScore if classes are too small to be halved."""
        if not self.halves:
            raise UndefinedScore(too_few_images(self._classes_or_one, self._images_or_rows))

    def _part(self, rows: NDArray[np.int64]) -> Self:
        classes, clusters = _varied(self._classes, rows), _varied(self._clusters, rows)
        images = None if classes is None else self.images[rows]
        return type(self)(self.points.part(rows), classes, images, clusters, self.settings)

    @property
    def _classes_or_one(self) -> NDArray[np.int64]:
        return np.zeros(self.n, dtype=np.int64) if self._classes is None else self._classes

    @property
    def _images_or_rows(self) -> NDArray[np.int64]:
        return np.arange(self.n) if self._images is None else self._images


def _given(values: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if values is None:
        raise NotGiven
    return values


def _several(values: NDArray[np.int64] | None, name: str) -> NDArray[np.int64]:
    """Return the groups of the samples; raise UndefinedScore if there is only one."""
    groups = _given(values)
    if groups.max() == 0:
        raise UndefinedScore(f"{name} make one class only, pass two or more")
    return groups


def _varied(values: NDArray[np.int64] | None, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the values of some rows, or None if they are all the same."""
    return None if values is None or np.ptp(values[rows]) == 0 else values[rows]
