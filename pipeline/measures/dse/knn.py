"""DSE and DSMI on a graph of nearest neighbours whose bandwidths follow the local density, in bits.

Neither needs a sigma: each point's width is the distance to its 15th neighbour, so the scale of the embedding does not
matter. ``dsmi_z_y_knn`` builds a new graph for each class and each random subset, as the paper does with its kernel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import (
    Array,
    as_float32,
    as_float64,
    namespace,
    rows_of,
    smallest_of_rows,
    to_host,
)
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.distances import ALIKE, Points, centred_rows, squared_distances
from ..core.exact_or_estimated import Estimate, method_for, precision_for
from ..core.hits import first_rows
from ..core.registry import score
from ..core.settings import MeasureSettings
from ..core.threads import computed_once, in_threads
from .lanczos import entropy_by_lanczos, random_sketch
from .operator import FLOAT64_NOISE
from .spectrum import eigenvalues, normalise, spectrum_entropy
from .subsets import SpectralEntropies, Subset, random_subsets

NEIGHBOURS = 15
TIME = 3
ROWS, COLUMNS = 1024, 4096  # points of a tile of distances: 16 MiB of float32
SPARE = 5  # neighbours beyond k that float32 distances choose, of which float64 keeps k
_ROWS_AT_ONCE = 4096  # of the sparse matrix, for each thread

Values = NDArray[np.float64]


def adaptive_kernel(squares: Array) -> Array:
    """Return new kernels, float64 [..., m, m], of distinct points with these squared distances.

    An entry is exp(-d^2 / (s_i s_j)) if one of the two points is among the other's 15 nearest neighbours, or as near as
    the last of them, else 0; s is the distance to the 15th neighbour, or to the last if there are fewer. Then each
    entry is divided by both row sums (alpha = 1), which removes the effect of the points' density.
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
    """Entropies of subsets of points, each on its own graph of nearest neighbours; duplicate points count once."""

    def __init__(self, points: Points, settings: MeasureSettings) -> None:
        super().__init__(points, 1.0, settings.model_copy(update={"t": float(TIME)}))

    @computed_once
    def alike(self) -> float:
        """The squared distance below which two points are one, up to rounding."""
        xp, values = namespace(self.points.values), centred_rows(self.points.values)
        return ALIKE * 2 * float(xp.sum(values * values)) / self.n  # of the mean over all pairs

    @computed_once
    def first_alike(self) -> NDArray[np.int64]:
        """The index of the first point that equals each point, int64 [n]; only for few points."""
        return self._first_alike(self.points.squares)

    def _first_alike(self, squares: Array) -> NDArray[np.int64]:
        xp = namespace(squares)
        first = xp.argmax(xp.astype(squares <= self.alike, xp.uint8), axis=1)
        return settled(to_host(first))

    def of(self, subsets: Sequence[Subset]) -> list[Estimate]:
        """Return the entropy of each subset, in bits."""
        return super().of([self._different(subset) for subset in subsets])

    def _different(self, subset: Subset) -> Subset:
        """Return the distinct points of a subset; a large subset is returned whole, and ``_estimated`` finds them."""
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
        # Eigenvalues below 0 count by their absolute value, so the operator is the square of the matrix.
        operator = KnnOperator(matrix, roots)
        generator = np.random.default_rng(settings.seed)
        sketch = random_sketch(operator.n, generator)
        found = entropy_by_lanczos(operator, settings.t / 2, settings.tolerance, generator, sketch)
        assert found is not None  # None would ask for float64
        return found

    def _entropy(self, kernel: Array) -> float:
        normalise(kernel)
        precision = precision_for(self.settings.precision, kernel.shape[0], self.settings.t)
        spectrum = eigenvalues(as_float32(kernel) if precision == "float32" else kernel)
        return float(spectrum_entropy(as_float64(spectrum)[None, :], self.settings.t)[0])

    def _kernels_of(self, squares: Array) -> Array:
        return adaptive_kernel(squares)


@computed_once
def _entropies(context: MeasureContext) -> KnnEntropies:
    """Return entropies of subsets of images, not rows: crops of one image would be each other's neighbours."""
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
"""Least images per class for a standard error: leaving out a tenth of fewer changes the graph more than new images."""
MOST_IMAGES = 500  # of a class; a larger class is represented by this many


def _error(context: MeasureContext) -> float:
    """Return the standard error, from the spread over random subsets and a jackknife of each class.

    Halves of the classes are too small: with about 15 images every graph is complete, and its entropy hardly varies.
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
    """Return the variance over images of the mean entropy of the classes, from leaving out tenths of each class."""
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


def nearest_neighbours(points: Values, k: int) -> tuple[Values, NDArray[np.int64]]:
    """Return the squared distances of the k nearest other points, ascending, and their numbers, each [n, k].

    All pairs are compared, in tiles: float32 products choose k + 5 candidates, whose float64 distances decide.
    """
    n = len(points)
    centred = centred_rows(points)
    largest = float(np.abs(centred).max()) or 1.0
    narrow = (centred / largest).astype(np.float32)
    halves = np.einsum("ij,ij->i", narrow, narrow) / 2
    wanted = min(k + SPARE, n - 1)
    squares, numbers = np.empty((n, k)), np.empty((n, k), dtype=np.int64)

    def search(start: int) -> None:
        some = slice(start, min(start + ROWS, n))
        found = _candidates(narrow, halves, some, wanted)
        exact = _squares_to(centred, some, found)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        squares[some] = np.take_along_axis(exact, order, axis=1)
        numbers[some] = np.take_along_axis(found, order, axis=1)

    in_threads(search, range(0, n, ROWS))
    return squares, numbers


def _candidates(
    narrow: NDArray[np.float32], halves: NDArray[np.float32], some: slice, wanted: int
) -> NDArray[np.int64]:
    """Return the other points nearest to some points, [m, wanted], sorted by their numbers.

    After the first tile, only points nearer than the farthest candidate so far are considered: few of each tile.
    """
    n, m = len(narrow), some.stop - some.start
    # Half the squared distance minus the part that all columns share.
    nearest = np.full((m, wanted), np.inf, dtype=np.float32)
    numbers = np.zeros((m, wanted), dtype=np.int64)
    own = np.arange(some.start, some.stop)
    for start in range(0, n, COLUMNS):
        stop = min(start + COLUMNS, n)
        tile = narrow[some] @ narrow[start:stop].T
        np.subtract(halves[start:stop], tile, out=tile)
        inside = (own >= start) & (own < stop)
        tile[inside, own[inside] - start] = np.inf
        if start == 0 and stop > wanted:
            numbers = np.argpartition(tile, wanted - 1, axis=1)[:, :wanted].astype(np.int64)
            nearest = np.take_along_axis(tile, numbers, axis=1)
            continue
        rows, columns = np.divmod(np.flatnonzero(tile < nearest.max(axis=1)[:, None]), stop - start)
        if len(rows):
            _merge(nearest, numbers, rows, columns + start, tile[rows, columns])
    return np.sort(numbers, axis=1)


def _merge(
    nearest: NDArray[np.float32],
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Merge points nearer than the farthest candidate into the candidates [m, wanted] of their rows, in place."""
    m, wanted = nearest.shape
    counts = np.bincount(rows, minlength=m)
    # The new points of each row side by side, padded with infinity.
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = m, int(counts.max())
    values, new = np.full(shape, np.inf, dtype=np.float32), np.zeros(shape, dtype=np.int64)
    values[rows, place], new[rows, place] = found, columns
    all_values, all_numbers = np.hstack([nearest, values]), np.hstack([numbers, new])
    best = np.argpartition(all_values, wanted - 1, axis=1)[:, :wanted]
    nearest[:] = np.take_along_axis(all_values, best, axis=1)
    numbers[:] = np.take_along_axis(all_numbers, best, axis=1)


def _squares_to(points: Values, some: slice, others: NDArray[np.int64]) -> Values:
    """Return the squared distances of some points to others, [m, k], one column at a time to save memory."""
    squares = np.empty(others.shape)
    for column in range(others.shape[1]):
        difference = points[some] - points[others[:, column]]
        squares[:, column] = np.einsum("ij,ij->i", difference, difference)
    return squares


def different_neighbours(
    points: Values, k: int, alike: float
) -> tuple[Values, NDArray[np.int64], NDArray[np.int64]]:
    """Return the neighbours of the distinct points, as ``nearest_neighbours`` does, and the indices of these points.

    Points within a squared distance of ``alike`` are one. If k points or fewer remain, all others are neighbours.
    """
    kept = np.arange(len(points))
    while True:
        reach = min(k, len(kept) - 1)
        chosen = points if len(kept) == len(points) else points[kept]
        squares, numbers = nearest_neighbours(chosen, reach)
        nearest = np.where(squares <= alike, numbers, len(kept)).min(axis=1, initial=len(kept))
        earlier = nearest < np.arange(len(kept))
        if not earlier.any():
            return squares, numbers, kept
        kept = kept[~earlier]


def settled(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow each point's reference to an earlier point until it refers to itself."""
    while (first[first] != first).any():
        first = first[first]
    return first


def sparse_matrix(points: Values, k: int, alike: float) -> tuple[Any, Values]:
    """Return the diffusion matrix of the distinct points, by k neighbours, and its eigenvector for eigenvalue 1.

    The matrix is a SciPy sparse array [m, m]; the vector [m] holds the roots of the kernel's row sums.
    """
    from scipy.sparse import coo_array, eye_array  # imported here: it takes a tenth of a second

    squares, numbers, _ = different_neighbours(points, k, alike)
    n, k = squares.shape
    if k == 0:
        return eye_array(1, format="csr"), np.ones(1)
    width = np.sqrt(squares[:, -1])
    with np.errstate(over="ignore", under="ignore"):
        near = np.exp(-(squares / width[:, None]) / width[numbers])
    rows = np.repeat(np.arange(n), k)
    one_way = coo_array((near.ravel(), (rows, numbers.ravel())), shape=(n, n)).tocsr()
    kernel = one_way.maximum(one_way.T).tocsr() + eye_array(n, format="csr")
    rows = np.repeat(np.arange(n), np.diff(kernel.indptr))
    for power in (1.0, 0.5):
        sums = kernel.sum(axis=1)
        scale = sums**-power
        kernel.data *= scale[rows]
        kernel.data *= scale[kernel.indices]
    return kernel, np.sqrt(sums)


class KnnOperator:
    """The square of a sparse diffusion matrix S [n, n], for products with blocks of vectors in float64.

    S may have eigenvalues below 0; those of its square are between 0 and 1, as the quadrature needs.
    """

    def __init__(self, matrix: Any, roots: Values) -> None:
        self._matrix = matrix
        self.n = matrix.shape[0]
        self._top = roots / np.linalg.norm(roots)
        starts = range(0, self.n, _ROWS_AT_ONCE)
        self._rows = [matrix[start : start + _ROWS_AT_ONCE] for start in starts]
        self.trace = float(matrix.multiply(matrix).sum()) - 1
        self.squared_norm = self._sum_of_squared_square() - 1
        self.trace_error = FLOAT64_NOISE * (self.trace + 1)

    def _sum_of_squared_square(self) -> float:
        def of_rows(rows: Any) -> float:
            block = rows @ self._matrix
            return float(block.data @ block.data)

        return sum(in_threads(of_rows, self._rows))

    def squared_norm_error(self, noise: float) -> float:
        """Return how far the squared norm may be off."""
        return FLOAT64_NOISE * (self.squared_norm + 1)

    def normalise(self, sketch: Array) -> Array:
        """Return an orthonormal basis [n, 1 + k] of the eigenvector for eigenvalue 1 and the product with a sketch."""
        product = self._twice(sketch)
        basis: Values = np.linalg.qr(np.column_stack([self._top, product])).Q
        return basis

    def times(self, X: Array) -> Array:
        """Return the product of the matrix without its eigenvalue 1 with a block of vectors, float64 [n, k]."""
        product = self._twice(X)
        product -= self._top[:, None] * (self._top[None, :] @ product)
        return product

    def noise(self, X: Array, product: Array) -> Array:
        """Return how far a product is off for each of its vectors, as a share of the vector's length: [k]."""
        return np.full(X.shape[1], FLOAT64_NOISE)

    def _twice(self, X: Array) -> Array:
        return self._once(self._once(X))

    def _once(self, X: Array) -> Array:
        return np.concatenate(in_threads(lambda rows: rows @ X, self._rows))
