"""Invariances of the scores, and the inputs for which they are undefined."""

import numpy as np
import pytest
from by_name import value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from test_more_scores import example

from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore

GENTLE = settings(max_examples=15, deadline=None)


SEEDS = st.integers(0, 2**16)


UNLABELLED = [
    "alpha_req",
    "participation_ratio",
    "two_nn_dimension",
    "mst_dimension",
    "clid",
    "offset_share",
    "nesum",
    "matrix_entropy",
]
LABELLED = [
    "gbc",
    "n_leep",
    "sfda",
    "cosine_neighbour_accuracy",
    "cosine_centre_accuracy",
    "dsmi_z_y_angular",
    "cdnv",
]
EVERY_SCORE = UNLABELLED + LABELLED
SEEDED = ["n_leep", "mst_dimension", "clid", "dsmi_z_y_angular"]


@GENTLE
@given(SEEDS)
def test_a_rotation_of_the_embedding_changes_no_score(seed):
    Z, y = example(seed=seed)
    rotated = Z @ ortho_group.rvs(Z.shape[1], random_state=seed)
    for score in EVERY_SCORE:
        assert value_of(score, rotated, y) == pytest.approx(
            value_of(score, Z, y), rel=1e-6, abs=1e-9
        )


@GENTLE
@given(SEEDS, st.floats(-200, 90))
def test_a_scale_of_the_embedding_changes_no_score_but_sfda(seed, power):
    Z, y = example(seed=seed)
    for score in set(EVERY_SCORE) - {"sfda"}:
        assert value_of(score, 10**power * Z, y) == pytest.approx(
            value_of(score, Z, y), rel=1e-6, abs=1e-9
        )


@GENTLE
@given(SEEDS)
def test_the_order_of_rows_changes_no_score_that_draws_nothing(seed):
    Z, y = example(seed=seed)
    order = np.random.default_rng(seed).permutation(len(Z))
    for score in set(EVERY_SCORE) - set(SEEDED):
        assert value_of(score, Z[order], y[order]) == pytest.approx(
            value_of(score, Z, y), rel=1e-6, abs=1e-9
        )


@GENTLE
@given(SEEDS, st.permutations(["cat", "dog", "owl"]))
def test_the_names_of_classes_change_no_score(seed, names):
    Z, y = example(seed=seed)
    for score in LABELLED:
        assert value_of(score, Z, np.array(names)[y]) == pytest.approx(
            value_of(score, Z, y), rel=1e-9
        )


@pytest.mark.parametrize("score", SEEDED)
def test_a_seed_gives_the_same_number_again(score):
    Z, y = example()
    assert value_of(score, Z, y) == value_of(score, Z, y)


@pytest.mark.parametrize("score", sorted(set(EVERY_SCORE) - {"offset_share", "matrix_entropy"}))
def test_a_constant_embedding_has_no_score_but_a_reason(score):
    with pytest.raises(UndefinedScore) as undefined:
        value_of(score, np.full((60, 5), 0.1), np.arange(60) % 2)
    reason = str(undefined.value)
    assert reason
    assert "\n" not in reason
    assert not reason.endswith(".")


@pytest.mark.parametrize("score", EVERY_SCORE)
def test_more_dimensions_than_points_give_every_score_a_finite_number(score):
    Z, y = example(n=60, d=200)
    assert np.isfinite(value_of(score, Z, y))


@pytest.mark.parametrize("score", ["gbc", "sfda", "cdnv"])
def test_a_class_of_one_sample_is_refused(score):
    Z, y = example()
    y[0] = 7
    with pytest.raises(UndefinedScore, match="a class of one sample"):
        value_of(score, Z, y)


@pytest.mark.parametrize("score", ["gbc", "sfda", "n_leep"])
def test_classes_of_equal_rows_leave_nothing_to_measure(score):
    y = np.repeat(np.arange(3), 20)
    with pytest.raises(UndefinedScore):
        value_of(score, np.random.default_rng(0).normal(size=(3, 8))[y], y)


@pytest.mark.parametrize("score", ["alpha_req", "two_nn_dimension", "mst_dimension", "clid"])
def test_few_points_are_too_few_for_a_dimension(score):
    with pytest.raises(UndefinedScore, match="fewer than"):
        value_of(score, np.random.default_rng(0).normal(size=(9, 20)))


@pytest.mark.parametrize("score", ["two_nn_dimension", "mst_dimension", "clid"])
def test_duplicates_of_few_points_are_few_points(score):
    rows = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(UndefinedScore, match="9 different points"):
        value_of(score, np.tile(rows, (20, 1)))


def test_points_on_one_ray_have_no_clusters_of_directions():
    ray = np.arange(1, 31)[:, None] ** 1.5 * np.ones(4)
    with pytest.raises(UndefinedScore, match="all rows have the same direction"):
        value_of("clid", ray)
    with pytest.raises(UndefinedScore, match="2 different directions, fewer than 5 clusters"):
        value_of("clid", np.concatenate([ray[:15], -ray[15:]]))


@pytest.mark.parametrize("score", LABELLED)
def test_one_class_is_refused(score):
    Z, _ = example()
    with pytest.raises(ValueError, match="one class only"):
        value_of(score, Z, np.zeros(len(Z)))
