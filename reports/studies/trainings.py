"""What the studies of trainings say: curves over epochs by regime or initialisation, and the claims about them.

All trainings are of one network, so every claim names it.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.studies.trainings import ARCHITECTURE

from ..figures.curves import Panel, curves, lines_of
from ..page.parts import Illustration, Section, table_of_words
from ..page.rendering import figure_name, prose
from ..statistics.sample import values
from ..wording import fixed, measure_title, measure_unit
from .claims import Claim, above, different, flat, undecided

RISE = 0.1  # bits: less than this over a training is no rise
BETTER = 1.0  # percentage points of test accuracy: less than this is no advantage
REGIMES = ("supervised", "contrastive", "shuffled labels")
TITLES = {"top1": "Test accuracy", "train_accuracy": "Accuracy on the training labels"}


def rises(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """The rise of a measure over each training, float64 [seeds]: that of a straight line over the checkpoints.

    Checkpoints count evenly, whatever their epochs, which stand closer together at the beginning.
    """
    slopes = []
    for _, part in rows.sort_values("epoch").groupby("training_seed"):
        y = values(part, measure)
        if len(y) > 1 and np.isfinite(y).all():
            slopes.append(
                float(np.polynomial.Polynomial.fit(np.arange(len(y)), y, 1).convert().coef[1])
                * (len(y) - 1)
            )
    return np.array(slopes)


def dynamics_claims(runs: Mapping[str, pd.DataFrame]) -> list[Claim]:
    """Claims about trainings; ``runs`` are the rows of each data set, the first of which has all regimes."""
    name, rows = next(iter(runs.items()))
    by = {regime: rows[rows["group"] == regime] for regime in REGIMES}
    what = "rise of a straight line over the checkpoints, in bits"
    where = f"{ARCHITECTURE} on {name}"

    def rising(measure: str, regime: str, words: str) -> Claim:
        return above(
            f"{measure_title(measure)} rises {words} ({where})",
            rises(by[regime], measure),
            RISE,
            what,
        )

    claims = [
        rising("dse_z", "supervised", "during supervised training"),
        rising("dse_z", "contrastive", "during contrastive training"),
        rising("dse_z", "shuffled labels", "during training on shuffled labels"),
        rising("dsmi_z_y", "supervised", "when supervised learning generalises"),
        rising("dsmi_z_y", "contrastive", "when contrastive learning generalises"),
        flat(
            f"DSMI(Z;Y), Y the true classes, stays flat when shuffled labels are learnt by heart ({where})",
            rises(by["shuffled labels"], "dsmi_z_y"),
            RISE,
            what,
        ),
    ]
    others = list(runs)[1:]
    for other in others:
        theirs = runs[other]
        theirs = theirs[theirs["group"] == "supervised"]
        claims.append(
            different(
                f"The course of DSMI(Z;X) differs by data set ({where} and {other}, supervised)",
                rises(by["supervised"], "dsmi_z_x"),
                rises(theirs, "dsmi_z_x"),
                RISE,
                f"difference of the {what}",
            )
        )
    if not others:
        claims.append(
            undecided("The course of DSMI(Z;X) differs by data set", "needs two data sets", what)
        )
    return claims


def dynamics_section(runs: Mapping[str, pd.DataFrame]) -> Section:
    """Curves of each data set over epochs, by regime."""
    figures = []
    for name, rows in runs.items():
        shown = ("dse_z", "dsmi_z_y", "dsmi_z_x", "probe_accuracy", "top1", "train_accuracy")
        panels = [_panel(rows, measure, REGIMES) for measure in shown]
        seeds = counted(rows["training_seed"].nunique(), "seed")
        drawing = curves(panels, f"Trainings on {name} over epochs.")
        figures.append(
            Illustration(
                figure_name("dynamics", name), drawing, f"{name}, {seeds}; bands span them."
            )
        )
    first = next(iter(runs.values()))
    ends = first[first["epoch"] == first["epoch"].max()].groupby("group")
    columns = (
        "dse_z",
        "dsmi_z_y",
        "dsmi_z_y_null",
        "dsmi_z_x",
        "probe_accuracy",
        "top1",
        "train_accuracy",
    )
    heads = ["Regime", *(TITLES.get(column, measure_title(column)) for column in columns)]
    words = [[str(regime), *(_mean(part, column) for column in columns)] for regime, part in ends]
    return Section(
        "dynamics",
        "Training dynamics",
        prose("dynamics"),
        [
            table_of_words(
                f"After the last epoch ({next(iter(runs))}), means over seeds", heads, words
            )
        ],
        figures,
    )


def initialisation_claims(rows: pd.DataFrame) -> list[Claim]:
    """Claims about trainings that begin with a low and with a high DSE, seed by seed."""
    low, high = extremes(rows)
    trained = rows[rows["epoch"] > 0]
    by = {std: trained[trained["convolution_std"] == std] for std in (low, high)}
    names = f"{ARCHITECTURE}, std {low:g} against {high:g}"

    def advantage(of: str) -> np.ndarray:
        chosen = {
            std: part if of == "mean" else part[part["epoch"] == part["epoch"].max()]
            for std, part in by.items()
        }
        means = {std: part.groupby("training_seed")["top1"].mean() for std, part in chosen.items()}
        return (means[low] - means[high]).dropna().to_numpy(dtype=float)

    start = (
        rows[rows["epoch"] == 0]
        .groupby(["convolution_std", "training_seed"])["dse_z"]
        .mean()
        .unstack(0)
    )
    return [
        above(
            f"The standard deviation of the initial weights moves DSE before training ({names})",
            (start[high] - start[low]).dropna().to_numpy(dtype=float),
            RISE,
            "difference of DSE, in bits",
        ),
        above(
            f"A lower initial DSE converges faster ({names})",
            advantage("mean"),
            BETTER,
            "difference of the mean test accuracy over the checkpoints, in percentage points",
        ),
        above(
            f"A lower initial DSE ends better ({names})",
            advantage("end"),
            BETTER,
            "difference of the test accuracy after the last epoch, in percentage points",
        ),
    ]


def extremes(rows: pd.DataFrame) -> tuple[float, float]:
    """The standard deviations of the lowest and of the highest mean DSE before training, among those trained if any.

    Those trained were chosen by the untrained networks of fewer seeds; with all seeds two others may be the extremes.
    """
    trained = rows.loc[rows["epoch"] > 0, "convolution_std"].unique()
    chosen = rows[rows["convolution_std"].isin(trained)] if len(trained) else rows
    start = chosen[chosen["epoch"] == 0].groupby("convolution_std")["dse_z"].mean()
    stds = start.index.to_numpy(dtype=float)
    return float(stds[start.argmin()]), float(stds[start.argmax()])


def initialisation_section(rows: pd.DataFrame) -> Section:
    """DSE before training over the standard deviation, and the trainings from both ends."""
    low, high = extremes(rows)
    begun = _of_common_seeds(rows[rows["epoch"] == 0])
    trained = rows[rows["convolution_std"].isin([low, high])]
    order = (f"std {low:g}", f"std {high:g}")
    panels = [
        Panel(
            "DSE before training",
            "standard deviation of the weights",
            "bits",
            lines_of(begun, "convolution_std", "dse_z", None),
        ),
        _panel(trained, "top1", order),
        _panel(trained, "dse_z", order),
    ]
    drawing = curves(panels, "DSE by initial weights, and trainings from both ends.")
    return Section(
        "initialisation",
        "Initialisation",
        prose("initialisation"),
        figures=[Illustration("initialisation", drawing, "Bands span seeds.")],
    )


def _of_common_seeds(begun: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that every standard deviation has: trainings have more of them."""
    stds = begun.groupby("training_seed")["convolution_std"].nunique()
    return begun[begun["training_seed"].isin(stds.index[stds == stds.max()])]


def _panel(rows: pd.DataFrame, measure: str, order: tuple[str, ...]) -> Panel:
    unit = "%" if measure in TITLES else measure_unit(measure)
    return Panel(
        TITLES.get(measure, measure_title(measure)),
        "epoch",
        unit,
        lines_of(rows, "epoch", measure, "group", order),
    )


def _mean(rows: pd.DataFrame, column: str) -> str:
    known = values(rows, column)
    known = known[np.isfinite(known)]
    return fixed(float(known.mean()) if len(known) else None)
