"""Label CKA and PARC against their definitions by all pairs, and in closed form."""

import numpy as np
import pytest
from by_name import value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group, spearmanr

from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore

BOTH = ("label_cka", "parc")


def example(seed=0, n=60, d=7, classes=4):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % classes)
    return generator.normal(size=(n, d)) + generator.normal(size=(classes, d))[labels] + 3, labels


def test_label_cka_is_that_of_the_gram_matrices():
    Z, labels = example()
    centring = np.eye(60) - 1 / 60
    K, L = Z @ Z.T, (labels[:, None] == labels).astype(float)

    def hsic(a, b):
        return np.trace(a @ centring @ b @ centring)

    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert value_of("label_cka", Z, labels) == pytest.approx(expected, abs=1e-12)


def test_parc_is_spearmans_over_numpys_correlations_as_the_authors_write_it():
    Z, labels = example(1)
    lower = np.tril_indices(60, -1)
    rows, one_hot = (1 - np.corrcoef(a)[lower] for a in (Z, np.eye(4)[labels]))
    expected = 100 * spearmanr(rows, one_hot).statistic
    assert value_of("parc", Z, labels) == pytest.approx(expected, abs=1e-9)
    repeated = np.repeat(Z, 2, axis=0)
    ids = np.repeat(np.arange(60), 2)
    assert value_of("parc", repeated, np.repeat(labels, 2), image_ids=ids) == pytest.approx(
        expected
    )


def test_classes_that_are_points_at_equal_distances_have_a_cka_of_1():
    labels = np.repeat(np.arange(5), 12)
    assert value_of("label_cka", np.eye(5)[labels], labels) == pytest.approx(1)
    assert value_of("parc", np.eye(5)[labels], labels) == pytest.approx(100)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(-60, 60))
def test_scale_order_and_names_of_classes_change_neither(seed, power):
    Z, labels = example(seed)
    order = np.random.default_rng(seed).permutation(60)
    for name in BOTH:
        expected = value_of(name, Z, labels)
        assert -100 <= expected <= 100
        changed = value_of(name, 10**power * Z[order], 7 - labels[order])
        assert changed == pytest.approx(expected, rel=1e-7, abs=1e-9)
    rotated = Z @ ortho_group.rvs(7, random_state=seed) + 5
    assert value_of("label_cka", rotated, labels) == pytest.approx(value_of("label_cka", Z, labels))


def test_where_they_are_undefined_they_say_why():
    labels = np.arange(20) % 2
    with pytest.raises(UndefinedScore, match="all rows are the same"):
        value_of("label_cka", np.ones((20, 3)), labels)
    with pytest.raises(UndefinedScore, match="less their own mean have no direction"):
        value_of("parc", np.ones((20, 3)), labels)
    with pytest.raises(UndefinedScore, match="one column"):
        value_of("parc", np.arange(20.0)[:, None], labels)
    with pytest.raises(UndefinedScore, match="no two images share a class"):
        value_of("parc", np.random.default_rng(0).normal(size=(20, 3)), np.arange(20))
