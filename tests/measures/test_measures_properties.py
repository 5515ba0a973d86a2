"""Properties of the measures for any data: invariances, bounds, closed forms, and the null."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from dsmi_zoo.pipeline.measures import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    measure,
    shannon_entropy,
    shannon_mutual_information,
)

pytestmark = pytest.mark.long

# Random matrices by seed: hypothesis varies the shape, scale and seed, and so shrinks to a small case
few = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(2, 60)
dimensions = st.integers(1, 40)
scales = st.sampled_from([1e-3, 0.1, 0.5, 1.0, 2.0, 1e3])
seeds = st.integers(0, 2**31)


def embedding(n, d, scale, seed):
    return scale * np.random.default_rng(seed).normal(size=(n, d))


def rotation(d, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@few
@given(sizes, dimensions, scales, seeds)
def test_entropy_lies_between_zero_and_log2_n(n, d, scale, seed):
    entropy = diffusion_spectral_entropy(embedding(n, d, scale, seed))
    assert -1e-9 <= entropy <= np.log2(n) + 1e-9


@few
@given(sizes, dimensions, scales, seeds, st.sampled_from([1, 2, 5]))
def test_entropy_does_not_depend_on_the_order_of_the_points(n, d, scale, seed, t):
    Z = embedding(n, d, scale, seed)
    shuffled = np.random.default_rng(seed).permutation(Z)
    assert diffusion_spectral_entropy(shuffled, t=t) == pytest.approx(
        diffusion_spectral_entropy(Z, t=t), abs=1e-6
    )


@few
@given(sizes, dimensions, scales, seeds, st.floats(-100, 100))
def test_entropy_does_not_depend_on_where_the_points_lie(n, d, scale, seed, offset):
    Z = embedding(n, d, scale, seed)
    assert diffusion_spectral_entropy(Z + offset * scale) == pytest.approx(
        diffusion_spectral_entropy(Z), abs=1e-6
    )


@few
@given(sizes, dimensions, scales, seeds)
def test_entropy_does_not_depend_on_the_axes(n, d, scale, seed):
    Z = embedding(n, d, scale, seed)
    rotated = Z @ rotation(d, seed)
    assert diffusion_spectral_entropy(rotated) == pytest.approx(
        diffusion_spectral_entropy(Z), abs=1e-6
    )


@few
@given(sizes, dimensions, scales, seeds, st.integers(2, 3))
def test_entropy_stays_when_every_point_is_repeated(n, d, scale, seed, times):
    Z = embedding(n, d, scale, seed)
    repeated = np.repeat(Z, times, axis=0)
    assert diffusion_spectral_entropy(repeated) == pytest.approx(
        diffusion_spectral_entropy(Z), abs=1e-6
    )


@few
@given(sizes, dimensions, st.floats(-1e6, 1e6))
def test_entropy_of_identical_points_is_zero(n, d, value):
    Z = np.full((n, d), value)
    assert diffusion_spectral_entropy(Z) == pytest.approx(0, abs=1e-9)
    assert shannon_entropy(Z) == pytest.approx(0, abs=1e-9)


def test_entropy_of_one_point_is_zero():
    assert diffusion_spectral_entropy([[3.0, 4.0]]) == pytest.approx(0, abs=1e-9)
    assert shannon_entropy([[3.0, 4.0]]) == pytest.approx(0, abs=1e-9)


@few
@given(st.floats(0, 5), st.floats(0.2, 5), st.sampled_from([0.5, 1, 2]))
def test_entropy_of_two_points_follows_from_their_distance_by_hand(distance, sigma, t):
    g = np.exp(-(distance**2) / (2 * sigma**2))
    weights = np.array([1, (1 - g) / (1 + g)]) ** t  # eigenvalues of [[1, g], [g, 1]] / (1 + g)
    p = weights / weights.sum()
    by_hand = -sum(x * np.log2(x) for x in p if x > 0)
    entropy = diffusion_spectral_entropy(
        [[0, 0], [distance * 0.6, distance * 0.8]], sigma=sigma, t=t
    )
    assert entropy == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("n", [2, 16, 100])
def test_entropy_of_points_far_apart_is_log2_n(n):
    assert diffusion_spectral_entropy(np.arange(n)[:, None] * 1e4) == pytest.approx(
        np.log2(n), abs=1e-9
    )
    assert diffusion_spectral_entropy(np.arange(n)[:, None] * 1e90, sigma=1e-90) == pytest.approx(
        np.log2(n), abs=1e-9
    )


def test_entropy_of_separate_groups_of_identical_points_is_that_of_the_groups():
    Z = np.repeat(np.eye(8) * 1e4, 5, axis=0)
    assert diffusion_spectral_entropy(Z) == pytest.approx(3, abs=1e-9)


@few
@given(st.integers(8, 60), dimensions, scales, seeds)
def test_information_does_not_depend_on_place_or_axes(n, d, scale, seed):
    Z = embedding(n, d, scale, seed)
    labels = np.arange(n) % 3
    moved = Z @ rotation(d, seed) + 10 * scale
    expected = diffusion_spectral_mutual_information(Z, labels)
    assert diffusion_spectral_mutual_information(moved, labels) == pytest.approx(expected, abs=1e-6)


@few
@given(st.integers(8, 60), seeds)
def test_information_is_the_same_to_the_last_bit_when_classes_are_renamed(n, seed):
    Z = embedding(n, 5, 1.0, seed)
    labels = np.random.default_rng(seed).integers(0, 4, size=n)
    labels[:2] = 0, 1
    names = [
        np.array(["pear", "fig", "apple", "quince"])[labels],
        3 - labels,
        labels * 10.0,
        labels.tolist(),
    ]
    names.append(np.array(["b", 7, "a", ("t",)], dtype=object)[labels])
    for information in (diffusion_spectral_mutual_information, shannon_mutual_information):
        expected = information(Z, labels)
        assert [information(Z, renamed) for renamed in names] == [expected] * len(names)


def test_information_of_separate_classes_is_high_and_of_shuffled_labels_near_zero():
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 4
    Z = generator.normal(size=(400, 4)) * 0.2 + 3 * np.eye(4)[labels]
    assert diffusion_spectral_mutual_information(Z, labels) > 1
    assert abs(diffusion_spectral_mutual_information(Z, generator.permutation(labels))) < 0.05


@pytest.mark.parametrize(("scale", "saturated"), [(1e-3, True), (0.7, False), (1e3, True)])
def test_a_scale_far_from_sigma_saturates_the_entropy(scale, saturated):
    values = measure(embedding(100, 20, scale, 0), np.arange(100) % 4)
    assert values["saturated"] is saturated


def test_classic_entropy_follows_from_the_cells_by_hand():
    assert shannon_entropy([[0, 0], [0, 1], [1, 0], [1, 1]]) == pytest.approx(2, abs=1e-9)
    assert shannon_entropy([[0], [0], [0], [1]]) == pytest.approx(2 - 0.75 * np.log2(3), abs=1e-9)
    assert shannon_entropy(np.arange(100)[:, None], bins=10) == pytest.approx(np.log2(10), abs=1e-6)
    # the largest value lies beyond the last edge, so it shares the last bin
    assert shannon_entropy([[0], [1], [2], [3], [4]], bins=4) == pytest.approx(
        np.log2(5) - 0.4, abs=1e-9
    )


def test_classic_entropy_of_many_dimensions_is_log2_n_and_tells_nothing():
    Z = embedding(128, 300, 1.0, 0)
    assert shannon_entropy(Z) == pytest.approx(7, abs=1e-9)
    assert shannon_mutual_information(Z, np.arange(128) % 4) == pytest.approx(0, abs=1e-9)


def test_classic_information_of_a_bit_with_itself_is_one_bit():
    bit = np.arange(1000) % 2
    assert shannon_mutual_information(bit[:, None], bit) == pytest.approx(1, abs=0.01)


def test_the_null_of_unrelated_labels_is_near_zero():
    values = measure(embedding(500, 50, 1.0, 0), np.arange(500) % 10)
    assert abs(values["dsmi_z_y_null"]) < 0.05
    assert abs(values["dsmi_z_y"]) < 0.05


def test_repeats_fake_a_signal_that_the_null_over_images_takes_away():
    generator = np.random.default_rng(0)
    images = np.repeat(np.arange(1000), 3)
    labels = images % 20
    Z = generator.normal(size=(1000, 64))[images] + 0.1 * generator.normal(size=(3000, 64))
    values = measure(Z, labels, image_ids=images, null_permutations=3)
    assert values["dsmi_z_y"] > 0.3
    assert abs(values["dsmi_z_y"] - values["dsmi_z_y_null"]) < 0.05


def test_small_blocks_leave_the_number_of_threads_as_they_found_it() -> None:
    rng = np.random.default_rng(0)
    with threadpool_limits(2, user_api="blas"):
        before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        measure(rng.normal(size=(60, 4)), np.arange(60) % 3)
        assert [
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        ] == before
