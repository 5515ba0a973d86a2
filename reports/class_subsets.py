"""How far the primary correlation depends on the choice of classes: DSMI(Z;Y) anew on random halves of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ..pipeline.config import MeasureSettings
from ..pipeline.measures.arrays import block_of
from ..pipeline.measures.inputs import as_sigma
from ..pipeline.measures.mutual_information import (
    exact_entropies,
    mutual_information,
    random_subset_entropies,
)
from ..pipeline.measures.spectrum import squared_distances, subset_kernels
from ..pipeline.record import RunRecord
from ..pipeline.store import embedding_path, read_embedding
from ..pipeline.stored_subset import read_subset
from .correlation import why_undefined
from .sample import one_row_per_weights, values

SUBSETS = 50


def class_subset_correlations(
    out: Path,
    rows: pd.DataFrame,
    run: RunRecord,
    target: str,
    subsets: int = SUBSETS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Spearman's correlation of DSMI(Z;Y) with the target on each of ``subsets`` random halves of the classes.

    Parameters
    ----------
    out
        The run's directory, with its kept embeddings; models without one are left out.
    progress
        Called with the number of models done, and of all.

    Returns
    -------
    list of float
        One for each half that leaves the correlation defined.
    """
    labels = read_subset(out)["label"].to_numpy()
    classes = np.unique(labels)
    halves = [
        np.sort(
            np.random.default_rng([0, i]).choice(classes, max(2, len(classes) // 2), replace=False)
        )
        for i in range(subsets)
    ]
    settings = run.config.measures
    origin = run.embeddings_from or out
    slugs = {(entry.model, entry.img_size): entry.slug for entry in run.entries}
    sample = one_row_per_weights(rows)
    paths = [
        embedding_path(origin, slugs[key])
        for key in zip(sample["model"], sample["img_size"], strict=True)
    ]
    dsmi = np.full((len(sample), subsets), np.nan)
    for number, (path, sha256) in enumerate(zip(paths, sample["embedding_sha256"], strict=True)):
        if path.exists():
            dsmi[number] = _dsmi_on(read_embedding(path, sha256), labels, halves, settings)
        progress(number + 1, len(sample))
    y = values(sample, target)
    known = [np.isfinite(column) & np.isfinite(y) for column in dsmi.T]
    return [
        float(spearmanr(x[k], y[k]).statistic)
        for x, k in zip(dsmi.T, known, strict=True)
        if why_undefined(x[k], y[k]) is None
    ]


def _dsmi_on(
    Z: np.ndarray, labels: np.ndarray, halves: list[np.ndarray], settings: MeasureSettings
) -> list[float]:
    """DSMI(Z;Y) on each choice of classes; distances are those of all points, once."""
    Z = Z.astype(np.float64)
    squares, sigma = squared_distances(Z), as_sigma(settings.sigma, Z.shape[1])
    values = []
    for half in halves:
        rows = np.flatnonzero(np.isin(labels, half))
        entropies_of = exact_entropies(subset_kernels(block_of(squares, rows), sigma), settings.t)
        random_entropy = random_subset_entropies(
            entropies_of, len(rows), settings.repetitions, settings.seed
        )
        values.append(
            mutual_information(
                np.searchsorted(half, labels[rows]), entropies_of, random_entropy
            ).value
        )
    return values
