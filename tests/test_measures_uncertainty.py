"""The standard error of DSMI over images, and the spread of its null."""

import numpy as np
import pytest

from dsmi_zoo.pipeline.measures import diffusion_spectral_mutual_information, measure
from dsmi_zoo.pipeline.measures.mutual_information import exact_entropies, shared_kernels
from dsmi_zoo.pipeline.measures.points import as_points
from dsmi_zoo.pipeline.measures.uncertainty import sampling_error


def sample(seed, size=30, classes=6, d=20, separation=0.5, scale=1.0):
    """A fresh sample of one distribution, with as many points of each class every time."""
    labels = np.repeat(np.arange(classes), size)
    centres = separation * np.random.default_rng(5).normal(size=(classes, d))
    generator = np.random.default_rng([7, seed])
    return scale * (1.5 * generator.normal(size=(len(labels), d)) + centres[labels]), labels


def stated_error(Z, labels, images=None, seed=0):
    entropies_of = exact_entropies(shared_kernels(as_points(Z), np.sqrt(Z.shape[1])), 1)
    return sampling_error(labels, np.arange(len(labels)) if images is None else images, entropies_of, 5, seed)


@pytest.mark.parametrize(("separation", "scale"), [(0.0, 1.0), (1.5, 1.0), (1.0, 0.4)])
def test_the_spread_over_fresh_samples_is_the_stated_error_within_a_fifth(separation, scale):
    samples = [sample(seed, separation=separation, scale=scale) for seed in range(120)]
    spread = np.std([diffusion_spectral_mutual_information(Z, labels) for Z, labels in samples], ddof=1)
    stated = np.sqrt(np.mean([stated_error(Z, labels) ** 2 for Z, labels in samples[:60]]))
    assert stated == pytest.approx(spread, rel=0.2)


def test_repeats_that_say_nothing_new_do_not_make_the_error_smaller():
    Z, labels = sample(0)
    images = np.arange(len(labels))
    once = stated_error(Z, labels)
    thrice = stated_error(np.repeat(Z, 3, axis=0), np.repeat(labels, 3), np.repeat(images, 3))
    apart = stated_error(np.repeat(Z, 3, axis=0), np.repeat(labels, 3))
    assert thrice > 0.6 * once
    assert thrice != pytest.approx(apart, rel=0.1)


def test_no_spread_is_no_error():
    Z, labels = sample(0)
    assert stated_error(np.zeros_like(Z), labels) == pytest.approx(0, abs=1e-9)
    assert stated_error(1e6 * Z, labels) == pytest.approx(0, abs=1e-9)


def test_the_error_is_in_the_row_with_the_spread_of_the_null():
    Z, labels = sample(0)
    values = measure(Z, labels, seed=3)
    assert values["dsmi_z_y_se"] == stated_error(Z, labels, seed=3)
    generator = np.random.default_rng(3)
    permuted = [diffusion_spectral_mutual_information(Z, generator.permutation(labels), seed=3) for _ in range(10)]
    assert values["dsmi_z_y_null_sd"] == pytest.approx(np.std(permuted, ddof=1), abs=1e-12)
    assert "dsmi_z_y_null_sd" not in measure(Z, labels, null_permutations=1)


@pytest.mark.parametrize(("sizes", "known"), [((30, 30, 3), True), ((30, 3, 3, 3), False), ((3, 3), False)])
def test_classes_too_small_for_quarters_leave_the_error_out_if_they_are_many(sizes, known):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    Z = np.random.default_rng(0).normal(size=(len(labels), 4))
    assert ("dsmi_z_y_se" in measure(Z, labels)) is known


def test_the_names_of_classes_and_images_do_not_matter():
    Z, labels = sample(0)
    images = np.arange(len(labels)) // 2
    first = measure(Z, labels, image_ids=images)
    second = measure(Z, [f"class {label}" for label in labels], image_ids=[f"{image}.png" for image in images])
    assert first == second
