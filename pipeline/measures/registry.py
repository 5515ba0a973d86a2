"""Every measure and diagnostic of a row by its column's name, and measures of the user's own."""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .entropy import binned_entropy
from .estimate import (
    EXACT_UP_TO,
    TOLERANCE,
    Method,
    Precision,
    as_method,
    as_precision,
    precision_for,
)
from .inputs import as_classes, as_count, as_images, as_seed, as_sigma, as_time, as_tolerance
from .mutual_information import (
    binned_entropies,
    mutual_information,
    random_subset_entropies,
    shared_kernels,
    spectral_entropies,
)
from .points import Points, as_points
from .scale_free import scale_free_mutual_information
from .spectrum import ONE_THREAD, squared_distances
from .uncertainty import sampling_error


@dataclass(frozen=True)
class Measure:
    """A column that the measures fill: its name, a title for plots, its unit, its meaning, and which end is good.

    The unit is "bits", "nats", "%", "flag" or "".
    """

    name: str
    title: str
    unit: str
    meaning: str
    lower_is_better: bool = False


DIAGNOSTICS: tuple[Measure, ...] = (
    Measure("embedding_rms", "Embedding RMS", "", "Root mean square of the embedding's values: its scale."),
    Measure(
        "median_distance_over_sigma", "Median distance / sigma", "",
        "Median distance between two points, in units of sigma; far from 1, DSE says little.",
    ),
    Measure(
        "saturated", "Saturated", "flag",
        "DSE is within 0.1 bit of 0 or of log2 n: sigma is wrong for this embedding's scale.",
    ),
    Measure(
        "dsmi_z_y_se", "DSMI(Z;Y) standard error", "bits",
        "Standard error of `dsmi_z_y` over images: its spread over other images of the same classes, as many.",
    ),
    Measure(
        "dsmi_z_y_null_sd", "DSMI(Z;Y) null spread", "bits",
        "Standard deviation of DSMI(Z;Y) over the permutations behind `dsmi_z_y_null`.",
    ),
)  # fmt: skip

MEASURES: tuple[Measure, ...] = (
    Measure("dse_z", "DSE(Z)", "bits", "Diffusion spectral entropy of the embedding."),
    Measure("dsmi_z_y", "DSMI(Z;Y)", "bits", "Diffusion spectral mutual information of embedding and labels."),
    Measure(
        "dsmi_z_y_null", "DSMI(Z;Y) null", "bits",
        "Mean DSMI(Z;Y) with the labels permuted over images, repeats moving together: what no signal gives.",
    ),
    Measure(
        "dsmi_z_y_scale_free", "Scale-free DSMI(Z;Y)", "bits",
        "DSMI(Z;Y) at t = 2 and a sigma of half the root mean square length of the embedding's rows, whatever the "
        "settings.",
    ),
    Measure(
        "dsmi_z_x", "DSMI(Z;X)", "bits",
        "Diffusion spectral mutual information of embedding and clusters of the inputs.",
    ),
    Measure("cse_z", "CSE(Z)", "bits", "Classic (binned) Shannon entropy of the embedding."),
    Measure("csmi_z_y", "CSMI(Z;Y)", "bits", "Classic Shannon mutual information of embedding and labels."),
    Measure(
        "csmi_z_x", "CSMI(Z;X)", "bits",
        "Classic Shannon mutual information of embedding and clusters of the inputs.",
    ),
)  # fmt: skip

COMPARISONS: tuple[Measure, ...] = (
    Measure("logme", "LogME", "nats", "Greatest log evidence of a Bayesian linear regression of the labels, a sample."),
    Measure(
        "h_score", "H-score", "",
        "Variance of the class means over the embedding's, summed over directions; shrunk as by Ledoit and Wolf.",
    ),
    Measure(
        "transrate", "TransRate", "nats",
        "Coding rate of the embedding less that of its classes, at a distortion of 1e-4; depends on the scale.",
    ),
    Measure("rankme", "RankMe", "", "Smooth rank: exp of the entropy of the embedding's singular values; no labels."),
    Measure(
        "centre_accuracy", "Nearest centre", "%",
        "Accuracy of the nearest class centre, each image left out of its own, by image.",
    ),
    Measure(
        "neighbour_accuracy", "10 nearest neighbours", "%",
        "Accuracy of a vote of the 10 nearest samples of other images, by image.",
    ),
    Measure(
        "probe_accuracy", "Linear probe", "%",
        "Accuracy of a linear probe (a ridge classifier) on the embedding, each image left out in turn.",
    ),
    Measure(
        "within_over_between", "Within / between", "",
        "Variance within classes over variance between them (neural collapse's NC1, traces); lower is better.",
        lower_is_better=True,
    ),
)  # fmt: skip
"""What one would use instead of the measures; `dsmi_zoo.pipeline.measures.transferability` computes them."""

SATURATION = 0.1
"""Bits: an entropy this near to 0 or to log2 n says nothing of the embedding."""


def measure_all(
    Z: ArrayLike | Points,
    labels: ArrayLike | None,
    *,
    input_clusters: ArrayLike | None = None,
    image_ids: ArrayLike | None = None,
    sigma: float | None = None,
    t: float = 1,
    repetitions: int = 5,
    seed: int = 0,
    bins: int = 2,
    null_permutations: int = 10,
    method: Method = "auto",
    precision: Precision = "float32",
    tolerance: float = TOLERANCE,
) -> dict[str, float | bool]:
    """Every measure and diagnostic of an embedding, by its column's name.

    Distances, kernel and the entropies of random subsets are computed once and shared.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row a sample.
    labels : [n] or [n, 1] or None
        The class of each sample; with None the keys that hold `_z_y` are left out.
    input_clusters : [n] or [n, 1], optional
        The cluster of each sample's input, from `cluster_inputs`; without it the keys that end in `_z_x` are left out.
    image_ids : [n], optional
        The image of each sample: repeats of an image share an id, and the null moves them together. By default every
        sample is an image of its own.
    sigma, t, repetitions, seed, bins
        As for the single measures; seed also seeds the null's permutations.
    null_permutations : int
        Permutations of the labels behind `dsmi_z_y_null` and its spread.
    method, precision, tolerance
        As for `diffusion_spectral_entropy`, but for the default precision, which costs no more than 1e-5 bits.

    Returns
    -------
    dict
        Bits for the measures, but `dsmi_z_y_se` is left out where classes have too few images for it, and
        `dsmi_z_y_null_sd` for a single permutation; `embedding_rms` in the units of Z; `median_distance_over_sigma`
        over all pairs (of 8,192 random points if there are more), a plain ratio; `saturated` a bool.

    Raises
    ------
    ValueError
        As the single measures; also if the repeats of one image bear different labels.

    References
    ----------
    Liao et al., arXiv 2312.04823; the null is ours; ``dsmi_zoo.pipeline.measures.scale_free``.
    """
    points = as_points(Z)
    n, d = points.values.shape
    classes = None if labels is None else as_classes(labels, n)
    images = None if classes is None else as_images(image_ids, classes)
    clusters = None if input_clusters is None else as_classes(input_clusters, n, "input_clusters")
    sigma, t, seed = as_sigma(sigma, d), as_time(t), as_seed(seed)
    bins, null_permutations = as_count(bins, "bins"), as_count(null_permutations, "null_permutations")
    method, precision, tolerance = as_method(method), as_precision(precision), as_tolerance(tolerance)

    kernels = shared_kernels(points, sigma)
    spectral = spectral_entropies(points, kernels, sigma, t, method, precision, tolerance, seed)
    spectral_random = random_subset_entropies(spectral, n, repetitions, seed)
    binned = binned_entropies(points.values, bins)
    binned_random = random_subset_entropies(binned, n, repetitions, seed)
    with ThreadPoolExecutor(1) as aside:
        whole = aside.submit(spectral, [np.arange(n)])
        if not (n <= ONE_THREAD and precision_for(precision, n, t) == "float32"):
            whole.result()  # it needs all cores
        values: dict[str, float | bool] = {
            "embedding_rms": float(np.sqrt(np.mean(points.values**2))),
            "median_distance_over_sigma": _median_distance(points, seed) / sigma,
            "cse_z": binned_entropy(points.values, bins),
        }
        if classes is not None and images is not None:
            values["dsmi_z_y"] = mutual_information(classes, spectral, spectral_random).value
            permuted = _permuted_over_images(classes, images, null_permutations, seed)
            null = [mutual_information(shuffled, spectral, spectral_random).value for shuffled in permuted]
            values["dsmi_z_y_null"] = float(np.mean(null))
            if len(null) > 1:
                values["dsmi_z_y_null_sd"] = float(np.std(null, ddof=1))
            error = sampling_error(classes, images, spectral, repetitions, seed)
            if np.isfinite(error):
                values["dsmi_z_y_se"] = error
            values["dsmi_z_y_scale_free"] = scale_free_mutual_information(
                points,
                classes,
                repetitions=repetitions,
                seed=seed,
                method=method,
                precision=precision,
                tolerance=tolerance,
            )
            values["csmi_z_y"] = mutual_information(classes, binned, binned_random).value
        if clusters is not None:
            values["dsmi_z_x"] = mutual_information(clusters, spectral, spectral_random).value
            values["csmi_z_x"] = mutual_information(clusters, binned, binned_random).value
        dse = whole.result()[0].value
    values["dse_z"] = dse
    values["saturated"] = bool(dse <= SATURATION or dse >= np.log2(n) - SATURATION)
    return values


def _permuted_over_images(
    classes: NDArray[np.int64], images: NDArray[np.int64], permutations: int, seed: int
) -> list[NDArray[np.int64]]:
    """Return the classes, each int64 [n], after each permutation of them over the images."""
    generator = np.random.default_rng(seed)
    _, first = np.unique(images, return_index=True)
    return [generator.permutation(classes[first])[images] for _ in range(permutations)]


def _median_distance(points: Points, seed: int) -> float:
    """Median distance over the pairs i < j of two points or more, of some of the points if they are many."""
    if points.few:
        squares = points.squares
    else:
        some = np.random.default_rng(seed).choice(len(points.values), EXACT_UP_TO, replace=False)
        squares = squared_distances(points.values[some])
    pairs = np.concatenate([squares[i, i + 1 :] for i in range(len(squares) - 1)])
    middle = [(len(pairs) - 1) // 2, len(pairs) // 2]
    return float(np.mean(np.sqrt(np.partition(pairs, middle)[middle])))


@dataclass(frozen=True)
class OwnMeasure:
    """A measure of the user's: its column's name, where it came from, the function, and what identifies its code."""

    name: str
    spec: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    identity: str

    def value(self, Z: NDArray[Any], labels: NDArray[Any]) -> float:
        """Call the function.

        Raises
        ------
        ValueError
            Names the measure, when it raises anything or returns no number.
        """
        try:
            return float(self.function(Z, labels))
        except Exception as error:
            raise ValueError(f"the measure {self.spec} raised {type(error).__name__}: {error}") from error


def load_measure(spec: str, taken: Collection[str] = ()) -> OwnMeasure:
    """Load a measure of the user's own.

    Parameters
    ----------
    spec : str
        ``package.module:function``, of a function (Z [n, d], labels [n]) -> float. The module is looked for in the
        current directory first, and then wherever Python looks.
    taken : collection of str
        Names of columns that the measure must not have; those of the built-in measures always are taken.

    Returns
    -------
    OwnMeasure
        Its identity is the spec and the SHA-256 of the module's file, so that an edit makes it another measure.

    Raises
    ------
    ValueError
        If the spec is malformed, the module cannot be imported or has no file, there is no such function in it, or its
        name is taken.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(f"measure {spec!r}: write it as package.module:function")
    if name in taken or name in {measure.name for measure in (*DIAGNOSTICS, *MEASURES, *COMPARISONS)}:
        raise ValueError(f"measure {spec!r}: the column {name!r} exists already; rename the function")
    module = _import(module_name, spec)
    if not hasattr(module, name):
        raise ValueError(f"measure {spec!r}: {module_name} has no {name!r}; check the function's name")
    function = getattr(module, name)
    if not callable(function):
        raise ValueError(f"measure {spec!r}: {name!r} is no function; name one that takes (Z, labels)")
    source = getattr(module, "__file__", None)
    if source is None:
        raise ValueError(f"measure {spec!r}: {module_name} has no file; put the function in a module of your own")
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return OwnMeasure(name, spec, function, f"{spec}:{digest}")


def _import(module_name: str, spec: str) -> Any:
    folder = os.getcwd()  # noqa: PTH109
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)  # a command's path holds its own folder, not the current one
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        reason = " ".join(str(error).split())
        raise ValueError(
            f"measure {spec!r}: cannot import {module_name} ({type(error).__name__}: {reason}); "
            "mend it, or run where it can be found"
        ) from error
