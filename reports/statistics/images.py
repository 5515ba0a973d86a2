"""Images that decide between models, and images that no model recognises."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .classes import Images


@dataclass(frozen=True)
class Judged:
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


def judged(
    images: Images,
    names: Sequence[str],
    hits: np.ndarray,
    is_best: np.ndarray,
    taken_for: np.ndarray | None,
) -> Judged:
    """Count the models that recognise each image.

    Parameters
    ----------
    names
        Of the m images.
    hits
        Of the models that beat the baseline, bool [k, m].
    is_best
        Which of them are tied for first, bool [k].
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
    return Judged(table, order[is_disputed[order]], missed)
