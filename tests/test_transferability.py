"""The probe: held against scikit-learn put together by hand, and against what must be so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold

from pipeline.measures.transferability import packed, probe_columns, probe_hits, unpacked, wilson_interval


def test_hits_are_those_of_a_ridge_classifier_fold_by_fold() -> None:
    pixels, digits = load_digits(return_X_y=True)
    Z, y = pixels[:300], digits[:300]
    expected = np.zeros(300, dtype=bool)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(Z, y):
        mean, std = Z[train].mean(0), Z[train].std(0)
        scaled = (Z - mean) / np.where(std == 0, 1, std)
        probe = RidgeClassifierCV((1.0, 10.0, 100.0, 1e3, 1e4)).fit(scaled[train], y[train])
        expected[test] = probe.predict(scaled[test]) == y[test]
    np.testing.assert_array_equal(probe_hits(Z, y, seed=3), expected)
    assert expected.mean() > 0.85


def test_separate_classes_are_all_right_and_shuffled_labels_near_chance() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 40)
    Z = rng.normal(size=(200, 10)) + 20 * np.eye(5, 10)[y]
    assert probe_hits(Z, y).all()
    assert 0.1 < probe_hits(Z, rng.permutation(y)).mean() < 0.3


def test_repeats_of_an_image_never_help_to_recognise_it() -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(100), 3)
    Z = rng.normal(size=(100, 90))[images] + 0.01 * rng.normal(size=(300, 90))
    y = rng.permutation(np.arange(100) % 4)[images]
    hits = probe_hits(Z, y, image_ids=images)
    assert hits.shape == (100,)
    assert hits.mean() < 0.45
    assert probe_hits(Z, y).mean() > 0.6  # what one would believe who takes repeats for images


def test_a_class_with_one_image_leaves_the_columns_empty_and_few_images_lessen_the_folds() -> None:
    Z = np.random.default_rng(0).normal(size=(9, 3))
    assert probe_columns(Z, [0, 0, 0, 0, 1, 1, 1, 1, 2]) == {}
    with pytest.raises(ValueError, match="single image"):
        probe_hits(Z, [0, 0, 0, 0, 1, 1, 1, 1, 2])
    assert len(probe_hits(Z, [0, 0, 0, 0, 1, 1, 1, 2, 2])) == 9


def test_columns_agree_with_the_hits() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 15)
    Z = rng.normal(size=(60, 6)) + np.eye(4, 6)[y]
    columns = probe_columns(Z, y, seed=1)
    hits = probe_hits(Z, y, seed=1)
    assert columns["probe_accuracy"] == pytest.approx(100 * hits.mean())
    np.testing.assert_array_equal(unpacked(str(columns["probe_hits"])), hits)
    expected = binomtest(int(hits.sum()), 60).proportion_ci(method="wilson")
    assert columns["probe_low"] == pytest.approx(100 * expected.low)
    assert columns["probe_high"] == pytest.approx(100 * expected.high)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(case: tuple[int, int]) -> None:
    hits, n = case
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_hits_survive_being_packed(hits: list[bool]) -> None:
    assert unpacked(packed(np.array(hits))).tolist() == hits
