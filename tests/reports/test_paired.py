"""Paired tests of models, balanced accuracy, and the rule by which a search drops models."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from statsmodels.stats.contingency_tables import mcnemar
from test_reports_ranking import row

from dsmi_zoo.data_catalog.datasets.sampling import Sample, samples
from dsmi_zoo.pipeline.measures.core.hits import wilson_interval
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.statistics.paired import (
    ERROR_RATE,
    by_weight,
    may_be_best,
    two_sided_p,
    upper_p,
)
from dsmi_zoo.reports.statistics.ranking import Quantity, rank, tied_for_first


def pair(seed: int, images: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((2, images)) < [[0.8], [0.55]]


@pytest.mark.parametrize("seed", range(4))
def test_with_equal_weights_the_test_is_mcnemars(seed: int) -> None:
    one, other = pair(seed, 60)
    table = [
        [(one & other).sum(), (one & ~other).sum()],
        [(~one & other).sum(), (~one & ~other).sum()],
    ]
    expected = mcnemar(table, exact=True).pvalue
    for weights in (np.ones(60), np.full(60, 0.01), 1 + 1e-4 * (np.arange(60) % 2)):
        found = two_sided_p(one, other[None], weights)[0]
        assert found == pytest.approx(expected, rel=0.02 if np.ptp(weights) else 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_with_unequal_weights_the_test_counts_all_swaps_of_the_two_models(seed: int) -> None:
    one, other = pair(seed, 11)
    weights = np.random.default_rng(seed).choice([1.0, 2.5, 20.0], 11)
    found = upper_p(*by_weight(one, other[None], weights))[0]
    difference = (one.astype(int) - other) * weights
    signs = np.array(list(product((-1, 1), repeat=11)))
    assert found == pytest.approx((signs @ difference >= difference.sum() - 1e-9).mean(), rel=1e-6)

    def lead(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return (weights * (x - y)).sum(axis=axis)

    samples_of_both = one.astype(float), other.astype(float)
    of_scipy = stats.permutation_test(
        samples_of_both, lead, permutation_type="samples", alternative="greater", n_resamples=1e6
    )
    assert found == pytest.approx(of_scipy.pvalue, rel=1e-6)


def test_a_model_that_is_only_better_has_one_chance_in_two_to_the_number_of_images() -> None:
    weights = np.tile([1.0, 7.0], 10)
    one, other = np.ones(20, dtype=bool), np.arange(20) >= 12
    assert upper_p(*by_weight(one, other[None], weights))[0] == pytest.approx(2.0**-12)
    assert two_sided_p(one, np.array([other, one]), weights).tolist() == pytest.approx([2**-11, 1])


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3),
    st.lists(st.floats(0.1, 30), min_size=3, max_size=3, unique=True),
)
def test_repeated_images_make_no_lead_less_clear(
    counts: list[tuple[int, int]], weights: list[float]
) -> None:
    better, worse = np.array(counts).T[:, None]
    of_groups = np.array(weights[: len(counts)])
    if len(counts) == 1 and better.sum() > worse.sum():
        assert upper_p(2 * better, 2 * worse, of_groups) <= upper_p(better, worse, of_groups)
    both = upper_p(better, worse, of_groups) + upper_p(worse, better, of_groups)
    assert both >= 1 - 1e-6, "the observed sum is counted twice"


@given(st.integers(0, 10**6), st.booleans())
def test_what_is_kept_does_not_depend_on_the_order_of_models_or_images(
    seed: int, is_weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    hits = rng.random((6, 80)) < rng.uniform(0.3, 0.95, (6, 1))
    weights = rng.choice([1.0, 3.0], 80) if is_weighted else np.ones(80)
    kept = may_be_best(hits, weights, level=0.05, compared=6)
    models, images = rng.permutation(6), rng.permutation(80)
    again = may_be_best(hits[models][:, images], weights[images], level=0.05, compared=6)
    assert (again == kept[models]).all()
    assert kept[(hits @ weights).argmax()]
    twins = may_be_best(np.concatenate([hits, hits]), weights, level=0.05, compared=12)
    assert (twins[:6] == twins[6:]).all(), "models with the same hits share their fate"


SIZES = np.array([2000, 60, 60])
LABELS = np.repeat(np.arange(3), SIZES)


def dropped_in_stages(
    hits: np.ndarray,
    best: np.ndarray,
    draws: int,
    *,
    balanced: bool = False,
    per_stage: bool = False,
    as_before: bool = False,
) -> float:
    """Return the share of searches that drop one of the ``best`` models before the stage on all images.

    With ``per_stage``, each stage tests at 5%; with ``as_before``, it also takes equally many images of each class.
    """
    stages = samples(SIZES, balanced=balanced, shrink=3, fewest=5)
    if as_before:
        stages = [Sample(most=int(SIZES.min()) // 9), Sample(most=int(SIZES.min()) // 3)]
    dropped = 0
    for draw in range(draws):
        rng, left = np.random.default_rng(draw), np.arange(len(hits))
        for stage in stages:
            taken = stage.sizes(SIZES, draw)
            of_classes = [
                rng.permutation(np.flatnonzero(i == LABELS))[:n] for i, n in enumerate(taken)
            ]
            images = np.concatenate(of_classes)
            of_stage = hits[np.ix_(left, images)]
            if per_stage or as_before:
                order = np.argsort(-of_stage.sum(axis=1), kind="stable")
                kept = np.sort(order[tied_for_first(list(of_stage[order]))])
            else:
                weights = np.repeat(stage.weights(SIZES, taken), taken)
                level = ERROR_RATE / len(stages)
                kept = np.flatnonzero(
                    may_be_best(of_stage, weights, level=level, compared=len(hits))
                )
            left = left[kept]
        dropped += not np.isin(best, left).all()
    return dropped / draws


def by_class(shares: list[tuple[float, float, float]], seed: int = 0) -> np.ndarray:
    """Return hits with exactly these shares in the three classes, on random images."""
    rng, hits = np.random.default_rng(seed), np.zeros((len(shares), len(LABELS)), dtype=bool)
    for model, of_model in enumerate(shares):
        for label, share in enumerate(of_model):
            of_class = rng.permutation(np.flatnonzero(label == LABELS))
            hits[model, of_class[: round(share * len(of_class))]] = True
    return hits


def test_a_search_on_skewed_classes_keeps_the_best_that_balanced_stages_lost() -> None:
    hits = by_class([(0.95, 0.6, 0.5), *[(0.92, 0.9, 0.9 - 0.02 * i) for i in range(5)]])
    assert hits.mean(axis=1).argmax() == 0
    best = np.array([0])
    assert dropped_in_stages(hits, best, 100) <= 0.05
    assert dropped_in_stages(hits, best, 100, as_before=True) > 0.4


@pytest.mark.parametrize("balanced", [False, True])
def test_a_model_as_good_as_the_best_is_dropped_in_at_most_5_percent(
    balanced: bool,
) -> None:
    hits = by_class([(0.8, 0.7, 0.7)] * 10 + [(0.6, 0.6, 0.6)] * 4)
    best = np.arange(10)
    share = dropped_in_stages(hits, best, 120, balanced=balanced)
    assert share <= stats.binom.ppf(0.999, 120, 0.05) / 120
    if not balanced:
        assert dropped_in_stages(hits, best, 120, per_stage=True) > 0.15


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 8, 3])
    predicted = np.where(rng.random(61) < 0.7, labels, (labels + 1) % 3)
    quantity = Quantity("balanced_accuracy", labels)
    hits = predicted == labels
    assert quantity.value(hits) == pytest.approx(100 * balanced_accuracy_score(labels, predicted))
    low, high = quantity.interval(hits)
    assert 0 <= low < quantity.value(hits) < high <= 100
    assert high - low > 30, "a class of three images says little"


def test_the_interval_of_one_class_and_of_accuracy_is_wilsons() -> None:
    hits = np.arange(40) < 31
    expected = pytest.approx(wilson_interval(31, 40))
    assert Quantity().interval(hits) == expected
    assert Quantity("balanced_accuracy", np.zeros(40, dtype=int)).interval(hits) == expected


def test_the_interval_of_balanced_accuracy_covers_it_in_nineteen_of_twenty_draws() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [300, 60, 12, 6])
    shares = np.array([0.9, 0.8, 0.7, 0.6])
    quantity = Quantity("balanced_accuracy", labels)
    drawn = rng.random((2000, len(labels))) < shares[labels]
    limits = np.array([quantity.interval(hits) for hits in drawn])
    covers = (limits[:, 0] <= 100 * shares.mean()) & (100 * shares.mean() <= limits[:, 1])
    assert 0.93 < covers.mean() < 0.99


def test_the_ranking_follows_the_metric() -> None:
    common, rare = np.arange(200) < 150, np.arange(200) >= 150
    rows = rows_frame(
        [row("common", common | (np.arange(200) >= 190)), row("even", (np.arange(200) % 10 < 7))]
    )
    assert [model.model for model in rank(rows).models] == ["common", "even"]
    balanced = rank(rows, Quantity("balanced_accuracy", rare.astype(int), 58.0))
    assert [model.model for model in balanced.models] == ["even", "common"]
    assert balanced.models[0].accuracy == pytest.approx(70)
    assert balanced.separation is None
    assert balanced.as_json()[0]["balanced_accuracy"] == pytest.approx(70)
    assert [model.model for model in balanced.best] == ["even"]


def test_of_many_random_models_none_is_shown_to_beat_the_largest_class() -> None:
    rng = np.random.default_rng(0)
    rows = rows_frame([row(f"net{i}", rng.random(176) < 0.966) for i in range(48)])
    ranking = rank(rows, Quantity(baseline=100 * 170 / 176))
    assert ranking.models[0].accuracy > 98, "the best of many is above the baseline"
    assert ranking.best == []
    single = rank(rows.head(1), Quantity(baseline=60.0))
    assert [model.beats_baseline for model in single.models] == [True]
