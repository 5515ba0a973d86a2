"""Standard errors in closed form, against random halves and against the spread over fresh draws."""

import numpy as np
import pytest

from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.registry import COMPUTATIONS
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.scores.logme import _densities_without, _regression

CLASSES, PER_CLASS, DRAWS = 4, 24, 20


def drawn(seed: int, width: int, images: np.ndarray | None = None) -> MeasureContext:
    generator = np.random.default_rng([7, seed])
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    centres = np.random.default_rng(0).normal(size=(CLASSES, width)) / np.sqrt(width)
    Z = 3 * centres[labels] + generator.normal(size=(len(labels), width))
    return MeasureContext(Z, labels, images, None, MeasureSettings())


@pytest.mark.parametrize("width", [16, 200])
def test_the_density_of_an_image_is_what_its_evidence_adds(width: int) -> None:
    context = drawn(0, width)
    regression, Z = _regression(context), context.points.values
    Z = Z / 2.0 ** int(np.frexp(np.abs(Z).max())[1])  # scaled as for the decomposition
    n = context.n
    of_classes = []
    for of_class in range(CLASSES):
        beta = n / regression.misfits[of_class]
        covariance = (np.eye(n) + Z @ Z.T / regression.ratios[of_class]) / beta
        y = (context.classes == of_class).astype(float)

        def log_density(rows: np.ndarray, y: np.ndarray = y, C: np.ndarray = covariance) -> float:
            part = C[np.ix_(rows, rows)]
            _, volume = np.linalg.slogdet(part)
            fit = y[rows] @ np.linalg.solve(part, y[rows])
            return -(len(rows) * np.log(2 * np.pi) + volume + fit) / 2

        everything = np.arange(n)
        assert log_density(everything) / n == pytest.approx(regression.evidence[of_class])
        without = np.delete(everything, 3)
        of_classes.append(log_density(everything) - log_density(without))
    assert _densities_without(context)[3] == pytest.approx(np.mean(of_classes), rel=1e-6)


@pytest.mark.parametrize("width", [16, 200])
def test_the_closed_form_of_logme_equals_halves_within_their_noise(width: int) -> None:
    computation, closed = COMPUTATIONS["logme"], COMPUTATIONS["logme_se"]
    values, errors, of_halves = [], [], []
    for seed in range(DRAWS):
        context = drawn(seed, width)
        values.append(computation.result(context))
        errors.append(closed.result(context))
        of_halves.append(computation.error_over_halves(context))
    spread = np.std(values, ddof=1)
    # The spread of 20 draws is uncertain by 16%, that of eight halves by a quarter.
    assert 0.6 < np.median(errors) / spread < 1.6
    assert 0.6 < np.median(errors) / np.median(of_halves) < 1.6
    assert np.std(errors) < np.std(of_halves)


def test_images_of_several_rows_are_left_out_by_halves() -> None:
    context = drawn(0, 16, np.arange(CLASSES * PER_CLASS) // 2)
    error = COMPUTATIONS["logme_se"].result(context)
    assert error == COMPUTATIONS["logme"].error_over_halves(context)
