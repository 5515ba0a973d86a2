"""DSE and DSMI on a graph of nearest neighbours whose bandwidths follow the local density, in bits.

Neither needs a width: each point's is the distance to its 15th neighbour, so the embedding times a number has the same
values. ``dsmi_z_y_knn`` builds the graph of each class and of each random subset anew, as the paper's does its kernel.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import (
    Array,
    namespace,
    narrowed,
    rows_of,
    smallest_of_rows,
    to_host,
    widened,
)
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import ALIKE, Points, centred_rows, squared_distances
from ..core.estimate import Estimate, method_for, precision_for
from ..core.hits import first_rows
from ..core.registry import score
from ..core.settings import MeasureSettings
from ..core.threads import computed_once
from .knn_graph import KnnOperator, settled, sparse_matrix
from .lanczos import entropy_by_lanczos, random_sketch
from .spectrum import eigenvalues, normalise, spectrum_entropy
from .subsets import SpectralEntropies, Subset, random_subsets

NEIGHBOURS = 15
TIME = 3


def adaptive_kernel(squares: Array) -> Array:
    """Return new kernels, float64 [..., m, m], of points with these squared distances, which differ in pairs.

    exp(-d^2 / (s_i s_j)) where one of the two is among the other's 15 nearest neighbours, or as near as the last of
    them, else 0; s is the distance to the 15th neighbour, or to the last one of fewer points. Then each entry is
    divided by both row sums (alpha = 1), which takes out the density of the points.
    """
    xp, m = namespace(squares), squares.shape[-1]
    rows = xp.reshape(squares, (-1, m))
    reach = min(NEIGHBOURS, m - 1)  # the point itself is the nearest
    last = smallest_of_rows(rows, reach + 1)[:, reach:]
    square = xp.reshape(xp.take_along_axis(rows, last, axis=1), squares.shape[:-1])
    near = squares <= square[..., :, None]
    near = near | xp.matrix_transpose(near)
    width = xp.sqrt(square)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        kernel = xp.exp(-(squares / width[..., :, None]) / width[..., None, :])
        kernel = xp.where(near, kernel, 0.0)
        if m == 1:
            kernel = xp.ones_like(kernel)
        sums = xp.sum(kernel, axis=-1)
        kernel /= sums[..., :, None]
        kernel /= sums[..., None, :]
    return kernel


class KnnEntropies(SpectralEntropies):
    """Entropies of subsets of points, each on its own graph of nearest neighbours; points that are alike count once."""

    def __init__(self, points: Points, settings: MeasureSettings) -> None:
        super().__init__(points, 1.0, settings.model_copy(update={"t": float(TIME)}))

    @computed_once
    def alike(self) -> float:
        """The squared distance below which two points are one, up to rounding."""
        xp, values = namespace(self.points.values), centred_rows(self.points.values)
        return ALIKE * 2 * float(xp.sum(values * values)) / self.n  # of the mean over all pairs

    @computed_once
    def first_alike(self) -> NDArray[np.int64]:
        """The first of few points that each is equal to, int64 [n]."""
        return self._first_alike(self.points.squares)

    def _first_alike(self, squares: Array) -> NDArray[np.int64]:
        xp = namespace(squares)
        first = xp.argmax(xp.astype(squares <= self.alike, xp.uint8), axis=1)
        return settled(to_host(first))

    def of(self, subsets: Sequence[Subset]) -> list[Estimate]:
        """Return the entropy of each subset, in bits."""
        return super().of([self._different(subset) for subset in subsets])

    def _different(self, subset: Subset) -> Subset:
        """Return the points of a subset that are not alike; of a large one, ``_estimated`` finds them."""
        if self.points.few:
            return np.unique(self.first_alike[subset])
        if method_for(self.settings.method, len(subset)) == "lanczos":
            return subset
        return subset[np.unique(self._first_alike(self._squares_of(subset)))]

    def _squares_of(self, subset: Subset) -> Array:
        return squared_distances(rows_of(self.points.values, subset))

    def _estimated(self, subset: Subset) -> Estimate:
        settings, values = self.settings, to_host(rows_of(self.points.values, subset))
        matrix, roots = sparse_matrix(values, NEIGHBOURS, self.alike)
        # Eigenvalues below 0 count by their size, so those of the square are what is needed.
        operator = KnnOperator(matrix, roots)
        generator = np.random.default_rng(settings.seed)
        sketch = random_sketch(operator.n, generator)
        found = entropy_by_lanczos(operator, settings.t / 2, settings.tolerance, generator, sketch)
        assert found is not None  # float64 is the finest
        return found

    def _entropy(self, kernel: Array) -> float:
        normalise(kernel)
        precision = precision_for(self.settings.precision, kernel.shape[0], self.settings.t)
        spectrum = eigenvalues(narrowed(kernel) if precision == "float32" else kernel)
        return float(spectrum_entropy(widened(spectrum)[None, :], self.settings.t)[0])

    def _kernels_of(self, squares: Array) -> Array:
        return adaptive_kernel(squares)


@computed_once
def _entropies(context: MeasureContext) -> KnnEntropies:
    """Entropies of subsets of the images: crops of one image would be each other's neighbours."""
    return KnnEntropies(_of_images(context), context.settings)


def _of_images(context: MeasureContext) -> Points:
    first = first_rows(context.images) if context.has_labels else np.arange(context.n)
    points = context.points_in_range
    return points if len(first) == context.n else points.part(first)


@score("dse_z_knn", task="spectrum")
def dse_z_knn(context: MeasureContext) -> float:
    """Return the entropy of all images."""
    entropies = _entropies(context)
    return entropies.of([np.arange(entropies.n)])[0].value


def _classes_of_images(context: MeasureContext) -> NDArray[np.int64]:
    classes: NDArray[np.int64] = context.classes[first_rows(context.images)]
    return classes


GROUPS = 10  # of a class's images, each of which is left out in turn
FEWEST = 40
"""Images of each class for a standard error: without a tenth of fewer, the graph changes more than for fresh images."""
MOST_IMAGES = 500  # of a class; more are represented by these


def _error(context: MeasureContext) -> float:
    """Return the standard error, from the spread over random subsets and a jackknife of each class.

    Halves of the classes will not do: with about 15 images every graph is complete, and its entropy hardly varies.
    """
    context.require_halves()
    settings = context.settings
    if settings.repetitions == 1:
        raise UndefinedScore("one repetition has no spread, set repetitions to 2 or more")
    entropies, classes = _entropies(context), _classes_of_images(context)
    sizes, counts = np.unique(np.bincount(classes), return_counts=True)
    if sizes[0] < FEWEST:
        raise UndefinedScore(f"its error needs {FEWEST} images of each class, one has {sizes[0]}")
    of_repetitions = np.zeros(settings.repetitions)
    for size, count in zip(sizes, counts, strict=True):
        drawn = random_subsets(len(classes), int(size), settings.repetitions, settings.seed)
        values = [entropy.value for entropy in entropies.of(drawn)]
        of_repetitions += count * size / len(classes) * np.array(values)
    at_random = of_repetitions.var(ddof=1) / settings.repetitions
    return float(np.sqrt(at_random + _variance_within(classes, entropies)))


def _variance_within(classes: NDArray[np.int64], entropies: KnnEntropies) -> float:
    """Return the variance over images of the mean entropy of the classes, leaving out tenths of each."""
    generator = np.random.default_rng([entropies.settings.seed, 8])
    left: list[Subset] = []
    shares, groups = [], []
    for of_class in range(int(classes.max()) + 1):
        members = generator.permutation(np.flatnonzero(classes == of_class))
        some = members[:MOST_IMAGES]
        parts = min(GROUPS, len(some))
        if parts < 2:
            continue
        left += [np.delete(some, slice(part, None, parts)) for part in range(parts)]
        shares.append(len(members) / len(classes) * np.sqrt(len(some) / len(members)))
        groups.append(parts)
    values = np.array([entropy.value for entropy in entropies.of(left)])
    of_classes = np.split(values, np.cumsum(groups)[:-1])
    variances = [(len(v) - 1) * v.var() for v in of_classes]
    return float(np.square(shares) @ variances)


@score("dsmi_z_y_knn", task="spectrum", error=_error)
def dsmi_z_y_knn(context: MeasureContext) -> float:
    """Return the mutual information of images and labels."""
    return _entropies(context).information(_classes_of_images(context)).value
