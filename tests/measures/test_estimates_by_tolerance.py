"""Estimated entropies: right standard errors for every seed, and no more products than the tolerance needs."""

import numpy as np
import pytest

from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy
from dsmi_zoo.pipeline.measures.dse.lanczos import (
    entropy_by_lanczos,
    random_sketch,
    spectral_entropy_by_lanczos,
)
from dsmi_zoo.pipeline.measures.dse.operator import DiffusionOperator

D = 48
SIGMA = float(np.sqrt(D))
KINDS = ("rectified", "decaying", "flat")


def points(kind: str, n: int = 560) -> np.ndarray:
    """Return points whose spectrum has a step, decays like a power, or hardly falls at all."""
    generator = np.random.default_rng(5)
    Z = generator.normal(size=(n, D)) + generator.normal(size=(10, D))[np.arange(n) % 10] / 2
    if kind == "rectified":
        return np.maximum(Z, 0)
    if kind == "decaying":
        return Z * np.arange(1, D + 1) ** -0.5 * 3
    return 2 * Z


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_seed_of_twenty_states_an_error_that_covers_the_truth(
    kind: str, precision: str
) -> None:
    Z = points(kind)
    truth = diffusion_spectral_entropy(Z, method="exact")
    for seed in range(20):
        found = spectral_entropy_by_lanczos(Z, SIGMA, 1, 0.005, seed, precision=precision)
        assert found.standard_error <= 0.005
        assert abs(found.value - truth) <= 1.96 * found.standard_error


@pytest.mark.parametrize("kind", KINDS)
def test_few_passes_over_the_kernel_are_enough(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, times = [0], DiffusionOperator._kernel_times

    def counted(self: DiffusionOperator, *arguments: object) -> object:
        passes[0] += 1
        return times(self, *arguments)

    monkeypatch.setattr(DiffusionOperator, "_kernel_times", counted)
    found = spectral_entropy_by_lanczos(points(kind, 1200), SIGMA, 1, 0.005, 0)
    assert found.standard_error <= 0.005
    assert passes[0] <= 9


@pytest.mark.parametrize("t", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_ritz_vectors_that_miss_much_of_the_top_are_allowed_for(kind: str, t: float) -> None:
    Z = points(kind)
    truth = diffusion_spectral_entropy(Z, t=t, method="exact")
    for seed in range(4):
        generator = np.random.default_rng(seed)
        operator, sketch = DiffusionOperator(Z, SIGMA, "float64"), random_sketch(len(Z), generator)
        found = entropy_by_lanczos(operator, t, 0.02, generator, sketch)
        assert found is not None
        assert abs(found.value - truth) <= 1.96 * found.standard_error <= 1.96 * 0.02


def test_a_looser_tolerance_takes_fewer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, times = points("decaying"), DiffusionOperator.times
    spent = [0]

    def counted(self: DiffusionOperator, X: np.ndarray) -> np.ndarray:
        spent[0] += X.shape[1]
        product: np.ndarray = times(self, X)
        return product

    monkeypatch.setattr(DiffusionOperator, "times", counted)
    products = []
    for tolerance in (0.02, 0.005, 0.002):
        spent[0] = 0
        error = spectral_entropy_by_lanczos(Z, SIGMA, 1, tolerance, 0).standard_error
        assert error <= tolerance
        products.append(spent[0])
    assert products[0] < products[1] < products[2]


@pytest.mark.parametrize("tiles", [0, 1, 100])
def test_held_tiles_change_no_value(monkeypatch: pytest.MonkeyPatch, tiles: int) -> None:
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.operator._TILE", 256)
    Z = points("flat")
    held = tiles * 4 * 256**2
    found = spectral_entropy_by_lanczos(Z, SIGMA, 1, 0.005, 3, held_bytes=held)
    assert found == spectral_entropy_by_lanczos(Z, SIGMA, 1, 0.005, 3, held_bytes=0)
