"""The studies of trainings: curves over epochs by regime or initialisation, and the claims about them.

All trainings are of one network, so every claim names it.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.studies.trajectory import ARCHITECTURE

from ..figures.curves import Panel, curves, lines_of
from ..page.rendering import Illustration, Section, figure_name, prose, table_of_words
from ..statistics.sample import values
from ..wording import fixed, measure_title, measure_unit
from .claims import Claim, above, different, flat, undecided

RISE = 0.1  # bits: less than this over a training is no rise
BETTER = 1.0  # percentage points of test accuracy: less than this is no advantage
REGIMES = ("supervised", "contrastive", "shuffled labels")
TITLES = {"top1": "Test accuracy", "train_accuracy": "Accuracy on the training labels"}
CURVES = ("dse_z", "dsmi_z_y", "dsmi_z_x", "probe_accuracy", "top1", "train_accuracy")
COLUMNS = ("dse_z", "dsmi_z_y", "dsmi_z_y_null", *CURVES[2:])


def rises(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """Return the rise of a measure over each training, float64 [seeds], by a straight line through the checkpoints.

    Checkpoints count equally, although their epochs are closer together at the beginning.
    """
    slopes = []
    for _, part in rows.sort_values("epoch").groupby("training_seed"):
        y = values(part, measure)
        if len(y) > 1 and np.isfinite(y).all():
            line = np.polynomial.Polynomial.fit(np.arange(len(y)), y, 1).convert()
            slopes.append(float(line.coef[1]) * (len(y) - 1))
    return np.array(slopes)


def dynamics_claims(runs: Mapping[str, pd.DataFrame]) -> list[Claim]:
    """Decide the claims about trainings; ``runs`` has the rows of each data set, the first one with all regimes."""
    name, rows = next(iter(runs.items()))
    by = {regime: rows[rows["group"] == regime] for regime in REGIMES}
    what = "rise of a straight line over the checkpoints, in bits"
    where = f"{ARCHITECTURE} on {name}"
    claims = []
    for measure, regime, words in (
        ("dse_z", "supervised", "during supervised training"),
        ("dse_z", "contrastive", "during contrastive training"),
        ("dse_z", "shuffled labels", "during training on shuffled labels"),
        ("dsmi_z_y", "supervised", "when supervised learning generalises"),
        ("dsmi_z_y", "contrastive", "when contrastive learning generalises"),
    ):
        claim = f"{measure_title(measure)} rises {words} ({where})"
        claims.append(above(claim, rises(by[regime], measure), RISE, what))
    claim = (
        f"DSMI(Z;Y), Y the true classes, stays flat when shuffled labels are memorised ({where})"
    )
    claims.append(flat(claim, rises(by["shuffled labels"], "dsmi_z_y"), RISE, what))
    claim = "The course of DSMI(Z;X) differs by data set"
    own = rises(by["supervised"], "dsmi_z_x")
    others = list(runs)[1:]
    for other in others:
        theirs = runs[other]
        rise = rises(theirs[theirs["group"] == "supervised"], "dsmi_z_x")
        both = f"{claim} ({where} and {other}, supervised)"
        claims.append(different(both, own, rise, RISE, f"difference of the {what}"))
    if not others:
        claims.append(undecided(claim, "needs two data sets", what))
    return claims


def dynamics_section(runs: Mapping[str, pd.DataFrame]) -> Section:
    """Return the section with the curves of each data set over epochs, by regime."""
    figures = []
    for name, rows in runs.items():
        panels = [_panel(rows, measure, REGIMES) for measure in CURVES]
        drawing = curves(panels, f"Trainings on {name} over epochs.")
        seeds = counted(rows["training_seed"].nunique(), "seed")
        caption = f"{name}, {seeds}; bands span them."
        figures.append(Illustration(figure_name("dynamics", name), drawing, caption))
    name, first = next(iter(runs.items()))
    ends = first[first["epoch"] == first["epoch"].max()].groupby("group")
    heads = ["Regime", *map(_title, COLUMNS)]
    cells = [[str(regime), *(_mean(part, column) for column in COLUMNS)] for regime, part in ends]
    table = table_of_words(f"After the last epoch ({name}), means over seeds", heads, cells)
    return Section("dynamics", "Training dynamics", prose("dynamics"), [table], figures)


def initialisation_claims(rows: pd.DataFrame) -> list[Claim]:
    """Decide the claims about trainings that begin with a low and with a high DSE, seed by seed."""
    low, high = extremes(rows)
    names = f"{ARCHITECTURE}, std {low:g} against {high:g}"
    trained = rows[rows["epoch"] > 0]
    last = trained.groupby("convolution_std")["epoch"].transform("max")
    dse = _seed_means(rows[rows["epoch"] == 0], "dse_z")
    overall = _seed_means(trained, "top1")
    at_end = _seed_means(trained[trained["epoch"] == last], "top1")
    return [
        above(
            f"The standard deviation of the initial weights changes DSE before training ({names})",
            (dse[high] - dse[low]).dropna().to_numpy(dtype=float),
            RISE,
            "difference of DSE, in bits",
        ),
        above(
            f"A lower initial DSE converges faster ({names})",
            (overall[low] - overall[high]).dropna().to_numpy(dtype=float),
            BETTER,
            "difference of the mean test accuracy over the checkpoints, in percentage points",
        ),
        above(
            f"A lower initial DSE ends better ({names})",
            (at_end[low] - at_end[high]).dropna().to_numpy(dtype=float),
            BETTER,
            "difference of the test accuracy after the last epoch, in percentage points",
        ),
    ]


def _seed_means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means by seed (rows) and standard deviation of the initial weights (columns)."""
    return rows.groupby(["convolution_std", "training_seed"])[column].mean().unstack(0)


def extremes(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the standard deviations with the lowest and highest mean DSE before training, of those trained, if any.

    Those trained were chosen from the untrained networks of fewer seeds; with all seeds, others may be the extremes.
    """
    trained = rows.loc[rows["epoch"] > 0, "convolution_std"].unique()
    chosen = rows[rows["convolution_std"].isin(trained)] if len(trained) else rows
    start = chosen[chosen["epoch"] == 0].groupby("convolution_std")["dse_z"].mean()
    stds = start.index.to_numpy(dtype=float)
    return float(stds[start.argmin()]), float(stds[start.argmax()])


def initialisation_section(rows: pd.DataFrame) -> Section:
    """Return the section with DSE before training by standard deviation, and the trainings from both ends."""
    low, high = extremes(rows)
    begun = _of_common_seeds(rows[rows["epoch"] == 0])
    trained = rows[rows["convolution_std"].isin([low, high])]
    order = (f"std {low:g}", f"std {high:g}")
    lines = lines_of(begun, "convolution_std", "dse_z", None)
    before = Panel("DSE before training", "standard deviation of the weights", "bits", lines)
    panels = [before, _panel(trained, "top1", order), _panel(trained, "dse_z", order)]
    drawing = curves(panels, "DSE by initial weights, and trainings from both ends.")
    figure = Illustration("initialisation", drawing, "Bands span seeds.")
    return Section("initialisation", "Initialisation", prose("initialisation"), figures=[figure])


def _of_common_seeds(begun: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the seeds that all standard deviations share; the trained ones have more seeds."""
    stds = begun.groupby("training_seed")["convolution_std"].nunique()
    return begun[begun["training_seed"].isin(stds.index[stds == stds.max()])]


def _panel(rows: pd.DataFrame, measure: str, order: tuple[str, ...]) -> Panel:
    unit = "%" if measure in TITLES else measure_unit(measure)
    lines = lines_of(rows, "epoch", measure, "group", order)
    return Panel(_title(measure), "epoch", unit, lines)


def _title(column: str) -> str:
    return TITLES.get(column) or measure_title(column)


def _mean(rows: pd.DataFrame, column: str) -> str:
    known = values(rows, column)
    known = known[np.isfinite(known)]
    return fixed(float(known.mean()) if len(known) else None)
