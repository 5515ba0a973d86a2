"""Transferability scores, against plain computations, scikit-learn and properties that must hold."""

import warnings

import numpy as np
import pytest
from by_name import value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.optimize import minimize
from scipy.stats import binomtest, multivariate_normal, ortho_group
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, DETAILS, UNDEFINED, parse_reasons
from dsmi_zoo.pipeline.measures.core.checks import UndefinedScore
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.hits import pack_hits, unpack_hits, wilson_interval
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.run import values_of

SCORES = {
    "logme", "h_score", "transrate", "rankme", "centre_accuracy", "neighbour_accuracy", "probe_accuracy",
    "within_over_between",
}  # fmt: skip
ACCURACIES = {"centre_accuracy", "neighbour_accuracy", "probe_accuracy"}
PROBE = {"probe_low", "probe_high", "probe_hits"}
SHAPES = [(60, 7), (40, 90)]
GENTLE = settings(max_examples=25, deadline=None)


def transferability(Z, labels, image_ids=None):
    """Return the scores that this file tests, and the probe's details, by column name."""
    measures = [measure for measure in (*COMPARISONS, *DETAILS) if measure.name in SCORES | PROBE]
    return values_of(measures, MeasureContext(Z, labels, image_ids, None, MeasureSettings()))


def example(n=60, d=7, classes=4, signal=1.0, seed=0):
    """Return an embedding with unequal variances and an offset, and labels of unbalanced classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(
        np.concatenate([np.arange(classes), np.arange(classes), rng.integers(classes, size=n)])[:n]
    )
    spread = np.linspace(2, 0.1, d)
    return rng.normal(size=(n, d)) * spread + signal * rng.normal(size=(classes, d))[y] + 0.5, y


def with_repeats(signal=0.5, seed=0):
    """Return an embedding of 24 images with one to three repeats in random order, its labels and image ids."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.concatenate([np.arange(24), np.arange(16), np.arange(8)]))
    y = (np.arange(24) % 3)[images]
    of_image = rng.normal(size=(24, 10)) + signal * rng.normal(size=(3, 10))[np.arange(24) % 3]
    return of_image[images] + 0.3 * rng.normal(size=(48, 10)), y, images


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_logme_is_the_maximum_of_the_evidence(n, d):
    Z, y = example(n, d, classes=3)

    def loss(logarithms, target):
        alpha, beta = np.exp(logarithms)
        covariance = np.eye(n) / beta + Z @ Z.T / alpha
        return -multivariate_normal(np.zeros(n), covariance).logpdf(target) / n

    options = {"xatol": 1e-5, "fatol": 1e-9}
    best = []
    for c in range(3):
        target = (y == c).astype(float)
        fits = [
            minimize(loss, x, target, method="Nelder-Mead", options=options).fun
            for x in ([2, 2], [6, 4])
        ]
        best.append(-min(fits))
    assert value_of("logme", Z, y) == pytest.approx(np.mean(best), abs=1e-6)


def test_logme_of_labels_that_the_embedding_does_not_know_is_that_of_noise():
    Z, y = example(300, 4, classes=2, signal=0)
    Z -= Z.mean(0)
    share = np.bincount(y) / 300
    of_noise = np.mean(-(np.log(2 * np.pi * share) + 1) / 2)
    assert (
        of_noise - 1e-9 < value_of("logme", Z, y) < of_noise + 0.02
    )  # the less the embedding explains, the nearer to noise
    assert value_of("logme", np.zeros((300, 4)), y) == pytest.approx(of_noise)


def test_logme_of_labels_that_are_linear_in_the_embedding_is_great_but_bounded():
    y = np.arange(30) % 3
    assert 5 < value_of("logme", np.eye(3)[y], y) < 20
    Z, y = example(30, 60)
    assert value_of("logme", Z, y) < 5  # n <= d: any labels are linear in the embedding


@pytest.mark.parametrize(("n", "d"), [*SHAPES, (50, 1)])
def test_h_score_is_the_plain_one_with_scikit_learns_covariance(n, d):
    Z, y = example(n, d)
    estimate = LedoitWolf().fit(Z)
    means = np.stack([Z[y == c].mean(0) for c in range(4)])[y]
    between = np.cov(means, rowvar=False, bias=True).reshape(d, d)
    expected = np.trace(np.linalg.inv(estimate.covariance_) @ between) * (1 - estimate.shrinkage_)
    assert value_of("h_score", Z, y) == pytest.approx(expected, rel=1e-9)
    assert d == 1 or ledoit_wolf_shrinkage(Z) > 0.01


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_transrate_is_the_plain_one(n, d):
    Z, y = example(n, d)
    centred = Z - Z.mean(0)

    def rate(rows):
        return np.linalg.slogdet(np.eye(d) + rows.T @ rows / (len(rows) * 1e-4))[1] / 2

    expected = rate(centred) - sum(np.mean(y == c) * rate(centred[y == c]) for c in range(4))
    assert value_of("transrate", Z, y) == pytest.approx(expected, rel=1e-8)
    assert expected > 0


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_rankme_is_the_entropy_of_the_singular_values(n, d):
    Z, _ = example(n, d)
    singular = np.linalg.svd(Z, compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    assert value_of("rankme", Z) == pytest.approx(
        np.exp(-np.sum(shares * np.log(shares))), rel=1e-9
    )


@pytest.mark.parametrize("k", [1, 5, 40])
def test_rankme_of_k_equal_singular_values_is_k(k):
    Z = ortho_group.rvs(60, random_state=0)[:, :k] @ ortho_group.rvs(50, random_state=1)[:k]
    assert value_of("rankme", 3 * Z) == pytest.approx(k, rel=2e-4)


def test_rankme_of_zeros_is_undefined():
    with pytest.raises(UndefinedScore, match="all rows are zero"):
        value_of("rankme", np.zeros((5, 3)))


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_within_over_between_is_that_of_the_sums_of_squares(n, d):
    Z, y = example(n, d)
    within = between = 0.0
    for c in range(4):
        rows = Z[y == c]
        within += ((rows - rows.mean(0)) ** 2).sum()
        between += len(rows) * ((rows.mean(0) - Z.mean(0)) ** 2).sum()
    assert value_of("within_over_between", Z, y) == pytest.approx(within / between)
    assert within + between == pytest.approx(n * Z.var(0).sum())


def test_within_over_between_is_0_if_classes_collapse_and_undefined_for_equal_means():
    y = np.array([0, 0, 1, 1])
    assert value_of("within_over_between", [[1.0], [1], [2], [2]], y) == 0
    with pytest.raises(UndefinedScore, match="the means of all classes coincide"):
        value_of("within_over_between", [[0.1], [0.3], [0.1], [0.3]], y)


def test_a_row_has_every_score_by_its_columns_name_and_the_probes_interval():
    Z, y, images = with_repeats()
    scores = transferability(Z, y, image_ids=images)
    assert set(scores) == SCORES | PROBE
    hits = unpack_hits(scores["probe_hits"])
    assert scores["probe_accuracy"] == 100 * hits.mean()
    interval = binomtest(int(hits.sum()), 24).proportion_ci(method="wilson")
    assert (scores["probe_low"], scores["probe_high"]) == pytest.approx(
        (100 * interval.low, 100 * interval.high)
    )


def test_only_the_variance_ratio_is_better_when_lower():
    assert [score.name for score in COMPARISONS if score.lower_is_better] == [
        "within_over_between",
        "cdnv",
        "pactran_gauss",
    ]
    clear, y = example(signal=2)
    vague, _ = example(signal=0.2)
    above, below = transferability(clear, y), transferability(vague, y)
    # rankme ignores the labels.
    better = {name: above[name] > below[name] for name in SCORES - {"rankme"}}
    assert [name for name, higher in better.items() if not higher] == ["within_over_between"]


def test_a_class_with_one_image_has_a_reason_for_no_accuracies_and_keeps_the_rest():
    Z = np.random.default_rng(0).normal(size=(9, 3))
    y = ["a", "a", "a", "a", "b", "b", "b", "b", "c; d"]
    scores = transferability(Z, y)
    assert set(scores) == (SCORES - ACCURACIES) | {UNDEFINED}
    reasons = parse_reasons(scores[UNDEFINED])
    assert reasons.keys() == ACCURACIES | PROBE
    assert set(reasons.values()) == {
        "class c, d has one image (row 8), an accuracy needs two images of each class"
    }
    y[3] = "c; d"
    assert set(transferability(Z, y)) == SCORES | PROBE
    repeats = ["1.png", "2.png", "3.png", "4.png", "5.png", "6.png", "7.png", "8.png", "4.png"]
    of_one = parse_reasons(transferability(Z, y, image_ids=repeats)[UNDEFINED])
    assert "class c, d has one image (4.png)" in of_one["probe_accuracy"]
    of_all = parse_reasons(transferability(Z, range(9))[UNDEFINED])
    assert "9 of 9 classes have one image, such as 0 (row 0)" in of_all["probe_accuracy"]


def test_a_constant_embedding_has_a_row_without_warnings():
    y = np.array([0] * 6 + [1] * 3 + [2] * 3)
    scores = transferability(np.full((12, 5), 0.1), y)
    assert set(scores) == (SCORES | PROBE | {UNDEFINED}) - {"within_over_between"}
    assert scores["h_score"] == scores["transrate"] == 0
    assert scores["rankme"] == pytest.approx(1, abs=1e-4)
    assert scores["probe_accuracy"] == 50  # the largest class
    assert set(transferability(np.zeros((12, 5)), y)) == (SCORES | PROBE | {UNDEFINED}) - {
        "within_over_between",
        "rankme",
    }


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e99])
def test_values_of_any_size_are_measured(scale):
    Z, y = example(30, 5)
    scores, expected = transferability(scale * Z, y), transferability(Z, y)
    assert set(scores) == SCORES | PROBE
    same = SCORES - {"transrate"}
    assert {name: scores[name] for name in same} == pytest.approx(
        {name: expected[name] for name in same}, rel=1e-6
    )


@pytest.mark.parametrize("d", [1, 3, 40])
def test_duplicates_strings_and_single_columns_are_measured(d):
    Z, y = example(20, d)
    twice = np.concatenate([Z, Z])
    names = np.array(["ant", "bee", "cat", "dog"])[np.concatenate([y, y])]
    scores = transferability(
        twice.astype(np.float32), names, image_ids=[f"{i}.png" for i in [*range(20)] * 2]
    )
    assert set(scores) == SCORES | PROBE
    once = transferability(Z.astype(np.float32), y)
    for name in ("rankme", "within_over_between", "transrate", "centre_accuracy"):
        assert scores[name] == pytest.approx(once[name], rel=1e-4), name


@pytest.mark.parametrize(
    ("Z", "y", "images", "words"),
    [
        (np.zeros(4), [0, 0, 1, 1], None, "reshape"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], None, "NaN"),
        (np.zeros((4, 2)), [0, 1, 1], None, "3 entries"),
        (np.zeros((4, 2)), [0, 0, 1, 1], [0, 1], "image_ids has shape"),
        (np.zeros((4, 2)), [0, 0, 1, 1], [0, 1, 1, 2], "different labels"),
    ],
)
def test_wrong_input_is_refused_in_one_line(Z, y, images, words):
    with pytest.raises(ValueError, match=words) as refusal:
        transferability(Z, y, image_ids=images)
    assert "\n" not in str(refusal.value)


shapes = st.tuples(st.integers(12, 40), st.integers(1, 50), st.integers(0, 2**20))


@GENTLE
@given(shapes)
def test_a_rotation_of_the_embedding_changes_no_score(shape):
    n, d, seed = shape
    Z, y = example(n, d, 3, seed=seed)
    rotation = ortho_group.rvs(d, random_state=seed) if d > 1 else np.array([[-1.0]])
    assert_agree(transferability(Z @ rotation, y), transferability(Z, y))


@GENTLE
@given(shapes)
def test_the_order_of_the_rows_changes_no_score(shape):
    n, d, seed = shape
    Z, y = example(n, d, 3, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    before, after = transferability(Z, y), transferability(Z[order], y[order])
    hits = unpack_hits(before["probe_hits"])[order]
    assert_array_equal(unpack_hits(after["probe_hits"]), hits)
    assert_agree(after, before)


@GENTLE
@given(shapes, st.floats(-20, 20))
def test_scale_changes_transrate_alone_and_offset_logme_and_rankme(shape, power):
    n, d, seed = shape
    Z, y = example(n, d, 3, seed=seed)
    before = transferability(Z, y)
    assert_agree(transferability(10.0**power * Z, y), before, ("transrate",))
    assert_agree(transferability(Z + 3, y), before, ("logme", "rankme"))


def assert_agree(scores, expected, but=()):
    """Check that the numeric scores, except those in ``but``, are equal up to rounding."""
    numbers = {
        name: value
        for name, value in expected.items()
        if name not in but and not isinstance(value, str)
    }
    assert {name: scores[name] for name in numbers} == pytest.approx(numbers, rel=1e-5, abs=1e-5)


def test_no_score_warns_on_numbers_that_are_all_alike_but_one():
    Z = np.zeros((12, 4))
    Z[3, 2] = 1e90
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = transferability(Z, np.arange(12) % 3)
    assert np.isfinite([value for value in scores.values() if not isinstance(value, str)]).all()


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(case):
    hits, n = case
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits, n) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=1e-9
    )


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_hits_survive_being_packed(hits):
    assert unpack_hits(pack_hits(np.array(hits))).tolist() == hits
