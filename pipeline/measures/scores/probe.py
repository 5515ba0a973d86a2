"""Accuracy of a ridge probe, on one embedding or two, each image left out in closed form: nothing is random."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array, as_array_like, namespace, rows_of, stacked_rows, to_host
from ..core.context import MeasureContext
from ..core.hits import most_repeats, pack_hits, wilson_interval
from ..core.registry import accuracy, column
from ..core.settings import MeasureSettings

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""The penalties that the probe chooses from, in units of the mean of the min(n, d) eigenvalues of the scatter.

With a larger penalty and an embedding without signal, only the intercept remains. Fitted without an image, it leans
against that image's class, so the accuracy of noise would be 0, not chance.
"""


@accuracy("probe_accuracy", task="decomposition")
def hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return whether a ridge probe that has not seen an image classifies it correctly, bool [images].

    The ridge classifier is least squares on targets of 1 for the class and -1 for the others, with an intercept and a
    penalty on the squared weights. Features are centred and share one scale; none is standardised separately. The
    penalty is the one of ``PENALTIES`` with the least squared error over images left out. One penalty serves all
    classes and images: its choice does use every image, but only to pick one of six values. Images are in order of
    appearance; one is classified correctly if most of its repeats are.

    References
    ----------
    scikit-learn's ``RidgeClassifier``, refitted without each image; the closed form is Allen's PRESS (1974), for rows
    that are left out together: y - yhat without them = (1 - H_II)^-1 (y_I - yhat_I), H the hat matrix.
    """
    return most_repeats(predicted(context) == context.classes, context.images)


def predicted(context: MeasureContext) -> NDArray[np.int64]:
    """Return the class that the probe of ``hits`` predicts for each row, int64 [n], numbered as ``context.classes``."""
    return _best_fit(context)[1]


def fitted(context: MeasureContext) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probe of ``hits``, fitted to all images: weights [d, classes] and intercepts [classes].

    It predicts the class with the largest of ``Z @ weights + intercepts``; classes are numbered as ``context.classes``.
    """
    decomposition, classes = context.decomposition, context.classes
    penalty, _ = _best_fit(context)
    xp, n, sizes = namespace(decomposition.squares), len(classes), np.bincount(classes)
    scale = float(xp.sum(decomposition.squares)) / min(n, context.d)
    projected = 2 * decomposition.class_sums(classes).T
    shrunk = projected / (decomposition.squares + penalty * scale)[:, None]
    of_scaled = to_host(decomposition.matrix.T @ (decomposition.left_vectors @ shrunk))
    weights = np.ldexp(of_scaled, -context.exponent)
    mean = to_host(context.points.values).mean(axis=0)
    return weights, 2 * sizes / n - 1 - mean @ weights


def _best_fit(context: MeasureContext) -> tuple[float, NDArray[np.int64]]:
    """Return the penalty with the least squared error over images left out, and the classes predicted with it."""
    decomposition, classes, images = context.decomposition, context.classes, context.images
    U, squares = decomposition.left_vectors, decomposition.squares
    xp = namespace(squares)
    n, sizes = len(classes), np.bincount(classes)
    is_of_class = classes[:, None] == np.arange(len(sizes))
    targets = as_array_like(np.where(is_of_class, 1.0, -1.0), U)
    means = as_array_like(2 * sizes / n - 1, U)
    # Projections of the targets; the -1 of every row is orthogonal to U.
    projected = 2 * decomposition.class_sums(classes).T
    least, best, predictions = np.inf, PENALTIES[0], classes
    scale = float(xp.sum(squares)) / min(n, context.d)
    without_images = _without_images(U, images)
    for penalty in PENALTIES:
        shrunk = squares / (squares + penalty * scale)
        residuals = without_images(targets - means - U @ (shrunk[:, None] * projected), shrunk)
        error = float(xp.sum(residuals * residuals))
        if error < least:
            least, best = error, penalty
            predictions = to_host(xp.argmax(targets - residuals, axis=1))
    return best, predictions


def _without_images(U: Array, images: NDArray[np.int64]) -> Callable[[Array, Array], Array]:
    """Return the function that computes the residuals [n, classes] of fits that have not seen the row's image.

    Its arguments are the residuals of the fit to all rows, and the share of each direction of U [n, r] that the penalty
    leaves, [r].
    """
    xp, n, repeats = namespace(U), len(images), np.bincount(images)
    if repeats.max() == 1:
        squared = U * U
        return lambda residuals, shrunk: residuals / (1 - 1 / n - squared @ shrunk)[:, None]

    by_image = np.argsort(images, kind="stable")
    # Images with equally many repeats are solved together: their rows [m, r], and these rows of U [m, r, rank].
    blocks = [by_image[(repeats == r)[images[by_image]]].reshape(-1, r) for r in np.unique(repeats)]
    vectors = [stacked_rows(U, rows) for rows in blocks]
    back = np.argsort(np.concatenate([rows.ravel() for rows in blocks]))

    def without(residuals: Array, shrunk: Array) -> Array:
        solved = []
        for rows, of_rows in zip(blocks, vectors, strict=True):
            hat = 1 / n + (of_rows * shrunk) @ xp.matrix_transpose(of_rows)
            identity = as_array_like(np.eye(rows.shape[1]), U)
            of_block = xp.linalg.solve(identity[None, :, :] - hat, stacked_rows(residuals, rows))
            solved.append(xp.reshape(of_block, (-1, residuals.shape[1])))
        return rows_of(xp.concat(solved), back)

    return without


def _interval(context: MeasureContext) -> tuple[float, float]:
    return wilson_interval(int(hits(context).sum()), len(hits(context)))


@column("probe_low", task="decomposition")
def probe_low(context: MeasureContext) -> float:
    """Return the lower limit of the accuracy's interval, in percent."""
    return _interval(context)[0]


@column("probe_high", task="decomposition")
def probe_high(context: MeasureContext) -> float:
    """Return the upper limit of the accuracy's interval, in percent."""
    return _interval(context)[1]


@column("probe_hits", task="decomposition")
def probe_hits(context: MeasureContext) -> str:
    """Return which images are classified correctly, as text."""
    return pack_hits(hits(context))


def comparable(Z: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return an embedding [n, d], centred and with a total variance of 1, so that two weigh the same in a probe."""
    centred = Z.astype(np.float64)
    centred /= np.abs(centred).max() or 1.0  # squares stay in range
    centred -= centred.mean(axis=0)
    norm = np.sqrt(np.einsum("ij,ij->", centred, centred) / len(Z))
    return centred / norm if norm > 0 else centred


def pair_hits(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    labels: NDArray[np.int64],
    images: NDArray[np.str_],
) -> NDArray[np.bool_]:
    """Return whether a probe on both embeddings that has not seen an image recognises it, bool [images].

    It is the probe of ``probe_accuracy`` on [n, d1 + d2]: leave-one-out ridge in closed form.

    Parameters
    ----------
    first, second
        Embeddings from ``comparable``, [n, d1] and [n, d2].
    labels, images
        The class and the image of each row, [n].

    Raises
    ------
    UndefinedScore
        When there is only one class.
    """
    both = np.concatenate([first, second], axis=1)
    return hits(MeasureContext(both, labels, images, None, MeasureSettings()))


def work_of(n: int, d: int) -> float:
    """Return the approximate floating-point operations of ``pair_hits`` on n rows of d = d1 + d2 dimensions."""
    return float(n) * d * min(n, d)
