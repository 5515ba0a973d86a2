"""DSMI with a sigma that follows the embedding's scale."""

import random
import warnings

import numpy as np
import pytest
from by_name import value_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo.pipeline.measures import measure

with warnings.catch_warnings():  # importing it silences all warnings for good
    from dse_dsmi import diffusion_spectral_mutual_information as reference


def example(seed=0, n=90, d=12, offset=0.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    return generator.normal(size=(n, d)) + labels[:, None] + offset, labels


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_it_is_the_references_at_half_the_root_mean_square_length_and_t_2(scale, offset):
    Z, labels = example(offset=offset)
    Z = scale * Z
    sigma = np.sqrt(np.mean(np.sum(Z**2, axis=1))) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = reference(Z, labels, gaussian_kernel_sigma=sigma, t=2)[0]
    assert value_of("dsmi_z_y_scale_free", Z, labels) == pytest.approx(theirs, abs=1e-6)
    assert theirs > 0.05


def test_it_is_what_the_definition_says_by_dense_matrices():
    Z, labels = example(1)
    squares = ((Z[:, None] - Z[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squares / (2 * np.mean((Z**2).sum(axis=1)) / 4))

    def entropy(members):
        block = kernel[np.ix_(members, members)]
        weights = (
            np.abs(np.linalg.eigvals(block / np.sqrt(np.outer(block.sum(1), block.sum(1))))) ** 2
        )
        p = weights / weights.sum()
        return -np.sum(p[p > 0] * np.log2(p[p > 0]))

    classes = [np.flatnonzero(labels == c) for c in range(3)]
    means = {}
    for members in classes:
        source = random.Random(4)
        means[len(members)] = np.mean(
            [entropy(source.sample(range(90), len(members))) for _ in range(2)]
        )
    direct = sum(len(m) / 90 * (means[len(m)] - entropy(m)) for m in classes)
    assert value_of("dsmi_z_y_scale_free", Z, labels, repetitions=2, seed=4) == pytest.approx(
        direct, abs=1e-9
    )


@settings(deadline=None, max_examples=25)
@given(
    scale=st.floats(-60, 60).map(lambda e: 10.0**e), seed=st.integers(0, 50), negative=st.booleans()
)
def test_no_scale_changes_it(scale, seed, negative):
    Z, labels = example(seed, n=30, d=4)
    scaled = value_of("dsmi_z_y_scale_free", (-scale if negative else scale) * Z, labels)
    assert scaled == pytest.approx(value_of("dsmi_z_y_scale_free", Z, labels), abs=1e-9)
    assert 0 < scaled < np.log2(30)


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5, 1e-300, 1e100])
def test_points_that_are_all_alike_have_none(value):
    labels = np.arange(20) % 2
    assert value_of("dsmi_z_y_scale_free", np.full((20, 3), value), labels) == pytest.approx(
        0, abs=1e-9
    )


def test_an_embedding_whose_median_distance_is_0_has_a_value():
    Z, labels = np.zeros((40, 2)), np.repeat([0, 1], [30, 10])
    Z[30:] = [3.0, 4.0]
    assert np.median([np.linalg.norm(a - b) for a in Z for b in Z]) == 0
    # Each class is one point, without entropy, so the value is the entropy of random subsets, most of which have both.
    assert 0.4 < value_of("dsmi_z_y_scale_free", Z, labels) < 1


def test_what_all_rows_share_makes_them_alike():
    values = [
        value_of("dsmi_z_y_scale_free", *example(offset=offset)) for offset in (0.0, 10.0, 1000.0)
    ]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(0, abs=0.01)


def test_half_precision_is_computed_in_double():
    Z, labels = example()
    Z = (1000 * Z).astype(np.float16)  # the squares overflow half precision
    assert value_of("dsmi_z_y_scale_free", Z, labels) == value_of(
        "dsmi_z_y_scale_free", Z.astype(float), labels
    )


def test_a_row_has_it_whatever_sigma_and_t_are_set_and_not_without_labels():
    Z, labels = example()
    values = [
        measure(Z, labels, sigma=sigma, t=t, repetitions=3, seed=9)["dsmi_z_y_scale_free"]
        for sigma, t in ((None, 1), (0.1, 3))
    ]
    assert values == [value_of("dsmi_z_y_scale_free", Z, labels, repetitions=3, seed=9)] * 2
    assert "dsmi_z_y_scale_free" not in measure(Z, None)


@pytest.mark.parametrize(
    ("Z", "labels", "words"),
    [
        (np.ones((4, 2)), [0, 0, 0, 0], "one class only"),
        (np.ones((4, 2)), [0, 1], "2 entries but the embedding has 4 rows"),
        (np.ones(4), [0, 1, 0, 1], "reshape"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], "NaN"),
        (np.full((4, 2), 1e101), [0, 1, 0, 1], "too large"),
    ],
)
def test_what_the_other_measures_refuse_it_refuses(Z, labels, words):
    with pytest.raises(ValueError, match=words):
        value_of("dsmi_z_y_scale_free", Z, labels)
