"""Estimated entropies: honest for every seed, and no more products than the tolerance takes."""

import numpy as np
import pytest

from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy
from dsmi_zoo.pipeline.measures.dse.lanczos import spectral_entropy_by_lanczos
from dsmi_zoo.pipeline.measures.dse.operator import DiffusionOperator

N, D = 560, 48
SIGMA = float(np.sqrt(D))


def points(kind: str) -> np.ndarray:
    generator = np.random.default_rng(5)
    Z = generator.normal(size=(N, D)) + generator.normal(size=(10, D))[np.arange(N) % 10] / 2
    if kind == "rectified":
        return np.maximum(Z, 0)
    if kind == "decaying":
        return Z * np.arange(1, D + 1) ** -0.5 * 3
    return Z


@pytest.mark.parametrize("kind", ["rectified", "decaying"])
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
    Z = points("wide")
    held = tiles * 4 * 256**2
    found = spectral_entropy_by_lanczos(Z, SIGMA, 1, 0.005, 3, held_bytes=held)
    assert found == spectral_entropy_by_lanczos(Z, SIGMA, 1, 0.005, 3, held_bytes=0)
