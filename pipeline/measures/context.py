"""What the measures of one embedding share: each thing is computed when a measure first asks for it, and kept."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core.arrays import Array
from .core.checks import as_classes, as_images, as_sigma
from .core.decomposition import Decomposition, centred, decomposed, scaled
from .core.directions import direction_points, directions
from .core.once import computed_once
from .core.points import SQUARES_FIT, Points, as_points
from .core.settings import MeasureSettings
from .dse.mutual_information import (
    EntropiesOf,
    RandomEntropy,
    binned_entropies,
    mutual_information,
    random_subset_entropies,
    shared_kernels,
    spectral_entropies,
)
from .dse.spectrum import KernelOf
from .scores.class_gaussians import leep_log_likelihoods
from .scores.cosine import cosine_centre_hits
from .scores.dimension import different_points, two_nn_dimension_of_squares
from .scores.probe import (
    NEIGHBOURS,
    centre_hits,
    each_class_has_two_images,
    neighbour_hits,
    ridge_hits,
)
from .scores.sfda import sfda_probabilities
from .uncertainty import random_halves

MOST_IMAGES = 4096
"""Of which intrinsic dimensions are taken: distances of all pairs of more are a burden."""


class MeasureContext:
    """An embedding with its labels and settings, validated, and what follows from them.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1] or None
        The class of each sample.
    image_ids : [n] or None
        The image of each sample; with None every sample is an image of its own.
    input_clusters : [n] or [n, 1] or None
        The cluster of each sample's input.
    settings : MeasureSettings
        How to measure.

    Raises
    ------
    ValueError
        If the embedding is no finite matrix of numbers, labels or clusters do not fit it, or the repeats of one image
        bear different labels.
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
        self._classes = None if labels is None else as_classes(labels, self.n)
        self._images = None if self._classes is None else as_images(image_ids, self._classes)
        self._clusters = (
            None if input_clusters is None else as_classes(input_clusters, self.n, "input_clusters")
        )
        self.results: dict[str, Any] = {}  # of measures, by name, as they keep them

    @property
    def has_labels(self) -> bool:
        """Whether there are labels."""
        return self._classes is not None

    @property
    def has_clusters(self) -> bool:
        """Whether there are clusters of the inputs."""
        return self._clusters is not None

    @computed_once
    def has_image_pairs(self) -> bool:
        """Whether each class has two images or more, so that one of them can be left out."""
        return self.has_labels and each_class_has_two_images(self.classes, self.images)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each sample, numbered from 0, int64 [n]."""
        assert self._classes is not None
        return self._classes

    @property
    def images(self) -> NDArray[np.int64]:
        """The image of each sample, numbered from 0, int64 [n]."""
        assert self._images is not None
        return self._images

    @property
    def clusters(self) -> NDArray[np.int64]:
        """The cluster of each sample's input, numbered from 0, int64 [n]."""
        assert self._clusters is not None
        return self._clusters

    # Distances, kernels and entropies

    @computed_once
    def sigma(self) -> float:
        """The width of the Gaussian kernel."""
        return as_sigma(self.settings.sigma, self.d)

    @computed_once
    def median_distance(self) -> float:
        """Median distance over the pairs of points, of some of the points if they are many, of two at least."""
        return self.points.median_distance(self.settings.seed)

    @computed_once
    def kernels(self) -> KernelOf:
        """The kernels of subsets of the points."""
        return shared_kernels(self.points, self.sigma)

    @computed_once
    def spectral_entropies(self) -> EntropiesOf:
        """The diffusion spectral entropies of subsets of the points."""
        settings = self.settings
        return spectral_entropies(
            self.points,
            self.kernels,
            self.sigma,
            settings.t,
            settings.method,
            settings.precision,
            settings.tolerance,
            settings.seed,
        )

    @computed_once
    def random_spectral_entropy(self) -> RandomEntropy:
        """The mean diffusion spectral entropy of random subsets, by their size."""
        return self._of_random_subsets(self.spectral_entropies)

    @computed_once
    def binned_entropies(self) -> EntropiesOf:
        """The classic entropies of subsets of the points."""
        return binned_entropies(self.points.values, self.settings.bins)

    @computed_once
    def random_binned_entropy(self) -> RandomEntropy:
        """The mean classic entropy of random subsets, by their size."""
        return self._of_random_subsets(self.binned_entropies)

    def _of_random_subsets(self, entropies_of: EntropiesOf) -> RandomEntropy:
        return random_subset_entropies(
            entropies_of, self.n, self.settings.repetitions, self.settings.seed
        )

    @computed_once
    def entropy(self) -> float:
        """The diffusion spectral entropy of all points, in bits."""
        return self.spectral_entropies([np.arange(self.n)])[0].value

    def spectral_information(self, groups: NDArray[np.int64]) -> float:
        """The diffusion spectral mutual information of the embedding and groups, int64 [n], in bits."""
        return mutual_information(
            groups, self.spectral_entropies, self.random_spectral_entropy
        ).value

    def binned_information(self, groups: NDArray[np.int64]) -> float:
        """The classic mutual information of the embedding and groups, int64 [n], in bits."""
        return mutual_information(groups, self.binned_entropies, self.random_binned_entropy).value

    @computed_once
    def information_without_signal(self) -> list[float]:
        """DSMI with the labels permuted over images, repeats moving together: one value a permutation, in bits."""
        generator = np.random.default_rng(self.settings.seed)
        _, first = np.unique(self.images, return_index=True)
        of_images = self.classes[first]
        permuted = [
            generator.permutation(of_images)[self.images]
            for _ in range(self.settings.null_permutations)
        ]
        return [self.spectral_information(groups) for groups in permuted]

    # Singular values, centres, neighbours

    @computed_once
    def uncentred_decomposition(self) -> Decomposition:
        """The decomposition of the embedding, scaled by a power of two."""
        return decomposed(scaled(self.points.values)[0])

    @computed_once
    def _centred(self) -> tuple[Array, int]:
        return centred(self.points.values)

    @property
    def centred_values(self) -> Array:
        """The embedding less its mean, divided by 2 to the power of ``exponent``, float64 [n, d]."""
        return self._centred[0]

    @property
    def exponent(self) -> int:
        """The power of two that ``centred_values`` are divided by."""
        return self._centred[1]

    @computed_once
    def decomposition(self) -> Decomposition:
        """The decomposition of ``centred_values``."""
        return decomposed(self.centred_values)

    @computed_once
    def centre_hits(self) -> NDArray[np.bool_]:
        """Whether each image is nearest to its own class's centre, bool [images]."""
        return centre_hits(self.centred_values, self.classes, self.images)

    @computed_once
    def points_in_range(self) -> Points:
        """The points, divided by a power of two if their squares would leave the range of float64."""
        values, exponent = scaled(self.points.values)
        return self.points if abs(exponent) <= SQUARES_FIT else Points(values)

    @computed_once
    def neighbour_hits(self) -> NDArray[np.bool_]:
        """Whether the nearest neighbours of each image vote for its class, bool [images]."""
        return neighbour_hits(self.points_in_range, self.classes, self.images, NEIGHBOURS)

    @computed_once
    def leep_log_likelihoods(self) -> NDArray[np.float64]:
        """The log probability of each sample's label by N-LEEP's mixture, in nats, float64 [n]."""
        return leep_log_likelihoods(self.decomposition, self.classes, self.settings.seed)

    @computed_once
    def sfda_probabilities(self) -> NDArray[np.float64]:
        """The probability of each sample's class by SFDA's second discriminant, float64 [n]."""
        return sfda_probabilities(self.decomposition, self.d, self.classes, self.exponent)

    @computed_once
    def probe_hits(self) -> NDArray[np.bool_]:
        """Whether a linear probe that has not seen an image classifies it right, bool [images]."""
        return ridge_hits(self.decomposition, self.d, self.classes, self.images)

    # Directions

    @computed_once
    def direction_points(self) -> Points:
        """The embedding's rows scaled to length 1."""
        return direction_points(self.points_in_range)

    @computed_once
    def cosine_neighbour_hits(self) -> NDArray[np.bool_]:
        """Whether the neighbours of each image by the cosine vote for its class, bool [images]."""
        return neighbour_hits(self.direction_points, self.classes, self.images, NEIGHBOURS)

    @computed_once
    def cosine_centre_hits(self) -> NDArray[np.bool_]:
        """Whether each image has the greatest cosine with its own class's centre, all centred, bool [images]."""
        return cosine_centre_hits(directions(self.centred_values), self.classes, self.images)

    # Images, where crops of one image would be each other's neighbours

    @computed_once
    def image_points(self) -> Points:
        """The first row of each image, of some of the images if they are many."""
        _, first = np.unique(self._images_or_rows, return_index=True)
        if len(first) == self.n <= MOST_IMAGES:
            return self.points_in_range
        if len(first) > MOST_IMAGES:
            first = np.sort(
                np.random.default_rng(self.settings.seed).choice(first, MOST_IMAGES, replace=False)
            )
        return self.points_in_range.part(first)

    @computed_once
    def different_image_points(self) -> Points:
        """``image_points`` that differ from all before them."""
        different = different_points(self.image_points.squares)
        return (
            self.image_points
            if len(different) == len(self.image_points)
            else self.image_points.part(different)
        )

    @computed_once
    def image_directions(self) -> Points:
        """The directions of ``different_image_points``."""
        points = self.different_image_points
        return self.direction_points if points is self.points_in_range else direction_points(points)

    @computed_once
    def two_nn_dimension(self) -> float:
        """The intrinsic dimension of ``different_image_points`` by the two nearest neighbours of each."""
        return two_nn_dimension_of_squares(self.different_image_points.squares)

    # Halves, for standard errors

    @computed_once
    def halves(self) -> list[Self]:
        """Random halves of the images, by classes alike; none where classes are too small.

        Without labels all images are of one class.
        """
        classes = self.classes if self.has_labels else np.zeros(self.n, dtype=np.int64)
        return [
            self._part(rows)
            for rows in random_halves(classes, self._images_or_rows, self.settings.seed)
        ]

    def _part(self, rows: NDArray[np.int64]) -> Self:
        def of_rows(column: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
            """A column of the part, None where all its rows are the same."""
            return None if column is None or np.ptp(column[rows]) == 0 else column[rows]

        classes = of_rows(self._classes)
        images = None if classes is None else self.images[rows]
        return type(self)(
            self.points.part(rows), classes, images, of_rows(self._clusters), self.settings
        )

    @property
    def _images_or_rows(self) -> NDArray[np.int64]:
        return np.arange(self.n) if self._images is None else self._images
