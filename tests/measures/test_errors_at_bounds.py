"""Standard errors of scores at a bound: above 0, or undefined with a reason."""

import numpy as np
import pytest

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.measures.catalog import parse_reasons
from dsmi_zoo.pipeline.measures.core.hits import Z95, error_of_share, wilson_interval
from dsmi_zoo.pipeline.measures.core.registry import SAME_IN_HALVES

CLASSES, WIDTH = 10, 64
CENTRES = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))


def drawn(seed: int, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(CLASSES), 30)
    noise = np.random.default_rng([2, seed]).normal(size=(len(labels), WIDTH))
    return CENTRES[labels] + spread * noise, labels


def both(score: str, Z: np.ndarray, labels: np.ndarray) -> dict:
    return measure(Z, labels, scores=(score, f"{score}_se"))


def test_sfda_of_1_may_be_less_on_other_images() -> None:
    Z, labels = drawn(0, spread=0.1)
    values = both("sfda", Z, labels)
    assert values["sfda"] == pytest.approx(1, abs=1e-6)
    assert values["sfda_se"] == pytest.approx(Z95 / (2 * 300), rel=0.02)


def test_the_error_of_a_share_is_wilsons_for_hits_and_the_textbooks_for_many() -> None:
    hits = np.arange(40) < 31
    low, high = wilson_interval(31, 40)
    assert 100 * error_of_share(hits.astype(float)) == pytest.approx((high - low) / (2 * Z95))
    shares = np.random.default_rng(0).uniform(size=100_000)
    assert error_of_share(shares) == pytest.approx(shares.std() / np.sqrt(len(shares)), rel=1e-3)


def test_a_score_that_all_halves_share_has_no_error_but_a_reason() -> None:
    values = both("cse_z", *drawn(0))
    assert values["cse_z"] == pytest.approx(np.log2(300))
    assert "cse_z_se" not in values
    assert parse_reasons(values["undefined_scores"]) == {"cse_z_se": SAME_IN_HALVES}


def test_a_saturated_entropy_has_no_error_but_a_reason() -> None:
    Z, labels = drawn(0)
    assert both("dse_z", Z, labels)["dse_z_se"] > 1e-3
    for scale in (1e-3, 10):
        values = both("dse_z", scale * Z, labels)
        reasons = parse_reasons(values["undefined_scores"])
        assert reasons["dse_z_se"].startswith("the entropy is within 0.1 bit of a bound")


def test_the_error_of_scale_free_information_is_its_spread_over_fresh_images() -> None:
    """Random halves gave 0.6 of the spread, and a third of it for 2,000 points."""
    found = [both("dsmi_z_y_scale_free", *drawn(seed)) for seed in range(24)]
    values, errors = np.array([list(one.values()) for one in found]).T
    assert 0.8 < np.median(errors) / np.std(values, ddof=1) < 1.7
