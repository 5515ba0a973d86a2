"""The measures on a device: NumPy's values, and no transfer to the host as large as all pairs of points.

array_api_strict stands for the device: an array on its second device cannot be mixed with host arrays or read by NumPy
without an explicit transfer. Torch tensors on the CPU take the same code path as those on a GPU.
"""

import array_api_compat
import array_api_strict
import numpy as np
import pytest
import torch

from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy, measure
from dsmi_zoo.pipeline.measures.catalog import ROW_MEASURES
from dsmi_zoo.pipeline.measures.core import conversion
from dsmi_zoo.pipeline.measures.core import distances as distances_module
from dsmi_zoo.pipeline.measures.core import exact_or_estimated as estimate_module
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.distances import Points, as_points
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.dse import spectrum, subsets
from dsmi_zoo.pipeline.measures.run import measured, values_of

pytestmark = pytest.mark.long

DEVICE = array_api_strict.Device("device1")
N, D, CLASSES = 100, 40, 5


def example(n=N, repeats=1):
    generator = np.random.default_rng(3)
    labels = np.repeat(generator.integers(0, CLASSES, n // repeats), repeats)
    Z = generator.normal(size=(n, D)) + 0.7 * generator.normal(size=(CLASSES, D))[labels] + 0.5
    return Z, labels, np.repeat(np.arange(n // repeats), repeats), generator.integers(0, CLASSES, n)


def on_strict_device(Z):
    return array_api_strict.asarray(Z, device=DEVICE)


def values(Z, example, **settings):
    _, labels, images, clusters = example
    return values_of(
        ROW_MEASURES,
        MeasureContext(Points(Z), labels, images, clusters, MeasureSettings(**settings)),
    )


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (
            value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-9)
        ), name


@pytest.fixture
def transfers(monkeypatch):
    """Record the size of each transfer to the host."""
    sizes = []

    def counted(array, device, to_device=array_api_compat.to_device):
        sizes.append(int(np.prod(array.shape)))
        return to_device(array, device)

    monkeypatch.setattr(array_api_compat, "to_device", counted)
    return sizes


@pytest.mark.parametrize("place", [on_strict_device, torch.from_numpy])
@pytest.mark.parametrize("repeats", [1, 2])
def test_every_measure_has_the_same_value_on_a_device(place, repeats):
    data = example(180, repeats)  # enough images for every measure
    expected = values(data[0].copy(), data)
    undefined = {"cse_z_se", "csmi_z_y_se", "dsmi_z_y_knn_se"}
    undefined |= {"lidar", "lidar_se"} if repeats == 1 else set()
    assert {one.name for one in ROW_MEASURES} - expected.keys() == undefined
    assert_same(values(place(data[0]), data), expected)


@pytest.mark.parametrize("place", [on_strict_device, torch.from_numpy])
def test_so_it_has_where_points_are_too_many_for_all_pairs(monkeypatch, place):
    for module in (estimate_module, distances_module):
        monkeypatch.setattr(module, "EXACT_UP_TO", 60)
    monkeypatch.setattr(distances_module, "_BLOCK", 40)
    data = example()
    assert_same(values(place(data[0]), data), values(data[0].copy(), data))


@pytest.mark.parametrize("place", [on_strict_device, torch.from_numpy])
@pytest.mark.parametrize("held", [True, False])
def test_so_it_has_where_eigenvalues_are_estimated(monkeypatch, place, held):
    monkeypatch.setattr(estimate_module, "ESTIMATED_FROM", 60)
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.operator._TILE", 40)
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.lanczos.HELD_BYTES", 2**31 if held else 0)
    data = example()
    settings = {"method": "lanczos", "tolerance": 0.05}
    found, expected = (values(Z, data, **settings) for Z in (place(data[0]), data[0].copy()))
    assert found["dse_z"] == pytest.approx(expected["dse_z"], abs=1e-4)  # float32 products
    for one in (found, expected):
        del one["dse_z"], one["saturated"]
    assert_same(found, expected)


def test_float32_eigenvalues_are_those_of_the_host(monkeypatch):
    monkeypatch.setattr(estimate_module, "FLOAT32_FROM", 60)
    data = example()
    found, expected = (
        values(Z, data, precision="float32") for Z in (on_strict_device(data[0]), data[0].copy())
    )
    assert found["dse_z"] == pytest.approx(expected["dse_z"], abs=1e-5)


@pytest.mark.parametrize("repeats", [1, 2])
def test_nothing_as_large_as_all_pairs_comes_back(monkeypatch, transfers, repeats):
    # The host solves small matrices, in batches.
    for module in (spectrum, subsets):
        monkeypatch.setattr(module, "SMALL", 20)
    monkeypatch.setattr(subsets, "BLOCK_NUMBERS", 4_000)
    data = example(repeats=repeats)
    values(on_strict_device(data[0]), data)
    assert transfers
    assert max(transfers) < N * N / 2


def test_a_tensor_on_a_gpu_is_measured_there_and_any_other_by_numpy(monkeypatch):
    tensor = torch.from_numpy(example()[0]).float().requires_grad_()
    assert isinstance(as_points(tensor).values, np.ndarray)
    monkeypatch.setattr(conversion, "DEVICES", ("cpu",))
    there = as_points(tensor).values
    assert isinstance(there, torch.Tensor)
    assert there.dtype == torch.float64
    assert not there.requires_grad
    assert measure(tensor, example()[1], scores="dse_z") == {
        "dse_z": pytest.approx(diffusion_spectral_entropy(tensor))
    }


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.ones(3), r"Z has shape \[3\] where"),
        (torch.ones(3, 0), "Z is empty"),
        (torch.ones(3, 2, dtype=torch.complex64), "complex64, not real numbers"),
        (torch.ones(3, 2).to_sparse(), "sparse tensor"),
        (
            torch.tensor([[1.0], [float("nan")]]),
            "holds 1 values that are NaN or infinite, the first in row 1",
        ),
        (torch.full((3, 2), 1e120, dtype=torch.float64), "too large to square"),
    ],
)
def test_a_wrong_tensor_on_a_gpu_is_refused_as_any_other_input(monkeypatch, tensor, problem):
    monkeypatch.setattr(conversion, "DEVICES", ("cpu",))
    with pytest.raises(ValueError, match=problem):
        measure(tensor)


# Rows of a run


def of_a_row(Z, data):
    _, labels, images, clusters = data
    return measured(Z, labels, images, clusters, MeasureSettings())


@pytest.fixture
def _the_cpu_as_a_gpu(monkeypatch):
    """Treat tensors on the CPU as if they were on a GPU."""
    monkeypatch.setattr(conversion, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)


@pytest.mark.usefixtures("_the_cpu_as_a_gpu")
def test_a_row_is_measured_on_the_gpu_where_there_is_one(monkeypatch):
    data = example()
    Z = data[0].astype(np.float32)
    moved = []
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: moved.append(tensor) or tensor)
    on_gpu = of_a_row(Z, data)
    assert len(moved) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_same(on_gpu, of_a_row(Z, data))


@pytest.mark.usefixtures("_the_cpu_as_a_gpu")
def test_a_gpu_without_memory_leaves_the_row_to_the_cpu(monkeypatch):
    data = example()
    Z = data[0].astype(np.float32)
    expected = of_a_row(Z, data)

    refused = []

    def full(matrix):
        refused.append(matrix.shape)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(array_api_compat.torch.linalg, "eigh", full)
    assert_same(of_a_row(Z, data), expected)
    assert refused
