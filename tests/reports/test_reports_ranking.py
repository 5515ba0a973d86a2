"""The ranking of models on the user's own images: order, ties, Pareto front, and the page that opens with it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from run_records import record_of
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from dsmi_zoo.pipeline.measures.core.hits import pack_hits, wilson_interval
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.choice import ranking_lead
from dsmi_zoo.reports.statistics.ranking import (
    Separation,
    images_to_separate,
    pareto_front,
    rank,
    separation,
    tied_for_first,
)

pytestmark = pytest.mark.long


def row(model: str, hits: np.ndarray, **values: Any) -> dict[str, Any]:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    filled = {
        "model": model, "img_size": 224, "status": "ok", "own_measures": "", "architecture": model,
        "probe_accuracy": 100 * hits.mean(), "probe_low": low, "probe_high": high, "probe_hits": pack_hits(hits),
        "dsmi_z_y": 0.5, "dse_z": 2.0, "versions": "{}", "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
    }  # fmt: skip
    return filled | values


def models(count: int = 5, n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    difficulty = rng.random(n)
    shares = np.linspace(0.95, 0.6, count)
    rows = [
        row(f"net{i}", difficulty < s, throughput=100.0 * (i + 1)) for i, s in enumerate(shares)
    ]
    return rows_frame(rows[::-1])


def test_models_are_ranked_by_their_probe_and_the_lead_names_the_first() -> None:
    rows = models()
    ranking = rank(rows)
    assert [m.model for m in ranking.models] == [f"net{i}" for i in range(5)]
    first = ranking.models[0]
    lead = ranking_lead(rows, ranking, record_of())
    assert lead.startswith("On digits (149 images, 10 classes), choose net0: its probe accuracy, ")
    assert (
        f"{first.accuracy:.1f}% ({first.low:.1f} to {first.high:.1f}), is higher than that of "
        in lead
    )
    assert "each of the 4 other models by more than chance" in lead
    assert first.tied_for_first
    assert all(m.pareto for m in ranking.models)
    assert ranking.cost == "throughput"


def test_ties_are_those_of_mcnemars_test_with_holms_correction() -> None:
    rng = np.random.default_rng(1)
    best = rng.random(150) < 0.9
    others = [
        np.where(rng.random(150) < flip, ~best, best) for flip in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
    ]
    p = []
    for other in others:
        table = [
            [(best & other).sum(), (best & ~other).sum()],
            [(~best & other).sum(), (~best & ~other).sum()],
        ]
        p.append(mcnemar(table, exact=True).pvalue if (best != other).any() else 1.0)
    expected = ~multipletests(p, alpha=0.05, method="holm")[0]
    assert tied_for_first([best, *others]).tolist() == [True, *expected.tolist()]
    assert not expected.all()


@pytest.mark.parametrize(("better", "worse", "images"), [(12, 6, 200), (9, 3, 120), (30, 18, 100)])
def test_the_images_that_would_separate_two_models_do_so_in_four_of_five_draws(
    better: int, worse: int, images: int
) -> None:
    needed = round(images_to_separate(better, worse, images))
    assert needed > images
    shares = [better / images, worse / images, 1 - (better + worse) / images]
    drawn = np.random.default_rng(0).multinomial(needed, shares, size=4000)
    p = binom.cdf(drawn[:, :2].min(axis=1), drawn[:, :2].sum(axis=1), 0.5) * 2
    assert 0.74 < (p <= 0.05).mean() < 0.84


def test_what_separates_ties_is_unknown_where_models_agree_or_are_equally_accurate() -> None:
    first = np.arange(100) < 90
    equal, other = np.roll(first, 3), np.arange(100) < 88
    assert separation([first]) is None
    assert separation([first, first]) == Separation(None, True)
    assert separation([first, equal]) == Separation(None, False)
    assert separation([first, equal, other]) == Separation(
        images_to_separate(2, 0, 100, 0.025), False
    )


points = arrays.arrays(float, st.integers(1, 12), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0]))


@given(points, st.randoms(use_true_random=False))
def test_no_point_on_the_front_is_beaten_and_every_other_one_is(
    accuracy: np.ndarray, random: Any
) -> None:
    speed = np.array([random.choice([1.0, 2.0, 3.0, np.nan]) for _ in accuracy])
    front = pareto_front(accuracy, speed)
    for i in range(len(accuracy)):
        beaten = any(
            accuracy[j] >= accuracy[i]
            and speed[j] >= speed[i]
            and (accuracy[j], speed[j]) != (accuracy[i], speed[i])
            for j in range(len(accuracy))
        )
        assert front[i] == (np.isfinite(speed[i]) and not beaten)


def test_a_page_without_published_accuracies_leads_with_the_ranking(tmp_path: Path) -> None:
    rows = models()
    rows.loc[rows["model"] == "net2", "model"] = "<i>net2</i>"
    page = write_page(rows, record_of(), tmp_path).read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "<h1>Which model suits “digits”?</h1>" in page
    assert summary["lead"].startswith("On digits (149 images, 10 classes), choose net0")
    assert "<i>net2" not in page
    assert [m["model"] for m in summary["ranking"]] == [
        "net0",
        "net1",
        "<i>net2</i>",
        "net3",
        "net4",
    ]
    assert {"probe_accuracy", "low", "high", "tied_for_first", "pareto"} <= set(
        summary["ranking"][0]
    )
    assert (tmp_path / "figures" / "ranking.png").stat().st_size > 5000
    assert "Ranking by a ridge probe" in page


def test_rows_without_a_probe_leave_the_ranking_out(tmp_path: Path) -> None:
    rows = models().assign(probe_accuracy=np.nan)
    assert rank(rows).models == ()
    assert "Ranking by a ridge probe" not in write_page(rows, record_of(), tmp_path).read_text()


def test_the_cheapest_counts_where_no_throughput_is_known() -> None:
    rows = models().assign(throughput=np.nan, gmacs=[1.0, 2.0, 3.0, 4.0, 0.5])
    ranking = rank(rows)
    assert ranking.cost == "gmacs"
    assert [m.model for m in ranking.models if m.pareto] == [
        m.model
        for m in ranking.models
        if not any(
            o.accuracy > m.accuracy and (o.cost or 0) <= (m.cost or 0) for o in ranking.models
        )
    ]


def test_throughput_on_a_cpu_is_a_second_cost_with_a_front_of_its_own(tmp_path: Path) -> None:
    rows = models()
    rows["cpu_throughput"] = rows["model"].map(
        {"net0": 3.0, "net1": np.nan, "net2": 2.0, "net3": 5.0, "net4": 1.0}
    )
    ranking = rank(rows)
    assert ranking.cost == "throughput"
    assert all(m.pareto for m in ranking.models)
    assert ranking.second is not None
    assert [m.model for m in ranking.second.models if m.pareto] == ["net0", "net3"]
    page = write_page(rows, record_of(), tmp_path).read_text()
    assert "Published CPU throughput (images/s)" in page
    assert "Pareto front on a CPU" in page
    assert (tmp_path / "figures" / "ranking_cpu.png").stat().st_size > 5000
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [m["pareto_cpu"] for m in summary["ranking"]] == [True, False, False, True, False]


def test_no_picture_stands_in_a_page_twice(tmp_path: Path) -> None:
    accuracies = np.linspace(70, 80, 5)
    rows = models().assign(
        cpu_throughput=[1.0, 5.0, 2.0, 4.0, 3.0], top1=accuracies, dsmi_z_y=accuracies / 100
    )
    page = write_page(rows, record_of(), tmp_path).read_text()
    pictures = re.findall(r'src="(data:image/[^"]+)"', page)
    assert len(pictures) == len(set(pictures)) > 3


def test_throughput_on_a_cpu_is_the_one_cost_where_no_other_is_known() -> None:
    ranking = rank(models().assign(throughput=np.nan, cpu_throughput=1.0))
    assert ranking.cost == "cpu_throughput"
    assert ranking.second is None
