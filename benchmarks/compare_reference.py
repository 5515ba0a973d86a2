"""Compare the measures with the package `dse-dsmi`, in value and in time.

Prints the largest deviation of each measure over a grid of embeddings, and the time of `measure_all` beside that of the
reference's functions for the same six measures (the reference has no null; ours is included in our time). Run it as
``python benchmarks/compare_reference.py``; ``--quick`` times the smallest embedding only.
"""

import itertools
import sys
import warnings
from collections.abc import Iterator
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from pipeline.measures import measure_all

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
TIMED = ((447, 96), (2000, 512), (3000, 1024))


def reference(Z: Array, labels: Classes, clusters: Classes, sigma: float | None, t: int, bins: int) -> dict[str, float]:
    """The reference's value, in bits, of every measure that it has."""
    spectral = {"gaussian_kernel_sigma": np.sqrt(Z.shape[1]) if sigma is None else sigma, "t": t}
    classic = {"classic_shannon_entropy": True, "num_bins_per_dim": bins}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by the span of constant dimensions
        return {
            "dse_z": reference_entropy(Z, **spectral),
            "dsmi_z_y": reference_information(Z, labels, **spectral)[0],
            "dsmi_z_x": reference_information(Z, clusters, **spectral)[0],
            "cse_z": reference_entropy(Z, **classic),
            "csmi_z_y": reference_information(Z, labels, **classic)[0],
            "csmi_z_x": reference_information(Z, clusters, **classic)[0],
        }


def example(n: int, d: int, scale: float = 1.0, classes: int = 10) -> tuple[Array, Classes, Classes]:
    """An embedding [n, d] that tells something of its labels, and two labellings with classes of unequal size."""
    generator = np.random.default_rng(n + d)
    labels = generator.integers(0, classes, size=n)
    clusters = np.minimum(generator.geometric(0.3, size=n), classes)
    Z = generator.normal(size=(n, d)) + generator.normal(size=(classes, d))[labels]
    return scale * Z, labels, clusters


def deviations() -> Iterator[dict[str, float]]:
    """Absolute deviation, in bits, of each measure, for each case of the grid."""
    settings = itertools.product(SHAPES, SCALES, SIGMAS, zip(TIMES, BINS, strict=True))
    for (n, d), scale, sigma, (t, bins) in settings:
        Z, labels, clusters = example(n, d, scale)
        ours = measure_all(Z, labels, input_clusters=clusters, sigma=sigma, t=t, bins=bins, null_permutations=1)
        expected = reference(Z, labels, clusters, sigma, t, bins)
        yield {name: abs(ours[name] - value) for name, value in expected.items()}


def main() -> None:
    """Print both comparisons."""
    cases = list(deviations())
    print(f"largest deviation in {len(cases)} cases, bits")
    for name in cases[0]:
        print(f"  {name:10} {max(case[name] for case in cases):.1e}")
    print("median of 3 runs, seconds")
    for n, d in TIMED[:1] if "--quick" in sys.argv[1:] else TIMED:
        Z, labels, clusters = example(n, d)
        ours, theirs = [], []
        for _ in range(3):
            start = perf_counter()
            measure_all(Z, labels, input_clusters=clusters)
            middle = perf_counter()
            reference(Z, labels, clusters, None, 1, 2)
            ours.append(middle - start)
            theirs.append(perf_counter() - middle)
        old, new = median(theirs), median(ours)
        print(f"  n={n} d={d}: reference {old:.2f}, measure_all {new:.2f}, {old / new:.1f} times faster")


if __name__ == "__main__":
    main()
