"""Estimated entropies against exact ones in float64; float32; awkward input to every method; imports and threads."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo.pipeline.measures import (
    Estimate,
    diffusion_spectral_entropy,
    diffusion_spectral_entropy_estimate,
    diffusion_spectral_mutual_information,
    diffusion_spectral_mutual_information_estimate,
    measure,
)
from dsmi_zoo.pipeline.measures.core import distances
from dsmi_zoo.pipeline.measures.core import exact_or_estimated as estimate_module
from dsmi_zoo.pipeline.measures.core.distances import gaussian_kernel, squared_distances
from dsmi_zoo.pipeline.measures.dse.lanczos import spectral_entropy_by_lanczos
from dsmi_zoo.pipeline.measures.dse.operator import DiffusionOperator
from dsmi_zoo.pipeline.measures.dse.spectrum import diffusion_eigenvalues

pytestmark = pytest.mark.long

METHODS = ("exact", "lanczos")


@pytest.fixture
def _estimated_from_few(monkeypatch):
    """Start estimation at 130 points, where the exact value is cheap."""
    monkeypatch.setattr(estimate_module, "ESTIMATED_FROM", 129)


def embedding(n=600, d=32, scale=1.0, seed=0, rank=None):
    generator = np.random.default_rng(seed)
    if rank is None:
        return scale * generator.normal(size=(n, d))
    return (
        scale * generator.normal(size=(n, rank)) @ generator.normal(size=(rank, d)) / np.sqrt(rank)
    )


def close(found: Estimate, truth: float) -> bool:
    """Return whether the error is within four standard errors plus 1e-4 for float32."""
    return abs(found.value - truth) <= 4 * found.standard_error + 1e-4


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize(
    ("scale", "t"),
    [
        (1e-3, 1),
        (0.02, 1),
        (0.3, 1),
        (1, 1),
        (2, 1),
        (5, 1),
        (0.3, 0.5),
        (2, 0.5),
        (1, 1.5),
        (0.3, 2),
        (2, 7),
    ],
)
def test_the_estimate_is_the_exact_entropy_within_its_error(scale, t, rank):
    Z = embedding(scale=scale, rank=rank)
    found = diffusion_spectral_entropy_estimate(Z, t=t, method="lanczos")
    assert found.method == "lanczos"
    assert found.standard_error <= 0.005 or t < 1
    assert close(found, diffusion_spectral_entropy(Z, t=t, method="exact"))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(513, 700),
    st.integers(1, 60),
    st.sampled_from([0.1, 0.7, 1.5, 3]),
    st.integers(0, 2**31),
)
def test_the_estimate_holds_whatever_the_data(n, d, scale, seed):
    Z = embedding(n, d, scale, seed)
    found = diffusion_spectral_entropy_estimate(Z, method="lanczos", seed=seed)
    assert close(found, diffusion_spectral_entropy(Z, method="exact"))


# At a scale of 0.3 all eigenvalues but the first are below a thousandth.
@pytest.mark.parametrize("scale", [0.3, 1])
def test_the_standard_error_covers_the_truth_about_95_times_in_100(scale):
    Z = scale * np.maximum(embedding(520, 64), 0)
    truth = diffusion_spectral_entropy(Z, method="exact")
    found = [
        diffusion_spectral_entropy_estimate(Z, method="lanczos", seed=seed) for seed in range(60)
    ]
    assert sum(abs(e.value - truth) <= 1.96 * e.standard_error for e in found) >= 53
    errors = np.array([e.value - truth for e in found])
    assert np.mean([e.standard_error for e in found]) < 3 * np.sqrt(np.mean(errors**2))


def test_a_smaller_tolerance_is_met_and_costs_more_probes():
    Z = np.maximum(embedding(1000, 100), 0)
    truth = diffusion_spectral_entropy(Z, method="exact")
    loose, tight = (
        diffusion_spectral_entropy_estimate(Z, method="lanczos", tolerance=t)
        for t in (0.02, 0.0005)
    )
    assert tight.standard_error <= 0.0005 < loose.standard_error <= 0.02
    assert abs(tight.value - truth) < 0.002


@pytest.mark.parametrize("t", [0.5, 1])
def test_a_kernel_that_is_computed_anew_for_every_product_gives_the_same(monkeypatch, t):
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.operator._TILE", 200)
    Z = embedding(700, 20)
    held, anew = (
        spectral_entropy_by_lanczos(Z, 4.0, t, 0.005, 0, held_bytes=size) for size in (2**30, 0)
    )
    assert anew.value == pytest.approx(held.value, abs=1e-4)
    assert anew.standard_error == pytest.approx(held.standard_error, rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_operator_is_the_diffusion_matrix_without_its_largest_eigenvalue(
    monkeypatch, precision, scale
):
    monkeypatch.setattr("dsmi_zoo.pipeline.measures.dse.operator._TILE", 64)
    Z = embedding(150, 10, scale)
    Z[20:30] = Z[3] + 1e-3
    kernel = gaussian_kernel(squared_distances(Z), 3.0)
    roots = np.sqrt(kernel.sum(axis=1))
    matrix = kernel / roots[:, None] / roots
    top = roots / np.linalg.norm(roots)
    matrix -= np.outer(top, top)
    X = np.random.default_rng(1).normal(size=(150, 7))
    for held_bytes in (0, 2**30):
        operator = DiffusionOperator(Z, 3.0, precision, held_bytes)
        basis = operator.normalise(X)
        np.testing.assert_allclose(operator.times(X), matrix @ X, atol=1e-5)
        assert operator.trace == pytest.approx(np.trace(matrix), rel=1e-5)
        assert operator.squared_norm == pytest.approx((matrix**2).sum(), rel=1e-5)
        np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-12)
        assert abs(basis[:, 0] @ roots) == pytest.approx(np.linalg.norm(roots))


def test_the_same_seed_gives_the_same_estimate_and_global_random_states_stay():
    Z = embedding()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (
        diffusion_spectral_entropy_estimate(Z, method="lanczos", seed=seed).value
        for seed in (3, 3, 4)
    )
    assert first == second != other
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.usefixtures("_estimated_from_few")
def test_the_information_from_estimated_entropies_is_the_exact_one_within_its_error():
    labels = np.arange(600) % 4
    Z = embedding() + 0.5 * labels[:, None]
    found = diffusion_spectral_mutual_information_estimate(Z, labels, method="lanczos")
    assert found.method == "lanczos"
    assert 0 < found.standard_error < 0.01
    assert close(found, diffusion_spectral_mutual_information(Z, labels))
    exact = diffusion_spectral_mutual_information_estimate(Z, labels)
    assert exact == Estimate(diffusion_spectral_mutual_information(Z, labels), 0.0, "exact")


def test_plain_functions_return_numbers_and_auto_is_exact_up_to_a_limit(monkeypatch):
    Z = embedding(520, 8)
    assert type(diffusion_spectral_entropy(Z, method="lanczos")) is float
    assert diffusion_spectral_entropy_estimate(Z) == Estimate(
        diffusion_spectral_entropy(Z), 0.0, "exact"
    )
    monkeypatch.setattr(estimate_module, "EXACT_UP_TO", 519)
    assert diffusion_spectral_entropy_estimate(Z).method == "lanczos"
    assert diffusion_spectral_entropy_estimate(Z, method="exact").method == "exact"


def test_measures_of_more_points_than_a_matrix_holds_are_those_of_the_matrix(monkeypatch):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 150)
    Z = embedding(600, 20) + 0.7 * generator.normal(size=(4, 20))[labels]
    whole = measure(Z, labels)
    for module in (estimate_module, distances):
        monkeypatch.setattr(module, "EXACT_UP_TO", 550)
    monkeypatch.setattr(distances, "_BLOCK", 100)
    parts = measure(Z, labels)
    assert parts["dse_z"] == pytest.approx(whole["dse_z"], abs=0.02)
    assert parts["dse_z"] != whole["dse_z"]
    assert parts["median_distance_over_sigma"] == pytest.approx(
        whole["median_distance_over_sigma"], rel=0.01
    )
    assert parts["dsmi_z_y_angular"] == pytest.approx(whole["dsmi_z_y_angular"], rel=0.01)
    assert parts["dse_z_knn"] == pytest.approx(whole["dse_z_knn"], abs=0.02)
    shared = {"dse_z", "dse_z_knn", "median_distance_over_sigma", "dsmi_z_y_angular"}
    assert {k: parts[k] for k in parts if k not in shared} == pytest.approx(
        {k: whole[k] for k in whole if k not in shared}, abs=1e-9
    )


@pytest.mark.parametrize("rank", [None, 5])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("scale", [0.02, 0.3, 1, 5])
def test_float32_costs_less_than_1e_5_bits(scale, relu, rank):
    Z = embedding(400, 100, scale, rank=rank)
    Z = np.maximum(Z, 0) if relu else Z
    kernel = gaussian_kernel(squared_distances(Z), 10.0)
    exact, single = (
        diffusion_eigenvalues(kernel.copy(), precision=p) for p in ("float64", "float32")
    )
    assert not np.array_equal(exact, single)
    for t in (1, 3):
        assert spectrum_entropy(single, t) == pytest.approx(spectrum_entropy(exact, t), abs=1e-5)


def spectrum_entropy(eigenvalues, t):
    weights = np.abs(eigenvalues) ** t
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log2(shares)).sum())


def test_float32_is_not_used_where_it_would_not_do():
    few, many = embedding(60, 4), embedding(1100, 4, 0.02)
    assert diffusion_spectral_entropy(few, precision="float32") == diffusion_spectral_entropy(few)
    single, double = (
        diffusion_spectral_entropy(many, t=0.5, precision=p) for p in ("float32", "float64")
    )
    assert single == double


# Awkward input to every method


@pytest.mark.usefixtures("_estimated_from_few")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 5, 64, 130])
def test_few_points_are_measured(method, n):
    Z = embedding(n, 3)
    eigenvalues = diffusion_eigenvalues(gaussian_kernel(squared_distances(Z), np.sqrt(3)))
    found = diffusion_spectral_entropy_estimate(Z, method=method)
    assert close(found, spectrum_entropy(eigenvalues, 1))


AWKWARD = {
    "constant": np.full((150, 6), 7.0),
    "zeros": np.zeros((150, 6)),
    "some rows of zeros": np.concatenate([np.zeros((60, 6)), embedding(90, 6)]),
    "duplicates": np.repeat(embedding(30, 6), 5, axis=0),
    "nearly duplicates": np.repeat(embedding(30, 6, 100), 5, axis=0) + embedding(150, 6, 1e-6),
    "float16": embedding(150, 6).astype(np.float16),
    "tiny": embedding(150, 6, 1e-20),
    "huge": embedding(150, 6, 1e20),
    "huge duplicates": np.repeat(embedding(30, 6, 1e20), 5, axis=0),
    "an outlier": np.concatenate([embedding(149, 6), np.full((1, 6), 1e8)]),
    "a far offset": embedding(150, 6) + 1e6,
    "one column": embedding(150, 1),
}


@pytest.mark.usefixtures("_estimated_from_few")
@pytest.mark.parametrize("t", [1, 2])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_values_are_measured_as_exactly_in_float64(name, method, t):
    Z = AWKWARD[name]
    wide = Z.astype(np.longdouble)
    squares = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squares / (2 * Z.shape[1])).astype(np.float64)
    roots = np.sqrt(kernel.sum(axis=1))
    truth = spectrum_entropy(
        np.maximum(np.linalg.eigvalsh(kernel / roots[:, None] / roots), 1e-17), t
    )
    assert close(diffusion_spectral_entropy_estimate(Z, t=t, method=method), truth)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_of_one_member_adds_nothing(method):
    Z, labels = embedding(60, 4), np.arange(60) % 3
    labels[0] = 9
    value = diffusion_spectral_mutual_information(Z, labels, method=method)
    assert np.isfinite(value)
    assert value == pytest.approx(diffusion_spectral_mutual_information(Z, labels), abs=1e-9)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize(
    "information",
    [diffusion_spectral_mutual_information, diffusion_spectral_mutual_information_estimate],
)
def test_information_about_a_single_class_is_refused_by_every_method(information, method):
    with pytest.raises(ValueError, match="one class only"):
        information(embedding(6, 2), [1] * 6, method=method)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Z": np.zeros((0, 3))}, "empty"),
        ({"Z": np.zeros(5)}, "where [n, d] is needed"),
        ({"Z": np.array([[np.nan], [0]])}, "NaN or infinite"),
        ({"sigma": 0}, "sigma is 0"),
        ({"t": -1}, "t is -1"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"precision": "float16"}, "precision is 'float16'; "),
        ({"seed": -1}, "seed is -1"),
        ({"labels": [1, 2]}, "labels has 2 entries"),
    ],
)
def test_every_method_refuses_the_same(method, change, words):
    arguments = {"Z": embedding(6, 2), "labels": [0, 0, 0, 1, 1, 1]} | change
    functions = [
        diffusion_spectral_mutual_information,
        diffusion_spectral_mutual_information_estimate,
        measure,
    ]
    calls = [(function, arguments) for function in functions]
    if "labels" not in change:
        alone = {name: value for name, value in arguments.items() if name != "labels"}
        calls += [(diffusion_spectral_entropy, alone), (diffusion_spectral_entropy_estimate, alone)]
    for function, given_ in calls:
        settings_ = {name: value for name, value in given_.items() if name not in ("Z", "labels")}
        with pytest.raises(ValueError, match=re.escape(words)):
            function(
                *(given_[name] for name in ("Z", "labels") if name in given_),
                method=method,
                **settings_,
            )


def test_an_unknown_method_is_refused():
    with pytest.raises(
        ValueError, match="method is 'chebyshev'; input should be 'auto', 'exact' or 'lanczos'"
    ):
        diffusion_spectral_entropy(embedding(6, 2), method="chebyshev")


# Imports and threads


def test_float64_loads_no_torch():
    code = (
        "import sys, numpy as np; from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy as entropy;"
        "entropy(np.eye(600)); entropy(np.eye(600), method='lanczos'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


WITH_TWO_THREADS = """
import numpy as np
import dsmi_zoo
generator = np.random.default_rng(0)
Z = generator.normal(size=(1500, 256)).astype("f4")
dsmi_zoo.measure(Z, generator.integers(0, 10, 1500))
"""


THREADS_OF_EACH_BLAS = """
from dsmi_zoo.pipeline.measures.core.threads import one_blas_thread
with one_blas_thread():
    import sklearn.neighbors
    from threadpoolctl import threadpool_info
    print({blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"})
"""


@pytest.fixture
def _two_threads(monkeypatch):
    for library in ("OMP", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")


@pytest.mark.usefixtures("_two_threads")
def test_a_blas_that_is_loaded_later_has_one_thread_too():
    code = [sys.executable, "-c", THREADS_OF_EACH_BLAS]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert done.stdout == "{1}\n"


@pytest.mark.slow
@pytest.mark.usefixtures("_two_threads")
def test_no_openmp_loop_of_scikit_learn_enters_a_blas_with_several_threads():
    done = subprocess.run([sys.executable, "-c", WITH_TWO_THREADS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
