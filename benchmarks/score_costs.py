"""Cost of each score by itself, and of all of them together, as a Markdown table.

    python benchmarks/score_costs.py                   # n = 1,000, d = 512, 20 classes; one core; a minute

Scores share distances, kernels and decompositions, so all of them together cost less than their sum.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ[
    "MKL_NUM_THREADS"
] = "1"

import statistics
import time

import numpy as np

from dsmi_zoo import measure
from dsmi_zoo.pipeline.measures import cluster_inputs
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES

N, D, CLASSES, ROUNDS = 1_000, 512, 20, 3


def seconds(
    scores: tuple[str, ...], Z: np.ndarray, labels: np.ndarray, clusters: np.ndarray
) -> float:
    """Return the median time of computing these scores from scratch."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        measure(Z, labels, scores=scores, input_clusters=clusters)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    Z = rng.standard_normal((N, D)) + 0.5 * rng.standard_normal((CLASSES, D))[labels]
    clusters = cluster_inputs(Z[:, :64], CLASSES)
    names = tuple(score.name for score in (*MEASURES, *COMPARISONS))
    measure(Z, labels, input_clusters=clusters)  # imports and first calls

    print("| score | seconds |\n| --- | ---: |")
    for name in names:
        print(f"| `{name}` | {seconds((name,), Z, labels, clusters):.2f} |", flush=True)
    print(f"| all of them | {seconds(names, Z, labels, clusters):.2f} |")
    with_errors = (*names, *(f"{name}_se" for name in names if name != "dsmi_z_y_null"))
    print(f"| and their standard errors | {seconds(with_errors, Z, labels, clusters):.2f} |")


if __name__ == "__main__":
    main()
