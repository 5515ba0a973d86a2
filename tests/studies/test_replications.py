"""Claims of others on constructed zoos, for which each answer is known."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dsmi_zoo.jobs.tools.validate import Validation, validate
from dsmi_zoo.pipeline.config.run import ComputeSettings
from dsmi_zoo.reports.studies import validation
from dsmi_zoo.reports.studies.replications import (
    OWN,
    RIVALS,
    STATIC,
    TRANSFERS,
    Estimate,
    Replication,
    decide,
    replicate,
    replications_section,
)
from dsmi_zoo.reports.studies.score_verdicts import study_scores
from dsmi_zoo.reports.studies.validation import write_validation_report

pytestmark = pytest.mark.long

SEEDS, ARCHITECTURES, BUDGETS = 2, 16, 3
SETTINGS = (*OWN, *TRANSFERS)
MST, NEIGHBOURS, STATIC_RANKING, EFFECTIVE, BUDGET, ARCHITECTURE = range(6)


def zoo(
    noise: dict[str, float], mst: float = 0.0, dimension: float = 0.0, rankme: str = "random"
) -> dict[str, pd.DataFrame]:
    """Return rows of all settings.

    Each score is the target plus noise with standard deviation ``noise[score]``; ``mst`` and ``dimension`` are the
    target's weights in the two dimensions; RankMe follows it in each budget or architecture (``rankme``), or nowhere.
    """
    random = np.random.default_rng(0)
    n = ARCHITECTURES * BUDGETS
    architecture, budget = np.repeat(np.arange(ARCHITECTURES), BUDGETS), np.arange(n) % BUDGETS
    rows = {}
    for name in SETTINGS:
        parts = []
        for seed in range(1, SEEDS + 1):
            target = random.normal(size=ARCHITECTURES)[architecture] + random.normal(size=n)
            size = random.normal(size=ARCHITECTURES)[architecture]
            columns = {score: target + sd * random.normal(size=n) for score, sd in noise.items()}
            within = {"budget": -100.0 * budget, "architecture": 100.0 * architecture}
            of_rankme = random.normal(size=n)
            if rankme in within:
                of_rankme = target + within[rankme]
            frame = pd.DataFrame({
                "seed": seed,
                "model": [f"net{i:02}.{b}" for i, b in zip(architecture, budget, strict=True)],
                "architecture": [f"net{i:02}" for i in architecture],
                "log10_budget": budget.astype(float),
                "params_m": 10.0**size,
                "target": target,
                "mst_dimension": mst * target + random.normal(size=n),
                # Grows with the network's size: alone it follows the target only as far as the size does.
                "participation_ratio": dimension * target + 3 * size + random.normal(size=n),
                "rankme": of_rankme,
                **columns,
            })  # fmt: skip
            parts.append(frame)
        rows[name] = pd.concat(parts, ignore_index=True)
    return rows


def scores(neighbours: float, rivals: float, static: float) -> dict[str, float]:
    return {"neighbour_accuracy": neighbours, **dict.fromkeys(RIVALS, rivals), STATIC: static}


@pytest.fixture(scope="module")
def holding() -> list[Replication]:
    """Return the answers for a zoo in which neighbours win, but the dimensions follow the target as claimed."""
    return replicate(zoo(scores(0.1, 2, 3), mst=-5, dimension=5, rankme="budget"), resamples=200)


@pytest.fixture(scope="module")
def failing() -> list[Replication]:
    return replicate(
        zoo(scores(2, 0.1, 0.05), mst=5, dimension=-1, rankme="architecture"), resamples=200
    )


def test_each_claim_holds_in_a_zoo_where_it_is_true(
    holding: list[Replication], failing: list[Replication]
) -> None:
    for number in (MST, NEIGHBOURS, EFFECTIVE, BUDGET):
        assert holding[number].claim.answer == "holds", number
    assert failing[STATIC_RANKING].claim.answer == "holds"
    assert failing[ARCHITECTURE].claim.answer == "holds"


def test_each_claim_does_not_hold_in_a_zoo_where_it_is_false(
    holding: list[Replication], failing: list[Replication]
) -> None:
    for number in (MST, NEIGHBOURS, EFFECTIVE):
        assert failing[number].claim.answer == "does not hold here", number
    for number in (STATIC_RANKING, ARCHITECTURE):
        assert holding[number].claim.answer == "does not hold here", number


def test_nothing_can_be_told_where_all_scores_are_alike() -> None:
    found = replicate(zoo(scores(1, 1, 1), mst=-0.5, dimension=0.7), resamples=200)
    assert [of.claim.answer for of in found] == ["cannot tell"] * 6
    for of in found:
        low, high = of.claim.ci or (np.nan, np.nan)
        assert low < (of.claim.statistic or 0) < high


def test_the_least_sure_quantity_decides_and_one_refuted_quantity_refutes() -> None:
    random = np.random.default_rng(0)
    sure, unsure, against = (
        Estimate(name, value, value + error * random.normal(size=500))
        for name, value, error in (("sure", 1, 0.1), ("unsure", 0.9, 0.3), ("against", -1, 0.1))
    )
    claims = [
        decide("c", "w", asked, 0, seeds=3, architectures=16)[0]
        for asked in ([sure, unsure], [sure, unsure, against])
    ]
    assert [claim.answer for claim in claims] == ["holds", "does not hold here"]
    assert "unsure" in claims[0].what
    assert "against" in claims[1].what
    below, _ = decide("c", "w", [against], -0.5, seeds=3, architectures=16, above=False)
    assert below.answer == "holds"
    single, (quantity,) = decide("c", "w", [sure], 2, seeds=3, architectures=16)
    assert single.answer == "does not hold here"
    half = (quantity.ci[1] - quantity.ci[0]) / 2
    assert half > stats.t(15).ppf(0.975) * 0.09


def test_quantities_are_means_over_seeds_of_scipys_correlations(holding: list[Replication]) -> None:
    rows = zoo(scores(0.1, 2, 3), mst=-5, dimension=5, rankme="budget")["digits"]

    def rho(part: pd.DataFrame, score: str) -> float:
        return float(stats.spearmanr(part[score], part["target"])[0])

    parts = [part for _, part in rows.groupby("seed")]
    of_mst = np.mean([rho(part, "mst_dimension") for part in parts])
    assert holding[MST].quantities[0].value == pytest.approx(of_mst)
    within = np.mean([rho(p, "rankme") for _, p in rows.groupby(["seed", "log10_budget"])])
    across = np.mean([rho(part, "rankme") for part in parts])
    assert holding[BUDGET].quantities[0].value == pytest.approx(within - across)
    within = np.mean([rho(p, "rankme") for _, p in rows.groupby(["seed", "architecture"])])
    assert holding[ARCHITECTURE].quantities[0].value == pytest.approx(within - across)


def test_a_score_without_a_value_is_left_out_and_named_and_a_claim_of_it_is_open() -> None:
    rows = zoo(scores(0.1, 2, 3))
    for name in ("fashion", TRANSFERS[0]):
        rows[name].loc[0, ["gbc", "mst_dimension"]] = np.nan
        rows[name] = rows[name].drop(columns="leep")
    found = replicate(rows, resamples=100)
    assert found[MST].claim.answer == "cannot tell"
    assert "MST dimension" in found[MST].claim.rule
    assert "gbc" in found[NEIGHBOURS].left_out
    assert len(found[NEIGHBOURS].quantities) == len(RIVALS) - len(found[NEIGHBOURS].left_out)


def test_the_page_shows_the_answers_the_quantities_and_what_was_left_out(tmp_path: Path) -> None:
    rows = zoo(scores(0.1, 2, 3))
    rows[TRANSFERS[0]].loc[0, "gbc"] = np.nan
    section = replications_section(replicate(rows, resamples=100))
    assert len(section.tables[0].rows) == 6
    settings = {"datasets": ["digits"], "small": False, "seeds": SEEDS, "seconds": 1.0}
    page, claims = write_validation_report(
        tmp_path, {"replications": settings}, {"replications": rows}, {}
    )
    assert len(claims) == 6
    text = page.read_text()
    assert "Do claims of others hold here?" in text
    assert "Of 6 claims of others" in text
    assert "GBC" in text


def test_resamples_of_few_architectures_without_a_correlation_warn_nobody() -> None:
    rows = {
        name: frame[frame["architecture"].isin(["net00", "net01"])].assign(
            mst_dimension=lambda few: (few["architecture"] == "net00").astype(float)
        )
        for name, frame in zoo(scores(0.1, 2, 3)).items()
    }
    answers = {of.claim.answer for of in replicate(rows, resamples=50)}
    assert answers <= {"holds", "does not hold here", "cannot tell"}


def test_one_run_of_the_zoos_answers_both_studies_with_the_seeds_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run_zoos(self: Validation) -> int:
        asked.append([zoo.config.out.name for zoo in self.zoo_runs])
        assert {zoo.config.measures.scores for zoo in self.zoo_runs} == {"all"}
        return 0

    dsmi = dict.fromkeys(("dsmi_z_y", "dsmi_z_y_scale_free", "dsmi_z_y_angular", "dse_z"), 1.0)
    rows = zoo(scores(0.1, 2, 3) | dsmi | {"centre_accuracy": 0.2})
    monkeypatch.setattr(Validation, "run_zoos", run_zoos)
    monkeypatch.setattr(Validation, "results", lambda self, study: rows)
    for statistics in (replicate, study_scores):
        few = partial(statistics, resamples=50)
        monkeypatch.setattr(validation, statistics.__name__, few)
    study = Validation(tmp_path, ComputeSettings(), seeds=2, first_seed=6)
    assert validate(study, ["scores", "replications"]) == 0
    ((first, *_),) = asked
    assert first == "digits-6"
    assert "digits-7-on-fashion" in asked[0]
    record = json.loads((tmp_path / "validate.json").read_text())["studies"]
    assert [record[name]["first_seed"] for name in ("scores", "replications")] == [6, 6]
    content = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert {"scores", "replications"} <= set(content)
    assert len(content["claims"]) == 6
