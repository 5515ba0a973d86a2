"""Accuracy of classifiers by class and by image, and the classes that they confuse."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsmi_zoo.pipeline.measures.core.hits import wilson_interval


@dataclass(frozen=True)
class Images:
    """The images of a run in the order of the hits in its rows: each one's class, int64 [m], and the classes' names."""

    classes: np.ndarray
    names: tuple[str, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Images in each class, int64 [k]."""
        return np.bincount(self.classes, minlength=len(self.names))


def images_of(subset: pd.DataFrame, names: Sequence[str] | None) -> Images:
    """Return the images of ``subset.parquet``; repeats of an image count once.

    Parameters
    ----------
    names
        The classes' names in the order of their labels; if None or of another number, those of the images' folders,
        or else the labels.
    """
    first = ~subset["image"].duplicated()
    images = subset[first]
    labels, classes = np.unique(images["label"].to_numpy(), return_inverse=True)
    if names is None or len(names) != len(labels):
        folders = images["image"].astype(str).str.rpartition("/")[0].to_numpy()
        names = [_name(folders[classes == i], label) for i, label in enumerate(labels.tolist())]
    return Images(classes, tuple(names))


def _name(folders: np.ndarray, label: int) -> str:
    """Return the one folder of a class's images, or else its label."""
    return str(folders[0]) if folders[0] and (folders == folders[0]).all() else str(label)


@dataclass(frozen=True)
class ClassAccuracy:
    """The accuracy (%) of one class of ``images`` images, with Wilson's 95% interval."""

    correct: int
    images: int

    @property
    def value(self) -> float:
        """The accuracy, in percent."""
        return 100 * self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval, in percent."""
        return wilson_interval(self.correct, self.images)


def class_accuracies(hits: np.ndarray, images: Images) -> list[ClassAccuracy]:
    """Return the accuracy of each class, from whether each image was classified correctly, bool [m]."""
    correct = np.bincount(images.classes, weights=hits, minlength=len(images.names))
    return [ClassAccuracy(int(c), int(n)) for c, n in zip(correct, images.sizes, strict=True)]


def confusion(predicted: np.ndarray, images: Images) -> np.ndarray:
    """Return how many images of each class (row) were taken for each class (column), int64 [k, k]."""
    k = len(images.names)
    return np.bincount(images.classes * k + predicted, minlength=k * k).reshape(k, k)


def most_confused(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """Return the pairs (class, taken for, images) that are confused most often, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(*divmod(int(place), len(matrix)), int(wrong.flat[place])) for place in order]
    return [pair for pair in pairs if pair[2]]


@dataclass(frozen=True)
class JudgedImages:
    """Each image of a run, and the models that recognise it by the probe.

    Attributes
    ----------
    table
        One row per image: ``image`` (its name), ``class``, ``best_right`` of ``best`` tied models, ``right`` of
        ``models`` that beat the baseline, and ``taken_for``, the class that the best model predicts ("" if unknown).
    disputed
        Rows that some of the tied models recognise and others do not, the most evenly split first.
    missed
        Rows that no model recognises; empty for a single model, whose errors are no sign of a wrong label.
    """

    table: pd.DataFrame
    disputed: np.ndarray
    missed: np.ndarray


def judge_images(
    images: Images,
    names: Sequence[str],
    hits: np.ndarray,
    is_best: np.ndarray,
    taken_for: np.ndarray | None,
) -> JudgedImages:
    """Count the models that recognise each image.

    Parameters
    ----------
    names
        The names of the m images.
    hits
        The hits of the models that beat the baseline, bool [k, m].
    is_best
        Which of these models are tied for first, bool [k].
    taken_for
        The class that the best model predicts for each image, int64 [m], numbered as ``images.names``; None if unknown.
    """
    models, best = len(hits), int(is_best.sum())
    right, best_right = hits.sum(axis=0), hits[is_best].sum(axis=0)
    of_classes = np.array(images.names, dtype=object)
    table = pd.DataFrame(
        {
            "image": list(names),
            "class": of_classes[images.classes],
            "best_right": best_right,
            "best": best,
            "right": right,
            "models": models,
            "taken_for": "" if taken_for is None else of_classes[taken_for],
        }
    )
    is_disputed = (best_right > 0) & (best_right < best)
    order = np.lexsort((right, np.abs(2 * best_right - best)))
    missed = np.flatnonzero(right == 0) if models > 1 else np.array([], dtype=np.int64)
    return JudgedImages(table, order[is_disputed[order]], missed)
