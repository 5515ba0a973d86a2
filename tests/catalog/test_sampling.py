"""Samples for the stages of a search: class frequencies and the weight of an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.sampling import Sample, samples
from dsmi_zoo.data_catalog.datasets.subset import select_subset

class_sizes = st.lists(st.integers(2, 400), min_size=2, max_size=20).map(np.array)


@given(class_sizes, st.sampled_from([3, 9, 27]), st.integers(0, 2**31))
def test_one_in_k_keeps_frequencies_and_weights_the_classes_too_small_for_it(
    sizes: np.ndarray, one_in: int, seed: int
) -> None:
    sample = Sample(one_in=one_in)
    taken = sample.sizes(sizes, seed)
    weights = sample.weights(sizes, taken)
    small = sizes < 2 * one_in
    assert (np.abs(taken - sizes / one_in)[~small] < 1).all()
    assert (weights[~small] == 1).all()
    assert (taken[small] == 2).all()
    np.testing.assert_allclose((weights * taken)[small], (sizes / one_in)[small])
    larger = Sample(one_in=3).sizes(sizes, seed)
    assert (taken <= np.maximum(larger, 2)).all(), "a stage's images are among the next one's"


def test_every_image_has_the_same_chance_to_be_in_the_sample() -> None:
    sizes = np.array([100, 31, 8])
    mean = np.mean([Sample(one_in=3).sizes(sizes, seed) for seed in range(2000)], axis=0)
    np.testing.assert_allclose(mean, sizes / 3, atol=0.05)


@given(class_sizes, st.integers(2, 50))
def test_so_many_of_each_class_weights_all_classes_equally(sizes: np.ndarray, most: int) -> None:
    sample = Sample(most=most)
    taken = sample.sizes(sizes)
    assert (taken == np.minimum(sizes, most)).all()
    of_classes = taken * sample.weights(sizes, taken)
    np.testing.assert_allclose(of_classes, of_classes[0])


@given(class_sizes, st.booleans())
def test_the_stages_save_images_and_have_enough_for_each_class(
    sizes: np.ndarray, balanced: bool
) -> None:
    found = samples(sizes, balanced=balanced, shrink=3, fewest=5)
    images = [one.sizes(sizes).sum() for one in found]
    assert images == sorted(images)
    assert all(2 * n <= sizes.sum() for n in images)
    if len(sizes) * 15 > sizes.sum():
        assert found == []


def test_a_thousand_classes_of_three_images_have_no_stages() -> None:
    sizes = np.full(1000, 3)
    assert samples(sizes, balanced=False, shrink=3, fewest=5) == []
    assert samples(sizes, balanced=True, shrink=3, fewest=5) == []


def test_a_sample_is_a_part_of_the_subset_and_what_it_leaves_out_is_counted() -> None:
    images = open_dataset("digits")
    whole = select_subset(images)
    smaller, larger = (select_subset(images, sample=Sample(one_in=r)) for r in (9, 3))
    assert set(smaller.images.names) < set(larger.images.names) < set(whole.images.names)
    assert (larger.class_sizes == Sample(one_in=3).sizes(whole.class_sizes)).all()
    assert larger.account.left_out[-1].reason == "not in the sample"
    assert larger.account.left_out[-1].count == len(whole.labels) - len(larger.labels)
    assert larger.digest != whole.digest
    assert larger.digest == select_subset(images, sample=Sample.of("1/3")).digest


@pytest.mark.parametrize("text", ["1/1", "0", "1", "1/0", "3/9", "-2", "9/1", "x", "1/3 ", ""])
def test_other_samples_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one image in nine"):
        Sample.of(text)
