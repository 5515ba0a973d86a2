"""The statistics and the page of the score study, on rows with known truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dsmi_zoo.reports.studies.score_verdicts import (
    CANDIDATES,
    ScoreStudyResult,
    answer,
    score_study_section,
    study_scores,
)
from dsmi_zoo.reports.studies.validation import write_validation_report

pytestmark = pytest.mark.long

SEEDS, ARCHITECTURES, BUDGETS = 3, 12, 3
RIVALS = ("neighbour_accuracy", "centre_accuracy")


def noise(candidates: float, rivals: float) -> dict[str, float]:
    """Return the noise added to the target for each score that the study needs."""
    return {**dict.fromkeys(CANDIDATES, candidates), **dict.fromkeys(RIVALS, rivals), "dse_z": 3.0}


def rows_where(follows: dict[str, float], seed: int = 0) -> pd.DataFrame:
    """Return rows of a setting: each score is the target plus noise with the given standard deviation."""
    random = np.random.default_rng(seed)
    parts = []
    for of in range(1, SEEDS + 1):
        n = ARCHITECTURES * BUDGETS
        target = np.repeat(random.normal(size=ARCHITECTURES), BUDGETS) + random.normal(size=n)
        columns = {name: target + error * random.normal(size=n) for name, error in follows.items()}
        names = [f"net{i // BUDGETS}.{i % BUDGETS}" for i in range(n)]
        facts = {"seed": of, "model": names, "architecture": [name.split(".")[0] for name in names]}
        parts.append(pd.DataFrame({**facts, "target": target, **columns}))
    return pd.concat(parts, ignore_index=True)


def study(candidates: float, rivals: float) -> ScoreStudyResult:
    follows = noise(candidates, rivals)
    return study_scores(
        {name: rows_where(follows, i) for i, name in enumerate(("digits", "fashion"))},
        resamples=300,
    )


@pytest.fixture(scope="module")
def worse() -> ScoreStudyResult:
    return study(candidates=2.0, rivals=0.1)


def test_rho_is_the_mean_over_seeds_of_scipys() -> None:
    rows = rows_where(noise(1.0, 0.5))
    found = study_scores({"digits": rows}, resamples=200)
    (of,) = (score for score in found.scores if score.score == "dsmi_z_y")
    expected = np.mean(
        [stats.spearmanr(part["dsmi_z_y"], part["target"])[0] for _, part in rows.groupby("seed")]
    )
    assert of.rho == pytest.approx(expected)
    assert of.ci[0] < of.rho < of.ci[1]


def test_candidates_that_follow_the_target_less_are_worse_and_none_is_recommended(
    worse: ScoreStudyResult,
) -> None:
    assert {found.verdict for found in worse.comparisons} == {"worse"}
    assert worse.recommended() == []
    assert "No DSMI is as good as" in answer(worse)[0]
    assert worse.best()["digits"].score in {"neighbour_accuracy", "centre_accuracy"}


def test_candidates_that_follow_it_more_are_better_and_recommended() -> None:
    found = study(candidates=0.05, rivals=2.0)
    assert {comparison.verdict for comparison in found.comparisons} == {"better"}
    assert found.recommended() == list(CANDIDATES)
    assert "wherever it was not chosen" in answer(found)[0]


def test_a_setting_on_which_a_candidate_was_chosen_does_not_count_for_it(
    worse: ScoreStudyResult,
) -> None:
    counts = {(c.candidate, c.setting): c.counts for c in worse.comparisons}
    assert counts["dsmi_z_y", "digits"]
    assert not counts["dsmi_z_y_angular", "digits"]
    assert counts["dsmi_z_y_angular", "fashion"]


def test_a_score_without_a_value_for_a_network_is_left_out_and_named() -> None:
    noise = {
        **dict.fromkeys(CANDIDATES, 1.0),
        "neighbour_accuracy": 1.0,
        "centre_accuracy": 1.0,
        "dse_z": 1.0,
        "gbc": 1.0,
    }
    rows = rows_where(noise)
    rows.loc[0, "gbc"] = np.nan
    found = study_scores({"digits": rows}, resamples=100)
    assert found.left_out == {"digits": ["gbc"]}
    assert "gbc" not in {score.score for score in found.scores}


def test_the_page_shows_verdicts_correlations_and_the_picture(
    worse: ScoreStudyResult, tmp_path: Path
) -> None:
    section = score_study_section(worse)
    assert len(section.tables) == 3
    settings = {"datasets": ["digits"], "small": False, "seeds": SEEDS, "seconds": 1.0}
    page, claims = write_validation_report(
        tmp_path, {"scores": settings}, {"scores": {"digits": rows_where(noise(2.0, 0.1))}}, {}
    )
    assert claims == []
    text = page.read_text()
    assert "Which score predicts best?" in text
    assert "worse" in text
    assert (page.parent / "figures" / "scores.png").stat().st_size > 5000
