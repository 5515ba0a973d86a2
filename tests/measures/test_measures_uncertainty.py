"""The standard error of DSMI over images, and the spread of its null."""

import numpy as np
import pandas as pd
import pytest

from dsmi_zoo.pipeline.measures import diffusion_spectral_mutual_information, measure
from dsmi_zoo.pipeline.measures.catalog import ROW_MEASURES
from dsmi_zoo.pipeline.measures.core.distances import as_points
from dsmi_zoo.pipeline.measures.core.halves import error_over_halves, random_halves
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.dse.subsets import SpectralEntropies, sampling_error

pytestmark = pytest.mark.long


def sample(seed, size=30, classes=6, d=20, separation=0.5, scale=1.0):
    """Return a fresh sample of one distribution, with ``size`` points of each class."""
    labels = np.repeat(np.arange(classes), size)
    centres = separation * np.random.default_rng(5).normal(size=(classes, d))
    generator = np.random.default_rng([7, seed])
    return scale * (1.5 * generator.normal(size=(len(labels), d)) + centres[labels]), labels


def stated_error(Z, labels, images=None, seed=0):
    settings = MeasureSettings(method="exact", precision="float64", seed=seed)
    entropies = SpectralEntropies(as_points(Z), np.sqrt(Z.shape[1]), settings)
    images = np.arange(len(labels)) if images is None else images
    return sampling_error(labels, images, entropies)


@pytest.mark.parametrize(("separation", "scale"), [(0.0, 1.0), (1.5, 1.0), (1.0, 0.4)])
def test_the_spread_over_fresh_samples_is_the_stated_error_within_a_fifth(separation, scale):
    samples = [sample(seed, separation=separation, scale=scale) for seed in range(120)]
    spread = np.std(
        [diffusion_spectral_mutual_information(Z, labels) for Z, labels in samples], ddof=1
    )
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


@pytest.mark.parametrize(("size", "is_known"), [(4, False), (7, False), (8, True)])
def test_quarters_of_one_image_give_no_error_rather_than_0(size, is_known):
    Z, labels = sample(0, size=size)
    values = measure(Z, labels, scores=("dsmi_z_y", "dsmi_z_y_se"))
    assert ("dsmi_z_y_se" in values) == is_known
    if is_known:
        assert values["dsmi_z_y_se"] > 0.01
    else:
        assert "classes have fewer than 8 images" in values["undefined_scores"]


def test_no_spread_is_no_error():
    Z, labels = sample(0)
    assert stated_error(np.zeros_like(Z), labels) == pytest.approx(0, abs=1e-9)
    assert stated_error(1e6 * Z, labels) == pytest.approx(0, abs=1e-9)


def test_the_error_is_in_the_row_with_the_spread_of_the_null():
    Z, labels = sample(0)
    values = measure(Z, labels, seed=3)
    assert values["dsmi_z_y_se"] == stated_error(Z, labels, seed=3)
    generator = np.random.default_rng(3)
    permuted = [
        diffusion_spectral_mutual_information(Z, generator.permutation(labels), seed=3)
        for _ in range(10)
    ]
    assert values["dsmi_z_y_null_sd"] == pytest.approx(np.std(permuted, ddof=1), abs=1e-12)
    assert "dsmi_z_y_null_sd" not in measure(Z, labels, null_permutations=1)


@pytest.mark.parametrize(
    ("sizes", "known"), [((30, 30, 3), True), ((30, 3, 3, 3), False), ((3, 3), False)]
)
def test_classes_too_small_for_quarters_leave_the_error_out_if_they_are_many(sizes, known):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    Z = np.random.default_rng(0).normal(size=(len(labels), 4))
    assert ("dsmi_z_y_se" in measure(Z, labels)) is known


def test_the_names_of_classes_and_images_do_not_matter():
    Z, labels = sample(0)
    images = np.arange(len(labels)) // 2
    first = measure(Z, labels, image_ids=images)
    second = measure(
        Z, [f"class {label}" for label in labels], image_ids=[f"{image}.png" for image in images]
    )
    assert first == second


@pytest.mark.parametrize(
    ("separation", "scale"), [pytest.param(0.5, 1.0, marks=pytest.mark.slow), (1.5, 0.4)]
)
def test_the_error_of_no_score_is_far_from_its_spread_over_fresh_samples(separation, scale):
    """Quarters gave a fifth of some spreads. No MST dimension: trees of half the points understate its error."""
    samples = [sample(seed, size=24, separation=separation, scale=scale) for seed in range(40)]
    names = [
        one.name for one in ROW_MEASURES if one.needs != "input_clusters" and one.unit != "text"
    ]
    names = [name for name in names if not name.startswith("logistic_probe")]  # a closed form
    quick = {"null_permutations": 1, "repetitions": 2}
    # An error costs as much as eight values and varies less, so every other sample is enough.
    rows = pd.DataFrame([measure(Z, labels, **quick, scores=names) for Z, labels in samples[::2]])
    # A score that is at a bound in most draws has an error only in the other draws.
    known = rows.notna().mean() > 0.5
    scores = [s for s in rows if known.get(f"{s}_se", False) and s != "mst_dimension"]
    others = [measure(Z, labels, **quick, scores=scores) for Z, labels in samples[1::2]]
    spread = pd.concat([rows[scores], pd.DataFrame(others)[scores]]).std()
    stated = np.sqrt((rows[[f"{score}_se" for score in scores]] ** 2).mean()).set_axis(scores)
    ratios = (stated / spread)[spread > 1e-6]
    assert len(ratios) > 18
    assert ratios[(ratios < 0.5) | (ratios > 1.8)].to_dict() == {}


def test_halves_hold_half_of_each_class_and_whole_images():
    classes = np.repeat([0, 1, 2, 3], [40, 20, 8, 3])  # the last is too small
    images = np.arange(len(classes)) // 2
    classes = classes[np.argsort(images, kind="stable")]
    halves = random_halves(classes[images * 2], images, seed=0)
    assert len(halves) == 8
    for rows in halves:
        assert np.bincount(classes[rows]).tolist() == [20, 10, 4]
        assert (np.bincount(images[rows]) % 2 == 0).all()
    assert len({tuple(sorted(rows)) for rows in halves}) == 8
    assert random_halves(np.arange(30) // 3, np.arange(30), seed=0) == []


def test_a_half_of_very_many_images_has_about_five_hundred_rows():
    classes = np.arange(8000) % 10
    assert {len(rows) for rows in random_halves(classes, np.arange(8000), seed=0)} == {500}


def test_the_error_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(0).normal(size=2000)
    halves = [random_halves(np.zeros(2000, dtype=int), np.arange(2000), seed) for seed in range(40)]
    stated = [
        error_over_halves([values[rows].mean() for rows in some], 500, 2000) for some in halves
    ]
    assert np.sqrt(np.mean(np.square(stated))) == pytest.approx(
        values.std() / np.sqrt(2000), rel=0.1
    )
    smaller = error_over_halves(
        [values[rows[:400]].mean() for some in halves for rows in some], 400, 2000
    )
    assert smaller == pytest.approx(values.std() / np.sqrt(2000), rel=0.1)
