"""The study on simulated data: order, drift and time of each estimator, and the claims about them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from ..figures.curves import Panel, curves, lines_of
from ..page.rendering import AnyCell, Illustration, Section, prose, table_of_words
from ..wording import fixed, significant
from .claims import Claim, above, below

KEPT, LOST = 0.9, 0.5  # Kendall's tau with the known order: kept above, lost below
GONE, HALVED = 0.1, 0.5  # a value as a share of the truth, or of its value in few dimensions
MANY = 50  # dimensions from which on the other estimators fall, according to the paper
TITLES = {
    "tree": "trees by branches",
    "blobs": "blobs by clusters",
    "labels": "labels by corruption",
}


def orders(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Kendall's tau of values and truth over the levels, per kind, d, noise, seed and measure.

    A measure that does not vary has a tau of 0.
    """
    keys = ["kind", "d", "noise", "seed", "measure"]
    records = []
    for key, part in rows.groupby(keys):
        tau = 0.0
        if np.ptp(part["value"]) >= 1e-9:
            tau = float(kendalltau(part["value"], part["truth"]).statistic)
        records.append({**dict(zip(keys, key, strict=True)), "tau": tau})
    return pd.DataFrame(records)


def claims_of(rows: pd.DataFrame) -> list[Claim]:
    """Decide the paper's claims about simulated data (its Figures 2 and 3) over seeds."""
    tau = orders(rows)
    labels = rows[(rows["kind"] == "labels") & (rows["level"] == 0)]
    in_many = labels[labels["d"] >= MANY]
    in_many = in_many.assign(share=in_many["value"] / in_many["truth"])
    low, high = int(rows["d"].min()), int(rows["d"].max())
    span = f"from {low} to {high:,} dimensions"
    noises = f"{rows['noise'].min():.0%} to {rows['noise'].max():.0%} noise"
    order = "Kendall's tau with the known order, a mean over dimensions and noises"
    value = "value with true labels over their entropy, a mean over noises"
    ratio = f"value with true labels in {high:,} dimensions over that in {low}, a mean over noises"

    def tau_of(kind: str, measure: str, d: int = 0) -> np.ndarray:
        is_measure = tau["measure"].str.startswith(measure)
        chosen = tau[(tau["kind"] == kind) & is_measure & (tau["d"] >= d)]
        return chosen.groupby("seed")["tau"].mean().to_numpy()

    def share_of(measure: str) -> np.ndarray:
        chosen = in_many[in_many["measure"].str.startswith(measure)]
        return chosen.groupby("seed")["share"].mean().to_numpy()

    def ratio_of(measure: str) -> np.ndarray:
        chosen = labels[labels["measure"] == measure]
        by = chosen.pivot_table(index="seed", columns="d", values="value")
        return (by[high] / by[low]).to_numpy()

    claims = []
    for kind in ("tree", "blobs"):
        claim = f"DSE keeps the order of {TITLES[kind]}, {span} and {noises}"
        claims.append(above(claim, tau_of(kind, "DSE"), KEPT, order))
    for kind in ("tree", "blobs"):
        claim = f"Binned entropy loses the order of {TITLES[kind]} from {MANY} dimensions on"
        claims.append(below(claim, tau_of(kind, "binned", MANY), LOST, order))
    claim = f"DSMI keeps the order of corrupted labels, {span} and {noises}"
    claims.append(above(claim, tau_of("labels", "DSMI"), KEPT, order))
    claims.append(above(f"DSMI is stable {span}", ratio_of("DSMI"), HALVED, ratio))
    estimators = {"binned": "Binned mutual information", "KSG": "KSG", "MINE": "MINE"}
    for measure, title in estimators.items():
        claim = f"{title} loses the order of corrupted labels from {MANY} dimensions on"
        claims.append(below(claim, tau_of("labels", measure, MANY), LOST, order))
    for measure in ("binned", "KSG"):
        claim = f"{estimators[measure]} falls to 0 from {MANY} dimensions on"
        claims.append(below(claim, share_of(measure), GONE, value))
    claims.append(below("MINE decays with the dimension", ratio_of("MINE"), HALVED, ratio))
    return claims


def section(rows: pd.DataFrame) -> Section:
    """Return the section with the curves, and a table of order, drift and time."""
    tau = orders(rows)
    noises = sorted(rows["noise"].unique())
    noise = noises[len(noises) // 2]
    spans = f"panels of one noise have {noise:.0%}; bands span noises and seeds"
    entropy = curves(_entropy_panels(rows, tau, noise), "Entropy of trees and blobs by estimator.")
    information = curves(_information_panels(rows, tau, noise), "Information by estimator.")
    return Section(
        "simulated",
        "Simulated data",
        prose("simulated"),
        [
            table_of_words(
                "Order, drift and time",
                [
                    "Data",
                    "Measure",
                    "Mean tau",
                    "Lowest tau",
                    "Drift under noise",
                    "Drift with dimension",
                    f"Seconds at {int(rows['d'].max()):,}",
                ],
                _estimator_rows(rows, tau),
                text_columns=(0, 1),
            )
        ],
        [
            Illustration("simulated-entropy", entropy, f"Entropy; {spans}."),
            Illustration("simulated-information", information, f"Information; {spans}."),
        ],
    )


def _entropy_panels(rows: pd.DataFrame, tau: pd.DataFrame, noise: float) -> list[Panel]:
    panels = []
    for kind in ("tree", "blobs"):
        of_kind = rows[(rows["kind"] == kind) & (rows["noise"] == noise)]
        title, x = TITLES[kind].capitalize(), TITLES[kind].split(" by ")[1]
        for d in (int(rows["d"].min()), int(rows["d"].max())):
            lines = lines_of(of_kind[of_kind["d"] == d], "level", "value", "measure")
            panels.append(Panel(f"{title}, d = {d:,}", x, "bits", lines, True))
        panels.append(_tau_panel(tau, kind))
    return panels


def _information_panels(rows: pd.DataFrame, tau: pd.DataFrame, noise: float) -> list[Panel]:
    labels = rows[rows["kind"] == "labels"]
    panels = []
    for d in (int(rows["d"].min()), int(rows["d"].max())):
        part = labels[(labels["d"] == d) & (labels["noise"] == noise)]
        lines = lines_of(part, "level", "value", "measure")
        panels.append(Panel(f"d = {d:,}", "share of labels corrupted", "bits", lines))
    true = labels[labels["level"] == 0]
    by_d, by_noise = (lines_of(true, x, "value", "measure") for x in ("d", "noise"))
    seconds = lines_of(labels, "d", "seconds", "measure")
    return [
        *panels,
        Panel("With true labels", "dimensions", "bits", by_d, True),
        _tau_panel(tau, "labels"),
        Panel("With true labels", "noise", "bits", by_noise, True),
        Panel("Time of one estimate", "dimensions", "seconds", seconds, True),
    ]


def _tau_panel(tau: pd.DataFrame, kind: str) -> Panel:
    lines = lines_of(tau[tau["kind"] == kind], "d", "tau", "measure")
    return Panel("Order kept", "dimensions", "Kendall's tau", lines, True)


def _estimator_rows(rows: pd.DataFrame, tau: pd.DataFrame) -> list[list[AnyCell]]:
    cells: list[list[AnyCell]] = []
    for kind, title in TITLES.items():
        for measure in rows.loc[rows["kind"] == kind, "measure"].unique():
            part = rows[(rows["kind"] == kind) & (rows["measure"] == measure)]
            taus = tau.loc[(tau["kind"] == kind) & (tau["measure"] == measure), "tau"]
            times = part.loc[part["d"] == part["d"].max(), "seconds"]
            drifts = drift(part)
            cells.append(
                [
                    title,
                    str(measure),
                    fixed(float(taus.mean())),
                    fixed(float(taus.min())),
                    significant(drifts["noise"], 2),
                    significant(drifts["d"], 2),
                    significant(float(times.median()), 2),
                ]
            )
    return cells


def drift(part: pd.DataFrame) -> Mapping[str, float]:
    """Return the drift of one measure on one kind of data with ``noise`` and with ``d``, which should not move it.

    Drift is the mean distance from the value at the lowest noise (dimension), all else equal, divided by the measure's
    range over levels at the lowest noise and dimension; NaN if it has no range.
    """
    in_few_dimensions = part["d"] == part["d"].min()
    with_little_noise = part["noise"] == part["noise"].min()
    base = part[in_few_dimensions & with_little_noise]
    span = float(np.ptp(base.groupby("level")["value"].mean()))
    drifts = {}
    for name, other in (("noise", "d"), ("d", "noise")):
        values = part.pivot_table(index=["level", "seed", other], columns=name, values="value")
        first = values.columns.min()
        moved = values.sub(values[first], axis=0).abs().drop(columns=first)
        is_defined = span > 1e-9 and moved.size
        drifts[name] = float(moved.to_numpy().mean()) / span if is_defined else float("nan")
    return drifts
