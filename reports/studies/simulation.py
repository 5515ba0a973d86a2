"""What the study on simulated data says: order, drift and time of each estimator, and the claims about them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from ..figures.curves import Panel, curves, lines_of
from ..page.parts import Illustration, Section, table_of_words
from ..page.rendering import prose
from ..wording import fixed, significant
from .claims import Claim, above, below

KEPT, LOST = 0.9, 0.5  # Kendall's tau with the known order: kept above, lost below
GONE, HALVED = 0.1, 0.5  # a value as a share of what it should be, or was in few dimensions
MANY = 50  # dimensions from which the paper sees the others fall
TITLES = {
    "tree": "trees by branches",
    "blobs": "blobs by clusters",
    "labels": "labels by corruption",
}


def orders(rows: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau of the values with the truth over the levels: one row per kind, d, noise, seed and measure.

    A measure that does not move at all has kept no order: 0.
    """

    def tau(part: pd.DataFrame) -> float:
        if part["value"].max() - part["value"].min() < 1e-9:
            return 0.0
        return float(kendalltau(part["value"], part["truth"]).statistic)

    keys = ["kind", "d", "noise", "seed", "measure"]
    return pd.DataFrame(
        [
            {**dict(zip(keys, key, strict=True)), "tau": tau(part)}
            for key, part in rows.groupby(keys)
        ]
    )


def claims_of(rows: pd.DataFrame) -> list[Claim]:
    """The paper's claims about simulated data (its Figures 2 and 3), decided over seeds."""
    tau = orders(rows)
    many = rows[rows["d"] >= MANY]
    least, most = int(rows["d"].min()), int(rows["d"].max())
    noises = f"{rows['noise'].min():.0%} to {rows['noise'].max():.0%} noise"

    def kept(kind: str, measure: str, d: int = 0) -> np.ndarray:
        chosen = tau[
            (tau["kind"] == kind) & tau["measure"].str.startswith(measure) & (tau["d"] >= d)
        ]
        return chosen.groupby("seed")["tau"].mean().to_numpy()

    def share(measure: str) -> np.ndarray:
        chosen = many[
            (many["kind"] == "labels")
            & many["measure"].str.startswith(measure)
            & (many["level"] == 0)
        ]
        return (
            chosen.assign(share=chosen["value"] / chosen["truth"])
            .groupby("seed")["share"]
            .mean()
            .to_numpy()
        )

    def left(measure: str) -> np.ndarray:
        chosen = rows[
            (rows["kind"] == "labels") & (rows["measure"] == measure) & (rows["level"] == 0)
        ]
        by = chosen.pivot_table(index="seed", columns="d", values="value")
        return (by[most] / by[least]).to_numpy()

    order = "Kendall's tau with the known order, a mean over dimensions and noises"
    value = "value with true labels over their entropy, a mean over noises"
    ratio = (
        f"value with true labels in {most:,} dimensions over that in {least}, a mean over noises"
    )
    claims = [
        above(
            f"DSE keeps the order of {TITLES[kind]}, from {least} to {most:,} dimensions and {noises}",
            kept(kind, "DSE"),
            KEPT,
            order,
        )
        for kind in ("tree", "blobs")
    ]
    claims += [
        below(
            f"Binned entropy loses the order of {TITLES[kind]} from {MANY} dimensions on",
            kept(kind, "binned", MANY),
            LOST,
            order,
        )
        for kind in ("tree", "blobs")
    ]
    return [
        *claims,
        above(
            f"DSMI keeps the order of corrupted labels, from {least} to {most:,} dimensions and {noises}",
            kept("labels", "DSMI"),
            KEPT,
            order,
        ),
        above(f"DSMI stays from {least} to {most:,} dimensions", left("DSMI"), HALVED, ratio),
        *(
            below(
                f"{words} loses the order of corrupted labels from {MANY} dimensions on",
                kept("labels", measure, MANY),
                LOST,
                order,
            )
            for measure, words in {
                "binned": "Binned mutual information",
                "KSG": "KSG",
                "MINE": "MINE",
            }.items()
        ),
        below(
            f"Binned mutual information falls to 0 from {MANY} dimensions on",
            share("binned"),
            GONE,
            value,
        ),
        below(f"KSG falls to 0 from {MANY} dimensions on", share("KSG"), GONE, value),
        below("MINE decays with the dimension", left("MINE"), HALVED, ratio),
    ]


def section(rows: pd.DataFrame) -> Section:
    """The curves, and a table of order, drift and time."""
    tau = orders(rows)
    least, most = int(rows["d"].min()), int(rows["d"].max())
    noise = sorted(rows["noise"].unique())[len(rows["noise"].unique()) // 2]
    entropy, information = [], []
    for kind in ("tree", "blobs"):
        of_kind = rows[rows["kind"] == kind]
        title = TITLES[kind].capitalize()
        for d in (least, most):
            part = of_kind[(of_kind["d"] == d) & (of_kind["noise"] == noise)]
            x = TITLES[kind].split(" by ")[1]
            entropy.append(
                Panel(
                    f"{title}, d = {d:,}",
                    x,
                    "bits",
                    lines_of(part, "level", "value", "measure"),
                    True,
                )
            )
        taus = lines_of(tau[tau["kind"] == kind], "d", "tau", "measure")
        entropy.append(Panel("Order kept", "dimensions", "Kendall's tau", taus, True))
    labels = rows[rows["kind"] == "labels"]
    for d in (least, most):
        part = labels[(labels["d"] == d) & (labels["noise"] == noise)]
        information.append(
            Panel(
                f"d = {d:,}",
                "share of labels corrupted",
                "bits",
                lines_of(part, "level", "value", "measure"),
            )
        )
    true = labels[labels["level"] == 0]
    information += [
        Panel(
            "With true labels", "dimensions", "bits", lines_of(true, "d", "value", "measure"), True
        ),
        Panel(
            "Order kept",
            "dimensions",
            "Kendall's tau",
            lines_of(tau[tau["kind"] == "labels"], "d", "tau", "measure"),
            True,
        ),
        Panel(
            "With true labels", "noise", "bits", lines_of(true, "noise", "value", "measure"), True
        ),
        Panel(
            "Time of one estimate",
            "dimensions",
            "seconds",
            lines_of(labels, "d", "seconds", "measure"),
            True,
        ),
    ]
    heads = [
        "Data",
        "Measure",
        "Mean tau",
        "Least tau",
        "Drift under noise",
        "Drift with dimension",
        f"Seconds at {most:,}",
    ]
    words = []
    for kind, title in TITLES.items():
        for measure in rows.loc[rows["kind"] == kind, "measure"].unique():
            part = rows[(rows["kind"] == kind) & (rows["measure"] == measure)]
            its = tau[(tau["kind"] == kind) & (tau["measure"] == measure)]
            words.append([title, str(measure), *_row(part, its)])
    spans = f"noise {noise:.0%} where it is one; bands span noises and seeds"
    entropy_drawing = curves(entropy, "Entropy of trees and blobs by estimator.")
    information_drawing = curves(information, "Information by estimator.")
    return Section(
        "simulated",
        "Simulated data",
        prose("simulated"),
        [table_of_words("Order, drift and time", heads, words, text_columns=(0, 1))],
        [
            Illustration("simulated-entropy", entropy_drawing, f"Entropy; {spans}."),
            Illustration("simulated-information", information_drawing, f"Information; {spans}."),
        ],
    )


def _row(part: pd.DataFrame, tau: pd.DataFrame) -> list[str]:
    times = part.loc[part["d"] == part["d"].max(), "seconds"]
    drifts = drift(part)
    return [
        fixed(float(tau["tau"].mean())),
        fixed(float(tau["tau"].min())),
        *(significant(drifts[name], 2) for name in ("noise", "d")),
        significant(float(times.median()), 2),
    ]


def drift(part: pd.DataFrame) -> Mapping[str, float]:
    """How far one measure of one kind of data moves with ``noise`` and with ``d`` where it should not.

    Mean distance from the value at the least noise (dimension), all else equal, over the measure's range over levels
    at the least noise and dimension; infinite if it has none.
    """
    in_few_dimensions = part["d"] == part["d"].min()
    with_little_noise = part["noise"] == part["noise"].min()
    base = part[in_few_dimensions & with_little_noise]
    means = base.groupby("level")["value"].mean()
    span = float(means.max() - means.min())
    drifts = {}
    for name, other in (("noise", "d"), ("d", "noise")):
        values = part.pivot_table(index=["level", "seed", other], columns=name, values="value")
        moved = (
            values.sub(values[values.columns.min()], axis=0)
            .abs()
            .drop(columns=values.columns.min())
        )
        drifts[name] = (
            float(moved.to_numpy().mean()) / span if span > 1e-9 and moved.size else float("nan")
        )
    return drifts
