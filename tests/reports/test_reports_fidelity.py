"""Reliability of a score's order: pairs of similar models, families left out, and scores of size alone."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from dsmi_zoo.reports.page.analysis import CLOSE_PAIRS, sections, target_tables
from dsmi_zoo.reports.statistics.fidelity import GAPS, MOST_PAIRS, _weakest, fidelity
from dsmi_zoo.reports.statistics.summary import summarise


def zoo(n: int, seed: int, of_size: float) -> pd.DataFrame:
    """Return rows in 12 families whose accuracy follows size; the score mixes noisy size and noisy accuracy."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    top1 = 70 + 6 * size + rng.normal(size=n)
    score = of_size * (size + 0.3 * rng.normal(size=n))
    score += (1 - of_size) * (top1 - 70 + 2 * rng.normal(size=n)) / 6
    return pd.DataFrame({
        "model": [f"m{i}" for i in range(n)], "img_size": 224, "status": "ok", "row_id": [f"r{i}" for i in range(n)],
        "architecture": [f"family{i % 12}" for i in range(n)], "family": [f"family{i % 12}" for i in range(n)],
        "weights_sha256": [f"{i}" for i in range(n)], "params_m": 10**size, "top1": top1, "dsmi_z_y": score,
    })  # fmt: skip


def test_the_shares_and_the_weakest_rho_are_those_of_a_count_by_hand() -> None:
    rows = zoo(40, 0, 0.5)
    rows["dsmi_z_y"] = -rows["dsmi_z_y"].round(1)  # the other direction, with ties
    found = fidelity(rows, "top1")["dsmi_z_y"]
    x, y = rows["dsmi_z_y"].to_numpy(), rows["top1"].to_numpy()
    for (low, high), share in zip(GAPS, found.right, strict=True):
        right = [
            0.5 if x[i] == x[j] else float((x[i] > x[j]) != (y[i] > y[j]))
            for i, j in combinations(range(40), 2)
            if low < abs(y[i] - y[j]) <= high
        ]
        assert share == pytest.approx(np.mean(right))
    without = {
        family: spearmanr(*rows.loc[rows["family"] != family, ["dsmi_z_y", "top1"]].T.to_numpy())
        for family in set(rows["family"])
    }
    weakest = max(without, key=lambda family: without[family].statistic)
    assert found.lowest == pytest.approx(without[weakest].statistic)
    assert found.without == weakest


def test_many_pairs_are_sampled_and_give_nearly_the_same() -> None:
    rows = zoo(900, 0, 0.5)
    assert MOST_PAIRS < 900 * 899 // 2
    sampled = fidelity(rows, "top1")["dsmi_z_y"].right
    x, y = rows["dsmi_z_y"].to_numpy(), rows["top1"].to_numpy()
    i, j = np.triu_indices(900, 1)
    gap = np.abs(y[i] - y[j])
    for (low, high), share in zip(GAPS, sampled, strict=True):
        band = (gap > low) & (gap <= high)
        whole = np.mean((x[i] > x[j])[band] == (y[i] > y[j])[band])
        assert share == pytest.approx(whole, abs=0.01)


def test_a_score_of_size_alone_is_not_shown_to_beat_size_and_a_better_one_is() -> None:
    for of_size, is_better in ((1.0, False), (0.0, True)):
        summary = summarise(zoo(120, 1, of_size))
        standings = summary.standings["top1"]
        assert standings.static == "log10_params"
        assert standings.scores is not None
        beyond = standings.scores["dsmi_z_y"].beyond_static_ci
        assert beyond is not None
        partial = summary.partial["log parameters"]["dsmi_z_y"].pearson.ci  # type: ignore[union-attr]
        assert partial is not None
        assert (partial[0] > 0) == is_better
        assert beyond[0] <= 0
    (section, *_) = sections(summary)
    scores = [row[0].value for row in section.tables[1].rows]
    assert {"DSMI(Z;Y)", "log10 parameters"} <= set(scores)


def test_too_few_pairs_have_no_share() -> None:
    rows = zoo(4, 0, 1.0)
    found = fidelity(rows, "top1")["dsmi_z_y"]
    assert found.right == (None,) * len(GAPS)


def test_the_table_of_scores_says_how_often_each_orders_two_close_models_right() -> None:
    rows = zoo(60, 2, 0.0)
    summary = summarise(rows)
    table = target_tables(summary, "top1")["correlations"]
    place = table.heads.index(CLOSE_PAIRS)
    shown = {row[0].value: row[place].value for row in table.rows}
    i, j = np.triu_indices(60, 1)
    gap = rows["top1"].to_numpy()[i] - rows["top1"].to_numpy()[j]
    close = (np.abs(gap) > 1) & (np.abs(gap) <= 3)
    for score, values in {
        "DSMI(Z;Y)": rows["dsmi_z_y"],
        "log10 parameters": rows["params_m"],
    }.items():
        x = values.to_numpy()
        right = np.mean(((x[i] - x[j]) * gap > 0)[close])
        assert shown[score] == f"{right:.0%}"
    assert CLOSE_PAIRS in table.note


@pytest.mark.parametrize("digits", [0, 6])
def test_the_weakest_rho_is_that_of_a_loop_that_leaves_each_family_out(digits: int) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 50)).round(digits)
    families = np.array([f"family {i}" for i in rng.integers(8, size=50)], dtype=object)
    loop = {}
    for family in families:
        keep = families != family
        loop[family] = spearmanr(x[keep], y[keep]).statistic
    lowest, without = _weakest(x, y, families)
    assert without == min(loop, key=loop.__getitem__)
    assert lowest == pytest.approx(loop[without], abs=1e-12)
