"""Compare the measures with the package `dse-dsmi` in value and time, and check their stated errors.

    python benchmarks/compare_reference.py                   every part, about forty minutes on 2 cores
    python benchmarks/compare_reference.py six entropy       some parts, each at most ten minutes

values    largest deviation over a grid of small embeddings, and at n = 3,000 over kinds of data and scales
six       time of all six measures at n = 3,000, d = 1,024, called as in the paper's script: each separately, with X
          clustered again for each measure that needs it
ways      DSE at n = 3,000 by all eigenvalues, by a band and by Lanczos, on one thread and on all, beside BLAS's peak
row       time of a row's columns, by default and with --scores all, against the reference's same six measures
entropy   time and error of DSE at n = 10,000, and the coverage of its standard error
coverage  the same coverage at n = 2,000 over more data and seeds
twenty    time and memory of DSE at n = 20,000, d = 256; run it with two versions to compare them
fifty     the same at n = 50,000
exponent  time against n with the kernel recomputed in tiles
repeated  DSE of 50,000 points (5,000 points repeated ten times), and the process's peak memory
classes   DSMI(Z;Y) of the same points in ten classes of 5,000
forward   time of one model's measures at n = 1,000 against its forward pass
spread    `dsmi_z_y_se` against the spread over fresh samples, and its cost
"""

import itertools
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dsmi_zoo.pipeline.measures import (
    diffusion_spectral_entropy,
    diffusion_spectral_entropy_estimate,
    diffusion_spectral_mutual_information,
    diffusion_spectral_mutual_information_estimate,
    measure,
)
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, DIAGNOSTICS, MEASURES
from dsmi_zoo.pipeline.measures.core.distances import as_points, gaussian_kernel, squared_distances
from dsmi_zoo.pipeline.measures.core.exact_or_estimated import Precision
from dsmi_zoo.pipeline.measures.core.threads import blas_threads
from dsmi_zoo.pipeline.measures.dse.lanczos import spectral_entropy_by_lanczos
from dsmi_zoo.pipeline.measures.dse.spectrum import (
    diffusion_eigenvalues,
    kernel_entropy,
    spectrum_entropy,
)

with warnings.catch_warnings():  # importing it silences all warnings for good
    from dse_dsmi import diffusion_spectral_entropy as reference_entropy
    from dse_dsmi import diffusion_spectral_mutual_information as reference_information

Array = NDArray[np.float64]
Classes = NDArray[np.int64]

SHAPES = ((10, 3), (50, 500), (120, 16), (200, 2), (300, 96))
SCALES = (1e-2, 0.3, 1.0, 3.0, 1e2)
SIGMAS = (None, 0.5, 10.0)
TIMES = (1, 2, 3)
BINS = (2, 5, 10)
N, D, CLASSES = 3000, 1024, 20
ROUNDS = 5
THE_SIX = ("dse_z", "dsmi_z_y", "dsmi_z_x", "cse_z", "csmi_z_y", "csmi_z_x")
COMPARISON_SCORES = tuple(one.name for one in COMPARISONS)
BAR_SCALES = (0.02, 0.1, 0.5, 1.0, 2.0, 5.0)


def reference(
    Z: Array, labels: Classes, X: NDArray[Any], sigma: float | None, t: int, bins: int
) -> dict[str, float]:
    """Return the reference's measures, in bits; X are inputs [n, p] or their clusters [n]."""
    spectral = {"gaussian_kernel_sigma": np.sqrt(Z.shape[1]) if sigma is None else sigma, "t": t}
    classic = {"classic_shannon_entropy": True, "num_bins_per_dim": bins}
    clusters = {"n_clusters": len(np.unique(labels))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by the span of constant dimensions
        return {
            "dse_z": reference_entropy(Z, **spectral),
            "dsmi_z_y": reference_information(Z, labels, **spectral)[0],
            "dsmi_z_x": reference_information(Z, X, **clusters, **spectral)[0],
            "cse_z": reference_entropy(Z, **classic),
            "csmi_z_y": reference_information(Z, labels, **classic)[0],
            "csmi_z_x": reference_information(Z, X, **clusters, **classic)[0],
        }


def example(
    n: int, d: int, scale: float = 1.0, classes: int = 10
) -> tuple[Array, Classes, Classes]:
    """Return an embedding [n, d] that depends on its labels, these labels, and clusters; class sizes are unequal."""
    generator = np.random.default_rng(n + d)
    labels = generator.integers(0, classes, size=n)
    clusters = np.minimum(generator.geometric(0.3, size=n), classes)
    Z = generator.normal(size=(n, d)) + generator.normal(size=(classes, d))[labels]
    return scale * Z, labels, clusters


def of_kind(kind: str, n: int, d: int, classes: int, seed: int = 0) -> tuple[Array, Classes]:
    """Return an embedding of unit scale with equal classes: Gaussian, ReLU of that, or rank 16."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    width = 16 if kind == "low rank" else d
    Z = generator.normal(size=(n, width)) + generator.normal(size=(classes, width))[labels] / 2
    if kind == "low rank":
        Z = Z @ generator.normal(size=(width, d)) / np.sqrt(width)
    return (np.maximum(Z, 0) if kind == "ReLU" else Z), labels


KINDS = ("Gaussian", "ReLU", "low rank")


def timed(function: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    started = perf_counter()
    result = function(*arguments, **settings)
    return perf_counter() - started, result


def deviations() -> Iterator[dict[str, float]]:
    """Return the absolute deviation of each measure, in bits, for each case of the grid."""
    settings = itertools.product(SHAPES, SCALES, SIGMAS, zip(TIMES, BINS, strict=True))
    for (n, d), scale, sigma, (t, bins) in settings:
        Z, labels, clusters = example(n, d, scale)
        ours = measure(
            Z, labels, input_clusters=clusters, sigma=sigma, t=t, bins=bins, scores=THE_SIX
        )
        expected = reference(Z, labels, clusters, sigma, t, bins)
        yield {name: abs(ours[name] - value) for name, value in expected.items()}


def values() -> None:
    """Print the largest deviations from the reference."""
    cases = list(deviations())
    print(f"largest deviation in {len(cases)} small cases, bits")
    for name in cases[0]:
        print(f"  {name:10} {max(case[name] for case in cases):.1e}")
    print(f"largest deviation at n = {N}, d = {D}, bits: scale, float32, float64")
    clusters = np.random.default_rng(1).integers(0, CLASSES, N)
    for kind in KINDS:
        Z, labels = of_kind(kind, N, D, CLASSES)
        for scale in BAR_SCALES:
            expected = reference(scale * Z, labels, clusters, None, 1, 2)
            worst = []
            for precision in ("float32", "float64"):
                ours = measure(
                    scale * Z, labels, input_clusters=clusters, precision=precision, scores=THE_SIX
                )
                worst.append(max(abs(ours[name] - value) for name, value in expected.items()))
            print(f"  {kind:9} {scale:5} {worst[0]:.1e} {worst[1]:.1e}", flush=True)


def example_3000() -> tuple[Array, Classes, Array, Classes]:
    """Return an embedding, its labels, inputs the size of small photographs, and their clusters."""
    Z, labels = of_kind("Gaussian", N, D, CLASSES)
    generator = np.random.default_rng(2)
    X = (
        generator.normal(size=(N, 64 * 64 * 3))
        + generator.normal(size=(CLASSES, 64 * 64 * 3))[labels]
    )
    return Z, labels, X, generator.integers(0, CLASSES, N)


def six() -> None:
    """Print the time of all six measures."""
    Z, labels, X, clusters = example_3000()
    measure(Z[:1200], labels[:1200])  # imports on first use
    runs = []
    for _ in range(ROUNDS):
        theirs, _ = timed(reference, Z, labels[:, None], X, None, 1, 2)
        ours = [
            timed(measure, Z, labels, input_clusters=clusters, precision=precision, scores=THE_SIX)[
                0
            ]
            for precision in ("float32", "float64")
        ]
        runs.append((theirs, *ours))
    print(f"six measures, n = {N}, d = {D}, {CLASSES} classes, {ROUNDS} rounds")
    for name, of in (("median", median), ("least, for other work may disturb", min)):
        theirs, single, double = (of(column) for column in zip(*runs, strict=True))
        print(
            f"  {name}: reference {theirs:.2f} s; float32 {single:.2f} s, {theirs / single:.1f} times as fast; "
            f"float64 {double:.2f} s, {theirs / double:.1f} times"
        )


def ways() -> None:
    """Print the time of DSE by each method, and of the flops of LAPACK's reduction at the speed of a matrix product."""
    Z, _, _, _ = example_3000()
    kernel = gaussian_kernel(squared_distances(as_points(Z).values), np.sqrt(D))
    truth = kernel_entropy(kernel.copy(), 1)
    spectral_entropy_by_lanczos(Z[:1200], np.sqrt(D), 1, 0.005, 0)  # imports on first use

    def by_eigenvalues(precision: Precision) -> float:
        spectrum = diffusion_eigenvalues(kernel.copy(), precision=precision)
        return float(spectrum_entropy(spectrum[None], 1)[0])

    for threads in (1, blas_threads()):
        with threadpool_limits(threads, "blas"):
            for precision, kind in (("float32", np.float32), ("float64", np.float64)):
                square = kernel.astype(kind)
                least = (
                    4
                    / 3
                    * N**3
                    / (2 * N**3 / min(timed(np.matmul, square, square)[0] for _ in range(3)))
                )
                found = [
                    min(timed(way, precision) for _ in range(3))
                    for way in (
                        by_eigenvalues,
                        lambda kind: kernel_entropy(kernel.copy(), 1, precision=kind),
                    )
                ]
                print(
                    f"{threads} threads, {precision}: "
                    + "; ".join(
                        f"{name} {seconds:.2f} s, off by {abs(value - truth):.1e} bits"
                        for name, (seconds, value) in zip(
                            ("eigenvalues", "band"), found, strict=True
                        )
                    )
                    + f"; 4/3 n^3 flops as a product of matrices {least:.2f} s"
                )
            seconds, estimate = min(
                (
                    timed(spectral_entropy_by_lanczos, Z, np.sqrt(D), 1, 0.005, seed)
                    for seed in range(3)
                ),
                key=lambda one: one[0],
            )
            print(
                f"{threads} threads: Lanczos {seconds:.2f} s, off by {abs(estimate.value - truth):.1e} bits, "
                f"standard error {estimate.standard_error:.1e}",
                flush=True,
            )


def row() -> None:
    """Print the time of a row, by default and with all scores, against the reference's six measures."""
    Z, labels, X, clusters = example_3000()
    # Imports on first use.
    measure(Z[:1200], labels[:1200], input_clusters=clusters[:1200])
    runs = []
    for _ in range(ROUNDS):
        theirs, _ = timed(reference, Z, labels[:, None], X, None, 1, 2)
        ours = [
            timed(measure, Z, labels, input_clusters=clusters, scores=scores)[0]
            for scores in ("default", "all")
        ]
        runs.append((theirs, *ours))
    theirs, by_default, everything = (median(column) for column in zip(*runs, strict=True))
    print(
        f"a row, n = {N}, d = {D}, {CLASSES} classes, median of {ROUNDS}: reference's six measures {theirs:.2f} s; "
        f"default {by_default:.2f} s, {theirs / by_default:.1f} times as fast; "
        f"--scores all {everything:.2f} s, {theirs / everything:.1f} times"
    )


def entropy() -> None:
    """Print time, error and coverage of DSE at n = 10,000."""
    Z, _ = of_kind("Gaussian", 10_000, D, CLASSES)
    seconds, estimate = timed(diffusion_spectral_entropy_estimate, Z, method="lanczos")
    theirs, truth = timed(reference_entropy, Z, gaussian_kernel_sigma=np.sqrt(D))
    print(
        f"DSE, n = 10000, d = {D}: reference {theirs:.1f} s, lanczos {seconds:.1f} s, {theirs / seconds:.1f} times as "
        f"fast; error {estimate.value - truth:+.5f}, standard error {estimate.standard_error:.5f}",
        flush=True,
    )
    covered(Z, truth, range(1, 21))


def covered(Z: Array, truth: float, seeds: range) -> list[bool]:
    """Print the coverage of the standard error; return whether each seed's interval holds the truth."""
    found = [diffusion_spectral_entropy_estimate(Z, method="lanczos", seed=seed) for seed in seeds]
    inside = [abs(e.value - truth) <= 1.96 * e.standard_error for e in found]
    print(
        f"  {len(seeds)} seeds: truth {truth:.4f} within 1.96 standard errors {sum(inside)} times; "
        f"root mean square error {np.sqrt(np.mean([(e.value - truth) ** 2 for e in found])):.5f}, "
        f"standard error {np.mean([e.standard_error for e in found]):.5f}",
        flush=True,
    )
    return inside


def coverage() -> None:
    """Print the coverage at n = 2,000."""
    inside = []
    for kind, scale in itertools.product(KINDS, (0.3, 1.0, 2.0)):
        Z, _ = of_kind(kind, 2000, 256, CLASSES)
        print(f"{kind}, scale {scale}, n = 2000")
        inside += covered(
            scale * Z, diffusion_spectral_entropy(scale * Z, method="exact"), range(40)
        )
    print(f"covered {sum(inside)} times of {len(inside)}")


def exponent() -> None:
    """Print the time against n, with the kernel recomputed in tiles."""
    sizes, seconds = (5_000, 10_000, 20_000, 40_000), []
    for n in sizes:
        Z, _ = of_kind("Gaussian", n, D, CLASSES)
        took, found = timed(spectral_entropy_by_lanczos, Z, np.sqrt(D), 1, 0.02, 0, held_bytes=0)
        seconds.append(took)
        print(f"  n = {n}: {took:.1f} s, standard error {found.standard_error:.4f}", flush=True)
    slopes = np.diff(np.log(seconds)) / np.diff(np.log(sizes))
    fitted = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(
        f"exponent of cost {fitted:.2f}; from size to size {' '.join(f'{slope:.2f}' for slope in slopes)}"
    )


def large(n: int) -> None:
    """Print time, memory and standard error of DSE of ``n`` points."""
    generator = np.random.default_rng(0)
    Z = generator.standard_normal((n, 256), dtype=np.float32)
    centres = generator.standard_normal((CLASSES, 256), dtype=np.float32)
    Z += centres[np.arange(n) % CLASSES] / 2
    diffusion_spectral_entropy_estimate(Z[:600], method="lanczos")  # imports on first use
    before = process_time()
    seconds, found = timed(diffusion_spectral_entropy_estimate, Z)
    print(
        f"DSE, n = {n}, d = 256: {seconds:.0f} s, {process_time() - before:.0f} s of a processor, greatest memory "
        f"{memory():.2f} GiB; {found.value:.4f}, standard error {found.standard_error:.5f}",
        flush=True,
    )


def twenty() -> None:
    large(20_000)


def fifty() -> None:
    large(50_000)


def example_50000() -> tuple[Array, Classes]:
    """Return 5,000 points repeated ten times, float32, and labels of ten classes that each hold every point once."""
    Z, _ = of_kind("Gaussian", 5_000, D, CLASSES)
    return np.tile(Z.astype(np.float32), (10, 1)), np.repeat(np.arange(10), 5_000)


def memory() -> float:
    """Return this process's peak memory, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def repeated() -> None:
    """Print time, memory and error of DSE of 50,000 points."""
    Z, _ = example_50000()
    seconds, found = timed(diffusion_spectral_entropy_estimate, Z, tolerance=0.02)
    print(f"DSE, n = 50000: {seconds:.0f} s, greatest memory {memory():.2f} GiB", flush=True)
    truth = diffusion_spectral_entropy(Z[:5_000], method="exact")
    error = found.value - truth
    print(
        f"  {found.method}: {found.value:.4f}, error {error:+.5f}, standard error {found.standard_error:.5f}"
    )


def classes() -> None:
    """Print time, memory and standard error of DSMI(Z;Y) of 50,000 points, by method."""
    Z, labels = example_50000()
    for method in ("lanczos", "auto"):
        seconds, found = timed(
            diffusion_spectral_mutual_information_estimate,
            Z,
            labels,
            method=method,
            precision="float32",
        )
        print(
            f"DSMI(Z;Y), n = 50000, 10 classes, method {method}: {seconds:.0f} s, {found.method} {found.value:.4f}, "
            f"standard error {found.standard_error:.5f}, greatest memory {memory():.2f} GiB",
            flush=True,
        )


def forward() -> None:
    """Print the time of the measures and of a forward pass."""
    import timm
    import torch

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    images = torch.rand(1000, 3, 224, 224)
    Z, labels = of_kind("ReLU", 1000, model.num_features, CLASSES)
    clusters = np.random.default_rng(0).integers(0, CLASSES, 1000)
    passes, measures, scores = [], [], []
    for _ in range(3):
        with torch.inference_mode():
            passes.append(timed(list, map(model, images.split(64)))[0])
        points = as_points(Z)
        measures.append(
            timed(
                measure,
                points,
                labels,
                input_clusters=clusters,
                scores=[one.name for one in (*DIAGNOSTICS, *MEASURES)],
            )[0]
        )
        scores.append(timed(measure, points, labels, scores=COMPARISON_SCORES)[0])
    print(
        f"n = 1000, median of 3: forward pass of tf_efficientnet_lite0 {median(passes):.2f} s, measures "
        f"{median(measures):.2f} s, comparison scores {median(scores):.2f} s"
    )


def spread() -> None:
    """Print the standard error over images against the spread over fresh samples, and its cost."""
    print(
        "points a class, classes, d, separation, scale: spread over 100 samples, root mean square of the stated error"
    )
    cases = (
        (50, 10, 20, 0.0, 1.0), (50, 10, 20, 1.5, 1.0), (50, 10, 20, 1.5, 0.3), (50, 10, 100, 0.3, 1.0),
        (50, 10, 100, 1.0, 1.0), (50, 10, 100, 1.0, 2.0), (30, 5, 64, 0.7, 1.0), (44, 10, 96, 0.5, 0.3),
    )  # fmt: skip
    for size, count, d, separation, scale in cases:
        labels = np.repeat(np.arange(count), size)
        centres = separation * np.random.default_rng(5).normal(size=(count, d))
        widths = 2 * (1 + np.arange(d)) ** -0.25
        found = []
        for sample in range(100):
            generator = np.random.default_rng(100 + sample)
            Z = scale * (generator.normal(size=(len(labels), d)) * widths + centres[labels])
            row = measure(Z, labels, scores=("dsmi_z_y", "dsmi_z_y_se"))
            found.append((row["dsmi_z_y"], row["dsmi_z_y_se"]))
        dsmi, stated = np.array(found).T
        actual, error = dsmi.std(ddof=1), np.sqrt(np.mean(stated**2))
        print(
            f"  {size:3} {count:3} {d:4} {separation:4} {scale:4}: DSMI {dsmi.mean():.3f}, spread {actual:.4f}, stated "
            f"{error:.4f}, ratio {error / actual:.2f}",
            flush=True,
        )
    for n, count in ((1000, 20), (3000, 20)):
        Z, labels = of_kind("Gaussian", n, D, count)
        alone = median(timed(diffusion_spectral_mutual_information, Z, labels)[0] for _ in range(5))
        points = as_points(Z)
        points.squares  # noqa: B018
        whole = median(timed(null_and_error, points, labels)[0] for _ in range(5))
        print(
            f"n = {n}: DSMI {alone:.3f} s; null with spread and standard error {whole:.3f} s, {whole / alone:.1f} times"
        )


def null_and_error(points: Any, labels: Classes) -> None:
    """Compute what a row needs beyond DSMI: a null of ten permutations, and the standard error."""
    from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
    from dsmi_zoo.pipeline.measures.dse.subsets import SpectralEntropies, sampling_error

    settings = MeasureSettings(method="exact", precision="float64")
    entropies = SpectralEntropies(points, settings.sigma_for(points.values.shape[1]), settings)
    generator = np.random.default_rng(0)
    for _ in range(10):
        entropies.information(generator.permutation(labels))
    sampling_error(labels, np.arange(len(labels)), entropies)


PARTS = (
    values, six, ways, row, entropy, coverage, twenty, fifty, exponent, repeated, classes, forward, spread
)  # fmt: skip


def main() -> None:
    """Run the named parts."""
    known = {part.__name__: part for part in PARTS}
    for name in sys.argv[1:] or known:
        if name not in known:
            sys.exit(f"{name} is no part; the parts are {', '.join(known)}")
        known[name]()


if __name__ == "__main__":
    main()
