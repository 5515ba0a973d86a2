"""`measure`, users' own measures, and all refusals."""

import random
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dsmi_zoo.pipeline.measures import (
    cluster_inputs,
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    measure,
    shannon_entropy,
    shannon_mutual_information,
)
from dsmi_zoo.pipeline.measures.catalog import BY_NAME, ROW_MEASURES, UNDEFINED, parse_reasons
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.registry import COMPUTATIONS
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.core.threads import computed_once
from dsmi_zoo.pipeline.measures.own import load_measure
from dsmi_zoo.pipeline.measures.run import values_of

WITH_REPEATS = {"lidar", "lidar_se"}
NAMES = {one.name for one in ROW_MEASURES if one.unit != "text"} - WITH_REPEATS | {UNDEFINED}
WITH_INPUTS = {"dsmi_z_x", "csmi_z_x", "dsmi_z_x_se", "csmi_z_x_se"}


def example(n=200, d=40, classes=4):
    generator = np.random.default_rng(7)
    labels = generator.permutation(np.arange(n) % classes)
    return (
        generator.normal(size=(n, d)) * np.linspace(1, 0.05, d) + 0.4 * labels[:, None],
        labels,
        np.arange(n) * 3 // n,
    )


def test_all_measures_are_those_of_the_registry():
    Z, labels, clusters = example()
    assert set(measure(Z, labels, input_clusters=clusters)) == NAMES


def test_the_registry_is_imported_without_the_libraries_that_take_a_second():
    slow = "'sklearn.cluster', 'sklearn.mixture', 'scipy.cluster', 'torch'"
    program = f"import sys, dsmi_zoo.pipeline.measures.run; print([m for m in ({slow}) if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_measure_of_the_catalog_has_a_function_and_the_reverse():
    assert COMPUTATIONS.keys() == BY_NAME.keys()


def test_a_score_without_a_value_is_left_out_and_the_reason_is_told_once():
    Z, labels, _ = example(d=5)
    values = measure(Z, labels)
    assert not {"alpha_req", "alpha_req_se"} & set(values)
    reason = "alpha_req: the covariance has 5 eigenvalues above rounding, fewer than 30"
    assert values["undefined_scores"].startswith(f"{reason}; lidar: ")
    assert values["undefined_scores"].count("alpha_req") == 1
    assert measure(Z, labels, scores=["alpha_req", "dse_z"]) == {
        "dse_z": values["dse_z"],
        "undefined_scores": reason,
    }


def test_without_input_clusters_their_measures_are_left_out_and_the_rest_stays():
    Z, labels, clusters = example()
    values = measure(Z, labels)
    assert set(values) == NAMES - WITH_INPUTS
    both = measure(Z, labels, input_clusters=clusters)
    assert values == {name: value for name, value in both.items() if name not in WITH_INPUTS}


@pytest.mark.parametrize(
    "settings", [{}, {"sigma": 0.7, "t": 2, "repetitions": 3, "seed": 5, "bins": 3}]
)
def test_every_value_is_that_of_the_single_function(settings):
    Z, labels, clusters = example()
    values = measure(Z, labels, input_clusters=clusters, **settings)
    spectral = {name: settings[name] for name in settings if name in ("sigma", "t")}
    binned = {name: settings[name] for name in settings if name == "bins"}
    subsets = {name: settings[name] for name in settings if name in ("repetitions", "seed")}
    expected = {
        "dse_z": diffusion_spectral_entropy(Z, **spectral),
        "dsmi_z_y": diffusion_spectral_mutual_information(Z, labels, **spectral, **subsets),
        "dsmi_z_x": diffusion_spectral_mutual_information(Z, clusters, **spectral, **subsets),
        "cse_z": shannon_entropy(Z, **binned),
        "csmi_z_y": shannon_mutual_information(Z, labels, **binned, **subsets),
        "csmi_z_x": shannon_mutual_information(Z, clusters, **binned, **subsets),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_the_null_is_the_mean_over_permuted_labels():
    Z, labels, _ = example()
    generator = np.random.default_rng(3)
    permuted = [
        diffusion_spectral_mutual_information(Z, generator.permutation(labels), seed=3)
        for _ in range(4)
    ]
    values = measure(Z, labels, seed=3, null_permutations=4)
    assert values["dsmi_z_y_null"] == pytest.approx(np.mean(permuted), abs=1e-12)


def test_the_null_moves_repeats_together_whatever_the_images_are_called():
    Z, _, _ = example(60)
    images = np.repeat(np.arange(20), 3)
    labels = images % 4
    generator = np.random.default_rng(0)
    by_hand = diffusion_spectral_mutual_information(
        Z, generator.permutation(np.arange(20) % 4)[images]
    )
    for ids in (images, 100 - images, np.array([f"{i}.png" for i in images]), images.tolist()):
        values = measure(Z, labels, image_ids=ids, null_permutations=1)
        assert values["dsmi_z_y_null"] == by_hand


def test_diagnostics_describe_the_embedding_as_given():
    Z, labels, _ = example()
    Z = Z + 10
    values = measure(Z.astype(np.float32), labels, sigma=2.0)
    distances = [np.linalg.norm(Z[i] - Z[j]) for i in range(len(Z)) for j in range(i)]
    assert values["embedding_rms"] == pytest.approx(np.sqrt(np.mean(Z**2)), rel=1e-6)
    assert values["median_distance_over_sigma"] == pytest.approx(np.median(distances) / 2, rel=1e-5)
    assert type(values["saturated"]) is bool
    numbers = values.keys() - {"saturated", UNDEFINED}
    assert all(type(values[name]) is float for name in numbers)


def test_inputs_and_global_random_states_stay_untouched():
    Z, labels, clusters = example()
    before = Z.copy(), labels.copy(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = measure(Z, labels, input_clusters=clusters)
    cluster_inputs(Z, 3)
    random.seed(1)
    assert measure(Z, labels, input_clusters=clusters) == first
    random.setstate(before[2])
    measure(Z, labels, input_clusters=clusters)
    assert random.getstate() == before[2]
    assert (np.random.get_state()[1] == before[3]).all()  # noqa: NPY002
    np.testing.assert_array_equal(Z, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_importing_the_measures_imports_no_heavy_library():
    heavy = "{'scipy', 'sklearn', 'torch', 'pandas', 'dask'}"
    code = f"import sys, dsmi_zoo.pipeline.measures; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Refusals

Z, LABELS = np.random.default_rng(0).normal(size=(6, 2)), np.array([0, 0, 0, 1, 1, 1])
NAN = np.array([[0.0, 1], [np.nan, 2], [np.inf, -np.inf]])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros(5), "shape [5] where [n, d] is needed"),
        (np.zeros((2, 3, 4)), "reshape"),
        (3.0, "shape []"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((3, 0)), "empty"),
        (NAN, "3 values that are NaN or infinite, the first in row 1"),
        ([[1, 2], [3]], "cannot be read as an array"),
        ([["a", "b"]], "dtype <U1"),
        (np.array([[1, None]]), "dtype object"),
        (np.array([[1j]]), "dtype complex128"),
        (np.array([[1e200, 0]]), "up to 1e+200, too large"),
    ],
)
@pytest.mark.parametrize(
    "measure", [diffusion_spectral_entropy, shannon_entropy, lambda Z: measure(Z, LABELS)]
)
def test_a_bad_embedding_is_refused_in_one_line(measure, bad, words):
    refused(words, measure, bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([0, 1], "labels has 2 entries but the embedding has 6 rows"),
        (np.eye(6), "argmax of one-hot"),
        (1, "shape []"),
        ([[0], [1, 2]], "cannot be read as an array"),
        (
            [0.5, 1.5, 2, 3, 4, 5],
            "look continuous, they are not whole numbers; cluster them with cluster_inputs",
        ),
        (np.array([0.5, 1, 2, 3, 4, 5], dtype=object), "look continuous"),
        ([0, 1, np.nan, 1, 0, np.nan], "2 missing entries, the first in row 2"),
        (
            np.array(["a", None, "b", "a", "b", "a"], dtype=object),
            "1 missing entries, the first in row 1",
        ),
        (np.array([{}, {}, {}, {}, {}, {}], dtype=object), "numbers, strings or the like"),
    ],
)
@pytest.mark.parametrize(
    "measure", [diffusion_spectral_mutual_information, shannon_mutual_information, measure]
)
def test_bad_labels_are_refused_in_one_line(measure, bad, words):
    refused(words, measure, Z, bad)


@pytest.mark.parametrize(
    "information", [diffusion_spectral_mutual_information, shannon_mutual_information]
)
def test_information_about_one_class_is_refused_in_one_line(information):
    refused("one class only", information, Z, [3] * 6)


def test_labels_of_one_class_leave_the_scores_that_need_none():
    values, without = measure(Z, [3] * 6, input_clusters=[1] * 6), measure(Z)
    reasons, known = (parse_reasons(some.pop("undefined_scores")) for some in (values, without))
    assert values == without
    assert reasons["logme"] == "labels make one class only, pass two or more"
    assert reasons["csmi_z_x"] == "input_clusters make one class only, pass two or more"
    assert known.items() < reasons.items()


def test_pandas_missing_labels_are_refused():

    refused("1 missing entries", measure, Z, pd.Series([1, 2, pd.NA, 1, 2, 1], dtype="Int64"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *(({"sigma": value}, "sigma is ") for value in (0, -1, np.nan, np.inf, "wide", 1e-200)),
        *(({"t": value}, "t is ") for value in (0, -1, np.nan, np.inf, None)),
        *(({"repetitions": value}, "repetitions is ") for value in (0, -1, 1.5, None)),
        *(({"seed": value}, "seed is ") for value in (-1, 2**32, 1.5, None)),
        *(({"bins": value}, "bins is ") for value in (0, -1, 2.5)),
        (
            {"null_permutations": 0},
            "null_permutations is 0; input should be greater than or equal to 1",
        ),
        ({"input_clusters": [1, 2]}, "input_clusters has 2 entries"),
        ({"image_ids": [1, 2]}, "image_ids has shape [2]"),
        ({"image_ids": [5, 6, 7, 5, 8, 9]}, "the repeats of image 5 bear different labels"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(settings, words):
    refused(words, measure, Z, LABELS, **settings)


@pytest.mark.parametrize(
    ("X", "n_clusters", "words"),
    [
        (np.ones((5, 3)), 2, "all 5 inputs are the same"),
        (np.ones(5), 2, "all 5 inputs are the same"),
        (np.zeros((5, 2, 2)), 2, "reshape"),
        (Z, 7, "6 different inputs cannot make 7 clusters; set n_clusters to 6 at most"),
        (Z, 0, "n_clusters is 0"),
        (Z, 2.5, "n_clusters is 2.5"),
        (NAN, 2, "NaN or infinite"),
    ],
)
def test_inputs_that_cannot_be_clustered_are_refused_in_one_line(X, n_clusters, words):
    refused(words, cluster_inputs, X, n_clusters)


def test_few_or_repeated_inputs_are_clustered_without_a_warning():
    assert cluster_inputs(Z, 1).tolist() == [0] * 6
    assert sorted(cluster_inputs(Z, 6).tolist()) == list(range(6))
    assert set(cluster_inputs(Z, 2)) == {0, 1}
    assert set(cluster_inputs(Z, 5)) <= set(range(5))
    groups = (
        np.repeat([[0, 0], [100, 0], [0, 100], [100, 101]], 15, axis=0)
        + 0.01 * np.arange(60)[:, None]
    )
    clusters = cluster_inputs(groups, 4)  # a graph in four pieces
    assert len({tuple(set(clusters[start : start + 15])) for start in (0, 15, 30, 45)}) == 4
    same = np.repeat(np.eye(3), 20, axis=0)
    assert (cluster_inputs(same, 3) == np.repeat(cluster_inputs(np.eye(3), 3), 20)).all()
    assert len(cluster_inputs(same, 2)) == 60
    assert len(cluster_inputs(np.arange(4.0), 10)) == 4


def refused(words, function, *arguments, **settings):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)


# Selected scores, missing labels, users' own measures


def test_without_labels_the_measures_of_the_embedding_alone_are_left() -> None:
    Z = np.random.default_rng(0).normal(size=(240, 40)) * np.geomspace(1, 0.01, 40)
    values = measure(Z, None)
    diagnostics = {"embedding_rms", "median_distance_over_sigma", "saturated"}
    scores = {
        "dse_z",
        "cse_z",
        "rankme",
        "alpha_req",
        "participation_ratio",
        "two_nn_dimension",
        "mst_dimension",
    }
    scores |= {"offset_share", "clid", "dse_z_knn", "nesum", "matrix_entropy"}
    at_a_bound = {"cse_z_se"}  # each row is alone in its bin
    errors = {f"{score}_se" for score in scores} - at_a_bound
    assert set(values) == diagnostics | scores | errors | {UNDEFINED}
    labelled = measure(Z, np.arange(240) % 3)
    split_by_class = {name for name in values if name.endswith("_se")}
    assert all(
        labelled[name] == value
        for name, value in values.items()
        if name not in split_by_class | {UNDEFINED}
    )


def test_each_score_alone_is_what_it_is_among_all() -> None:
    Z, labels, clusters = example()
    everything = measure(Z, labels, input_clusters=clusters)
    assert everything.pop(UNDEFINED) == "lidar: 200 of 200 images have one row, not repeats"
    for name, value in everything.items():
        assert measure(Z, labels, input_clusters=clusters, scores=[name]) == {name: value}
    assert measure(Z, scores="dse_z") == {"dse_z": everything["dse_z"]}


@pytest.mark.parametrize(
    ("scores", "untouched"),
    [
        (
            ("dse_z", "dsmi_z_y"),
            {"decomposition", "uncentred_decomposition", "direction_points"},
        ),
        (
            ("neighbour_accuracy",),
            {"decomposition", "halves", "different_image_points"},
        ),
        (("rankme",), {"decomposition", "_centred", "points_in_range"}),
        (("cse_z",), {"uncentred_decomposition", "_centred", "halves"}),
    ],
)
def test_nothing_is_computed_that_the_scores_do_not_need(
    scores: tuple[str, ...], untouched: set[str]
) -> None:
    Z, labels, clusters = example()
    context = MeasureContext(Z, labels, None, clusters, MeasureSettings())
    values_of([BY_NAME[name] for name in scores], context)
    assert untouched <= {
        name
        for name in dir(MeasureContext)
        if isinstance(vars(MeasureContext).get(name), computed_once)
    }
    assert not untouched & set(vars(context))


def test_an_unknown_score_is_refused_with_near_names() -> None:
    refused("no score is called 'dsez'; did you mean dse_z", measure, Z, LABELS, scores=["dsez"])


def test_a_score_that_needs_what_is_not_given_is_refused() -> None:
    refused("the score dsmi_z_y needs labels; pass them too", measure, Z, scores=["dsmi_z_y"])
    refused("the score csmi_z_x needs input_clusters", measure, Z, LABELS, scores=["csmi_z_x"])


def test_a_score_that_is_undefined_does_not_take_the_others_along() -> None:
    values = measure(Z, [0, 0, 0, 1, 1, 2], scores=("probe_accuracy", "logme"))
    assert values.keys() == {"logme", "undefined_scores"}
    assert values["undefined_scores"].startswith("probe_accuracy: class 2 has one image (row 5)")
    one_class = measure(Z, [0] * 6, scores=("probe_accuracy", "rankme"))
    assert one_class.keys() == {"rankme", "undefined_scores"}


def test_scores_and_settings_of_no_use_are_refused() -> None:
    refused("scores is empty; name one", measure, Z, LABELS, scores=())
    refused("sigma is True; must be a number", measure, Z, LABELS, sigma=True)


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    refused(
        "measure has no setting 'sgima'; beside its own arguments there are sigma, t,",
        measure,
        Z,
        LABELS,
        sgima=2,
    )
    refused("own measures are for runs", measure, Z, LABELS, own=("mine:f",))


def test_a_single_point_has_an_entropy_and_no_distance() -> None:
    values = measure([[1.0, 2.0]])
    assert values["dse_z"] == pytest.approx(0, abs=1e-12)
    assert "median_distance_over_sigma" not in values


def test_a_users_file_never_takes_the_place_of_a_library(tmp_path, monkeypatch):
    (tmp_path / "colorsys.py").write_text("def f(Z, labels):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    refused("colorsys.py is hidden by ", load_measure, "colorsys:f")
