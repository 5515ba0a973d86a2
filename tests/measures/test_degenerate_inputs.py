"""Scores of degenerate embeddings: each has a value or a reason for having no value."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.catalog import (
    BY_NAME,
    ROW_MEASURES,
    UNDEFINED,
    format_reasons,
    parse_reasons,
)

GENTLE = settings(max_examples=60, deadline=None)
FAILED = "its computation failed"  # the reason for an unforeseen error of ours


def most_rows_the_same(Z, share):
    """Return a copy in which this share of the rows is the first row."""
    same = Z.copy()
    same[: round(share * len(Z))] = Z[0]
    return same


def mirrored(Z):
    """Return pairs of opposite rows: the means of classes that hold whole pairs coincide."""
    rows = np.repeat(Z, 2, axis=0)[: len(Z)]
    sign = 1 - 2 * (np.arange(len(Z)) % 2)
    return sign[:, None] * rows


EMBEDDINGS = {
    "as drawn": lambda Z, y: Z,
    "all rows the same": lambda Z, y: most_rows_the_same(Z, 1),
    "most rows the same": lambda Z, y: most_rows_the_same(Z, 0.9),
    "71% of the rows the same": lambda Z, y: most_rows_the_same(Z, 0.72),
    "all but one row the same": lambda Z, y: most_rows_the_same(Z, 1 - 1 / len(Z)),
    "zeros": lambda Z, y: 0 * Z,
    "mostly zeros": lambda Z, y: np.maximum(Z - 1.5, 0),
    "one column": lambda Z, y: np.exp(3 * Z[:, :1]),
    "whole numbers": lambda Z, y: np.round(Z),
    "constant columns": lambda Z, y: np.where(np.arange(Z.shape[1]) > 0, 0.1, Z),
    "duplicated columns": lambda Z, y: np.repeat(Z[:, :1], 5, axis=1),
    "more columns than rows": lambda Z, y: np.tile(Z, (1, 50)) + np.arange(50 * Z.shape[1]),
    "each class a point": lambda Z, y: np.eye(y.max() + 1)[y],
    "classes on a line": lambda Z, y: (y + 1)[:, None] * np.ones(3),
    "classes along a line": lambda Z, y: (y[:, None] + Z[:, :1]) * np.ones(3),
    "coinciding class means": lambda Z, y: mirrored(Z),
    "equal pairs of rows": lambda Z, y: np.repeat(Z, 2, axis=0)[: len(Z)],
    "an outlier": lambda Z, y: np.where(np.arange(len(Z)) == 0, 1e12, 1)[:, None] * Z,
}
LABELS = {
    "balanced": lambda n: np.arange(n) % 3,
    "pairs": lambda n: np.arange(n) // 2,
    "one class": lambda n: np.zeros(n, dtype=int),
    "all different": lambda n: np.arange(n),
    "a class of one": lambda n: np.where(np.arange(n) == 0, 2, np.arange(n) % 2),
    "a class of two": lambda n: np.where(np.arange(n) < 2, 2, np.arange(n) % 2),
    "a large and a small class": lambda n: (np.arange(n) >= 0.93 * n).astype(int),
}
SCALES = [1e-320, 1e-310, 1e-200, 1e-110, 1e-20, 1.0, 1e20, 1e85]


def degenerate(kind, classes, n, scale=1.0, repeats=1, seed=0):
    """Return an embedding of n images, their classes, and the image of each row."""
    images = np.repeat(np.arange(n), repeats)
    y = LABELS[classes](n)[images]
    Z = np.random.default_rng(seed).normal(size=(len(y), 4))
    return scale * EMBEDDINGS[kind](Z, y), y, images


def measured(Z, y, images, clusters):
    """Return the values of all scores, and the reasons of those without a value."""
    values = measure(Z, y, scores=BY_NAME, image_ids=images, input_clusters=clusters)
    return values, parse_reasons(values.pop(UNDEFINED, ""))


def lacking_a_reason(values, reasons):
    """Return the scores that have neither a value nor a reason; a standard error may share its score's reason."""
    known = values.keys() | reasons.keys()
    return [name for name in BY_NAME if name not in known and name[:-3] not in reasons]


@GENTLE
@given(
    st.sampled_from(sorted(EMBEDDINGS)),
    st.sampled_from(sorted(LABELS)),
    st.integers(1, 40),
    st.sampled_from(SCALES),
    st.sampled_from([1, 1, 3]),
    st.integers(0, 2**16),
)
@example("71% of the rows the same", "balanced", 40, 1.0, 1, 0)
@example("one column", "balanced", 40, 1.0, 1, 0)
@example("all rows the same", "one class", 40, 1.0, 1, 0)
@example("as drawn", "a class of one", 40, 1.0, 3, 0)
def test_every_score_has_a_value_or_a_reason(kind, classes, n, scale, repeats, seed):
    Z, y, images = degenerate(kind, classes, n, scale, repeats, seed)
    values, reasons = measured(Z, y, images, np.arange(len(y)) % 2)
    assert lacking_a_reason(values, reasons) == []
    assert not values.keys() & reasons.keys()
    assert all(isinstance(value, str) or np.isfinite(value) for value in values.values())
    assert all(reasons.values())
    assert FAILED not in "".join(reasons.values())


@GENTLE
@given(st.sampled_from(sorted(EMBEDDINGS)), st.integers(1, 30), st.integers(0, 2**16))
def test_without_labels_every_score_has_a_value_or_a_reason(kind, n, seed):
    Z, _, _ = degenerate(kind, "balanced", n, seed=seed)
    values = measure(Z)
    reasons = parse_reasons(values.pop(UNDEFINED, ""))
    unlabelled = {one.name for one in ROW_MEASURES if one.needs == "embedding"}
    known = values.keys() | reasons.keys()
    assert {name for name in unlabelled - known if name[:-3] not in reasons} == set()
    assert known <= unlabelled


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(EMBEDDINGS)), st.sampled_from(sorted(LABELS)), st.integers(0, 99))
def test_a_score_alone_has_the_value_or_the_reason_it_has_among_all(kind, classes, seed):
    Z, y, images = degenerate(kind, classes, 30, seed=seed)
    values, reasons = measured(Z, y, images, y)
    for name in ("dsmi_z_y_angular", "probe_accuracy", "rankme", "dse_z_se", "gbc"):
        alone = measure(Z, y, scores=name, image_ids=images)
        if name in values:
            assert alone == {name: values[name]}
        else:
            assert parse_reasons(alone[UNDEFINED])[name] == reasons[name]


@pytest.mark.parametrize("same", [86, 90, 119])
def test_most_rows_the_same_leave_all_scores_but_those_of_directions(same):
    generator = np.random.default_rng(0)
    Z, y = generator.normal(size=(120, 64)), np.repeat([0, 1, 2], 40)
    Z[:same] = Z[0]
    values = measure(Z, y)
    reasons = parse_reasons(values[UNDEFINED])
    assert reasons["dsmi_z_y_angular"] == "the median distance of the directions is 0"
    assert {"dse_z", "dsmi_z_y", "logme", "h_score", "probe_accuracy", "rankme"} <= values.keys()


@pytest.mark.parametrize("power", [-320, -200, -160, -10, 0, 10, 90])
def test_the_scale_of_tiny_and_huge_embeddings_is_found(power):
    Z = np.random.default_rng(0).normal(size=(20, 3))
    rms = measure(Z * 10.0**power, scores="embedding_rms")["embedding_rms"]
    assert rms == pytest.approx(np.sqrt(np.mean(Z * Z)) * 10.0**power, rel=1e-3)


def test_classes_too_small_for_standard_errors_are_counted_once():
    Z, y, _ = degenerate("as drawn", "pairs", 40)
    values = measure(Z, y)
    text = values[UNDEFINED]
    reasons = parse_reasons(text)
    few = "20 of 20 classes have fewer than 4 images, too few for a standard error"
    assert text.count(few) == 1
    assert {name for name, reason in reasons.items() if reason == few} >= {
        "dsmi_z_y_se",
        "dse_z_se",
    }


def test_reasons_are_read_back_as_they_were_written():
    reasons = {"a": "too few: 3", "b_se": "none", "c": "too few: 3"}
    assert format_reasons(reasons) == "a, c: too few: 3; b_se: none"
    assert parse_reasons(format_reasons(reasons)) == reasons
    assert parse_reasons("a: one; b: one") == {"a": "one", "b": "one"}  # of earlier versions
