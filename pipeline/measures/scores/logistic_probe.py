"""Accuracy of a linear probe as most papers report it: cross-validated logistic regression on standardised features."""

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import to_host
from ..core.checks import UndefinedScore
from ..core.context import MeasureContext
from ..core.hits import first_rows, most_repeats
from ..core.registry import accuracy

FOLDS, INNER_FOLDS = 5, 2
CHOICES = (1e-3, 1e-2, 0.1, 1.0)
"""The values of scikit-learn's C, the inverse of the penalty, that the inner folds choose from."""

TOLERANCE, STEPS = 1e-3, 1000  # of L-BFGS

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


@accuracy("logistic_probe_accuracy", task="values")
def hits(context: MeasureContext) -> NDArray[np.bool_]:
    """Return whether a logistic regression that has not seen an image classifies it correctly, bool [images].

    Each of five folds is predicted by a regression on the others, with features standardised on these and an intercept.
    The penalty on squared weights is the one of CHOICES that classifies most rows correctly in a two-fold
    cross-validation within the training folds; ties go to the stronger penalty. Folds hold whole images, in equal
    shares of each class, drawn by the seed. An image is classified correctly if most of its repeats are. Undefined if
    a class has fewer than three images.

    References
    ----------
    scikit-learn's ``LogisticRegression`` and ``StandardScaler``; Kornblith, Shlens and Le, Do better ImageNet models
    transfer better?, CVPR 2019 (arXiv 1805.08974).
    """
    classes, images = context.classes, context.images
    of_image = classes[first_rows(images)]
    fewest = int(np.bincount(of_image).min())
    if fewest < 1 + INNER_FOLDS:
        raise UndefinedScore(
            f"a class has {fewest} images, folds within folds need {1 + INNER_FOLDS}"
        )
    values = to_host(context.centred_values)
    generator = np.random.default_rng(context.settings.seed)
    predicted = np.empty_like(classes)
    for train, test in _folds(images, of_image, np.arange(len(of_image)), FOLDS, generator):
        right = dict.fromkeys(CHOICES, 0)
        inner = np.unique(images[train])
        for fit, held in _folds(images, of_image, inner, INNER_FOLDS, generator):
            for c, guess in _predictions(values, classes, fit, held, CHOICES):
                right[c] += int((guess == classes[held]).sum())
        # Of equal ones the smaller C, the stronger penalty.
        best = max(CHOICES, key=lambda c: (right[c], -c))
        ((_, predicted[test]),) = _predictions(values, classes, train, test, (best,))
    return most_repeats(predicted == classes, images)


def _folds(
    images: Numbers, of_image: Numbers, chosen: Numbers, count: int, generator: np.random.Generator
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the rows to fit and those to predict, int64, for each part of the chosen images.

    Parameters
    ----------
    images : int64 [n]
        The image of each row.
    of_image : int64 [images]
        The class of each image.
    chosen : int64 [m]
        The images to divide.
    count : int
        Number of parts.
    generator
        Draws the order of the images within a class.
    """
    shuffled = generator.permutation(chosen)
    by_class = shuffled[np.argsort(of_image[shuffled], kind="stable")]
    part = np.full(len(of_image), -1)
    part[by_class] = np.arange(len(by_class)) % count  # equally many of each class and of all
    of_row = part[images]
    for number in range(count):
        yield (
            np.flatnonzero((of_row >= 0) & (of_row != number)),
            np.flatnonzero(of_row == number),
        )


def _predictions(
    values: Array, classes: Numbers, fit: Numbers, held: Numbers, cs: tuple[float, ...]
) -> Iterator[tuple[float, Numbers]]:
    """Yield each C and the classes that a regression with it on the rows ``fit`` predicts for the rows ``held``."""
    # Imported here: they take a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(values[fit])
    known, asked = scaler.transform(values[fit]), scaler.transform(values[held])
    if known.shape[0] < known.shape[1]:  # the weights lie in the span of the rows
        basis, _ = np.linalg.qr(known.T)
        known, asked = known @ basis, asked @ basis
    # scikit-learn takes many classes of few images for a regression's target, and warns; `catch_warnings` would not do,
    # because other threads may undo it.
    warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
    model = LogisticRegression(tol=TOLERANCE, max_iter=STEPS, warm_start=True)
    for c in cs:
        model.set_params(C=c).fit(known, classes[fit])
        yield c, model.predict(asked)
