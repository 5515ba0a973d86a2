"""Three-way answers to claims: holds, does not hold here, cannot tell."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dsmi_zoo.reports.studies.claims import above, below, different, flat, undecided
from dsmi_zoo.reports.studies.simulation_page import claims_of, drift, orders
from dsmi_zoo.reports.studies.trainings_page import extremes, rises

NUMBERS = st.lists(st.floats(-5, 5), min_size=2, max_size=8)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([1.0, 1.1, 1.2], "holds"),
        ([-1.0, -1.1, -1.2], "does not hold here"),
        ([0.01, 0.02, 0.03], "does not hold here"),
        ([0.0, 0.5, 1.0], "cannot tell"),
        ([1.0] * 5, "cannot tell"),
        ([1.0] * 6, "holds"),
        ([0.0] * 6, "does not hold here"),
        ([2.0], "cannot tell"),
        ([], "cannot tell"),
        ([np.nan, 2.0], "cannot tell"),
    ],
)
def test_a_number_above_a_threshold(values: list[float], answer: str) -> None:
    claim = above("it rises", values, 0.1, "rise")
    assert claim.answer == answer
    assert set(asdict(claim)) >= {"claim", "answer", "statistic", "p", "seeds"}


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([0.01, -0.01, 0.0], "holds"),
        ([1.0, 1.1, 1.2], "does not hold here"),
        ([0.0, 0.2, 0.1], "cannot tell"),
    ],
)
def test_a_number_that_stays_flat(values: list[float], answer: str) -> None:
    assert flat("it stays", values, 0.1, "rise").answer == answer


@given(NUMBERS, st.floats(-2, 2))
def test_above_and_below_are_each_others_opposite(values: list[float], threshold: float) -> None:
    opposite = {
        "holds": "does not hold here",
        "does not hold here": "holds",
        "cannot tell": "cannot tell",
    }
    one, other = above("a", values, threshold, "x"), below("b", values, threshold, "x")
    if abs(np.mean(values) - threshold) > 1e-9:
        assert other.answer == opposite[one.answer]


@given(NUMBERS)
def test_the_answer_agrees_with_students_t(values: list[float]) -> None:
    if np.ptp(values) < 1e-6:
        return
    claim = above("a", values, 0.5, "x")
    result = stats.ttest_1samp(values, 0.5)
    assert claim.p == pytest.approx(result.pvalue)
    assert (claim.answer == "cannot tell") == (result.pvalue > 0.05)


def test_two_sets_of_seeds_differ_or_not() -> None:
    assert different("d", [1.0, 1.1, 0.9], [2.0, 2.1, 1.9], 0.1, "x").answer == "holds"
    assert (
        different("d", [1.0, 1.001, 0.999], [1.0, 1.001, 0.999], 0.1, "x").answer
        == "does not hold here"
    )
    assert different("d", [0.0, 1.0, 2.0], [0.5, 1.5, 2.5], 0.1, "x").answer == "cannot tell"
    assert different("d", [1.0], [2.0, 2.1], 0.1, "x").answer == "cannot tell"
    assert undecided("d", "needs two", "x").answer == "cannot tell"


def test_a_rise_is_that_of_a_straight_line_over_the_checkpoints_of_each_seed() -> None:
    epochs = [0, 1, 2, 5]
    rows = pd.DataFrame(
        {
            "epoch": epochs * 2,
            "training_seed": [0] * 4 + [1] * 4,
            "dse_z": [0, 1, 2, 3, 5, 4.5, 4, 3.5],
        }
    ).sample(frac=1, random_state=0)
    assert rises(rows, "dse_z") == pytest.approx([3, -1.5])
    assert len(rises(rows.assign(dse_z=np.nan), "dse_z")) == 0


def cells(value: object) -> pd.DataFrame:
    """Return rows of every kind and estimator, whose values are ``value(measure, d, level, truth)``."""
    rows = []
    for kind, names in {
        "tree": ["DSE"],
        "blobs": ["DSE"],
        "labels": ["DSMI", "KSG", "MINE"],
    }.items():
        for measure in [*names, "binned, 5 bins"]:
            for d in (20, 100):
                for noise in (0.1, 0.5):
                    for seed in range(6):
                        for level, truth in ((0.0, 3.0), (1.0, 1.0), (2.0, 0.5)):
                            rows.append(
                                {"kind": kind, "d": d, "noise": noise, "seed": seed, "level": level, "truth": truth,
                                 "measure": measure, "value": value(measure, d, level, truth), "seconds": 1.0}
                            )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_papers_world_gets_the_papers_answers() -> None:
    def value(measure: str, d: int, level: float, truth: float) -> float:
        decayed = {"DSE": truth, "DSMI": truth, "MINE": 0.1 if d > 50 else truth}
        return decayed.get(measure, 0.0 if d > 50 else truth)

    claims = claims_of(cells(value))
    assert len(claims) == 12
    assert {claim.answer for claim in claims} == {"holds"}


def test_a_world_in_which_nothing_fades_denies_that_the_others_do() -> None:
    answers = {
        claim.claim.split()[0]: claim.answer
        for claim in claims_of(cells(lambda m, d, level, truth: truth))
    }
    assert answers["KSG"] == answers["MINE"] == answers["Binned"] == "does not hold here"


def test_a_constant_keeps_no_order_and_drift_is_in_units_of_the_range() -> None:
    rows = cells(lambda measure, d, level, truth: 1.0)
    assert set(orders(rows)["tau"]) == {0.0}
    part = cells(lambda m, d, level, truth: truth + (1.25 if d > 20 else 0)).query(
        "kind == 'tree' and measure == 'DSE'"
    )
    assert drift(part) == {"noise": pytest.approx(0), "d": pytest.approx(0.5)}


def test_the_trainings_shown_are_those_that_were_trained() -> None:
    untrained = {"epoch": 0, "convolution_std": [0.01, 0.05, 0.09], "dse_z": [1.0, 0.5, 1.5]}
    trained = {"epoch": 3, "convolution_std": [0.01, 0.09], "dse_z": [2.0, 2.0]}
    rows = pd.concat([pd.DataFrame(untrained), pd.DataFrame(trained)])
    assert extremes(pd.DataFrame(untrained)) == (0.05, 0.09)
    assert extremes(rows) == (0.01, 0.09)
