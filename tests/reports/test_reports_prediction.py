"""Prediction of unseen families and regret, against scikit-learn, statsmodels and loops that copy rows."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from test_reports_analysis import FEW, zoo

from dsmi_zoo.reports.statistics.bootstrap import middle_error, small_sample
from dsmi_zoo.reports.statistics.prediction import (
    cost_bands,
    expected_best,
    leave_one_family_out,
    regret,
    regrets,
)
from dsmi_zoo.reports.statistics.sample import values


def test_leave_one_family_out_is_scikit_learns() -> None:
    rows = zoo(9, families=8)
    x, y, family = values(rows, "dsmi_z_y"), values(rows, "top1"), rows["family"]
    predicted = cross_val_predict(
        LinearRegression(), x[:, None], y, groups=family, cv=LeaveOneGroupOut()
    )
    mean = np.array([y[(family != f).to_numpy()].mean() for f in family])
    found = leave_one_family_out(x, y, family)
    assert found.mean_absolute_error == pytest.approx(np.abs(y - predicted).mean())
    assert found.r2 == pytest.approx(1 - ((y - predicted) ** 2).sum() / ((y - mean) ** 2).sum())
    assert found.families == 8
    assert leave_one_family_out(x, y, np.arange(len(x)) % 4).reason == "4 families, fewer than 5"


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 100)), min_size=12, max_size=30))
def test_regret_never_grows_with_more_models_taken_and_is_zero_when_all_are(
    pairs: list[tuple[int, int]],
) -> None:
    x, y = np.array(pairs, dtype=float).T
    found = regret(x, y, (1, 5, len(x)))
    if found.lost is None:
        assert found.reason
        return
    rounding = 1e-12
    assert min(found.lost.values()) >= 0
    assert found.lost[1] >= found.lost[5] - rounding
    assert found.lost[len(x)] < rounding
    assert found.lost[1] == pytest.approx(y.max() - y[x == x.max()].mean())


def test_no_regret_is_below_zero_by_rounding() -> None:
    x = np.array([2, 1, 2, 2, 2, 2, 2, 1, 2, 1, 2, 0, 0, 1], dtype=float)
    y = np.array([8, 11, 1, 10, 5, 11, 4, 11, 2, 4, 11, 11, 1, 1], dtype=float)
    found = regret(x, y, (10,))
    assert found.lost == {10: 0}, "it was -1.8e-15"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 2)), min_size=4, max_size=7
    )
)
def test_the_expected_best_is_the_mean_over_all_orders_of_equal_scores(
    triples: list[tuple[int, int, int]],
) -> None:
    x, y, copies = np.array(triples).T
    there = np.repeat(np.arange(len(x)), copies)[:8]
    copies = np.bincount(there, minlength=len(x))
    found = expected_best(
        x.astype(float), y.astype(float), copies[None], np.arange(len(x)), (1, 3)
    )[:, 0]
    for value, k in zip(found, (1, 3), strict=True):
        if len(there) < k:
            assert np.isnan(value)
            continue
        last = np.sort(x[there])[-k]
        sure, tied = (y[there][x[there] > last], y[there][x[there] == last])
        best = [max([*sure, *some]) for some in combinations(tied, k - len(sure))]
        assert value == pytest.approx(np.mean(best))


def test_regret_and_r2_left_out_have_the_intervals_of_a_loop_that_copies_rows() -> None:
    rows = zoo(16)
    x, y, family = values(rows, "dsmi_z_y"), values(rows, "top1"), pd.factorize(rows["family"])[0]
    lost, ratios = [], []
    for drawn in FEW.of(family).counts:
        copies = np.repeat(np.arange(len(x)), drawn[family])
        lost.append(y[copies].max() - y[copies][np.argmax(x[copies])])
        of = leave_one_family_out(x[copies], y[copies], family[copies]).r2
        ratios.append(np.nan if of is None else 1 - of)
    found = regret(x, y, families=family, bootstraps=FEW)
    assert found.lost is not None
    assert found.lost_ci is not None
    low, high = np.quantile(lost, [0.025, 0.975])
    assert found.lost_ci[1] == pytest.approx((min(low, found.lost[1]), max(high, found.lost[1])))
    line = leave_one_family_out(x, y, family, FEW)
    assert line.r2 is not None
    predicted = cross_val_predict(
        LinearRegression(), x[:, None], y, groups=family, cv=LeaveOneGroupOut()
    )
    mean = np.array([y[family != f].mean() for f in family])
    small = small_sample(family, (y - predicted) ** 2 - (1 - line.r2) * (y - mean) ** 2)
    half = small.half_width(middle_error(np.log(ratios)))
    assert line.r2_ci == pytest.approx(
        (1 - (1 - line.r2) * np.exp(half), 1 - (1 - line.r2) * np.exp(-half))
    )


def test_regrets_turn_scores_of_which_less_is_better_and_split_by_cost() -> None:
    rows = zoo(10)
    found = regrets(rows, "top1")
    assert found["all models"]["within_over_between"].lost == {1: 0, 5: 0, 10: 0}
    assert len(found) == 4
    bands = cost_bands(rows)
    assert sum(within.sum() for within in bands.values()) == len(rows)
    highest = [rows.loc[within, "gmacs"].max() for within in bands.values()]
    assert highest == sorted(highest)
    assert cost_bands(rows.assign(gmacs=None, params_m=None)) == {}
