"""Comparison of two runs of the same models that differ in protocol, sigma or images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from dsmi_zoo.pipeline.config.run import differences
from dsmi_zoo.pipeline.store.record import RunRecord

from .correlation import why_undefined
from .sample import one_row_per_weights, scores_of, targets_of, values

KEY = ["model", "img_size"]


@dataclass(frozen=True)
class Compared:
    """One score of the models in both runs.

    ``agreement`` is Spearman's correlation of the score between the runs; ``here`` and ``there`` are its correlations
    with the accuracy in each. None where a column is constant or unknown.
    """

    score: str
    n: int
    agreement: float | None
    median_change: float | None
    here: float | None
    there: float | None


@dataclass(frozen=True)
class AccuracyPair:
    """One model's accuracy by the ridge probe (%) in this run and in the other one."""

    model: str
    here: float
    there: float


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison with a second run.

    ``accuracies`` are of the models with a probe in both runs, ordered by the mean of the two.
    """

    name: str
    settings: tuple[str, ...]
    only_here: int
    only_there: int
    target: str | None
    scores: tuple[Compared, ...]
    primary: tuple[np.ndarray, np.ndarray]
    is_same_images: bool
    accuracies: tuple[AccuracyPair, ...]


def compare(
    rows: pd.DataFrame, run: RunRecord, others: pd.DataFrame, other_run: RunRecord, name: str
) -> Comparison:
    """Compare the rows of two runs, model by model.

    Parameters
    ----------
    rows, run
        The run of the report.
    others, other_run, name
        The other run, and its name on the page.
    """
    here, there = one_row_per_weights(rows), one_row_per_weights(others)
    both = here[KEY].merge(there[KEY], on=KEY)
    a, b = (
        frame.set_index(KEY).loc[pd.MultiIndex.from_frame(both)].reset_index()
        for frame in (here, there)
    )
    target = next(iter(targets_of(here)), None)
    y = values(a, target) if target else np.full(len(a), np.nan)
    shared = [score for score in scores_of(here) if score in scores_of(there)]
    return Comparison(
        name,
        tuple(differences(run.identity, other_run.identity)),
        len(here) - len(both),
        len(there) - len(both),
        target,
        tuple(_compared(score, values(a, score), values(b, score), y) for score in shared),
        (values(a, "dsmi_z_y"), values(b, "dsmi_z_y")),
        run.subset.hash == other_run.subset.hash,
        _accuracies(a, b),
    )


def _accuracies(a: pd.DataFrame, b: pd.DataFrame) -> tuple[AccuracyPair, ...]:
    here, there = values(a, "probe_accuracy"), values(b, "probe_accuracy")
    known = np.flatnonzero(np.isfinite(here) & np.isfinite(there))
    models = [AccuracyPair(str(a["model"].iloc[i]), float(here[i]), float(there[i])) for i in known]
    return tuple(sorted(models, key=lambda model: -(model.here + model.there)))


def _compared(score: str, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> Compared:
    known = np.isfinite(a) & np.isfinite(b)
    change = float(np.median((b - a)[known])) if known.any() else None
    return Compared(score, int(known.sum()), _rho(a, b), change, here=_rho(a, y), there=_rho(b, y))


def _rho(x: np.ndarray, y: np.ndarray) -> float | None:
    known = np.isfinite(x) & np.isfinite(y)
    if why_undefined(x[known], y[known]):
        return None
    return float(spearmanr(x[known], y[known]).statistic)
