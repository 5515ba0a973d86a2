"""Processor-seconds of each value and each standard error of a row, as a Markdown table.

    python benchmarks/score_costs.py                   # n = 3,000, d = 1,024, 20 classes; a minute
    python benchmarks/score_costs.py 1000 512 5        # points, dimensions, rounds

What several scores share (distances, decompositions, halves) is computed first and has its own lines; the others are
what a score adds. A value that belongs to another, such as the spread of the null, costs nothing after it. Medians over
the rounds; one thread, so that seconds of the processor are those of the work.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ[
    "MKL_NUM_THREADS"
] = "1"

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from dsmi_zoo.pipeline.measures.catalog import COSTLY, OF_A_ROW
from dsmi_zoo.pipeline.measures.core.context import MeasureContext
from dsmi_zoo.pipeline.measures.core.registry import COMPUTATIONS
from dsmi_zoo.pipeline.measures.core.settings import MeasureSettings
from dsmi_zoo.pipeline.measures.run import measure

N, D, CLASSES, ROUNDS = 3_000, 1_024, 20, 3

SHARED: dict[str, Callable[[MeasureContext], object]] = {
    "distances": lambda context: context.points.squares,
    "decomposition": lambda context: context.decomposition,
    "principal components": lambda context: context.decomposition.components,
    "directions": lambda context: context.direction_points.squares,
    "distances of halves": lambda context: [half.points.squares for half in context.halves],
    "decompositions of halves": lambda context: [half.decomposition for half in context.halves],
}
ONLY_WITH_ALL = {"decompositions of halves"}


def seconds(n: int, d: int, seed: int) -> dict[str, float]:
    """Return the processor-seconds of a row's parts, by name."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    Z = rng.standard_normal((n, d)) + 0.5 * rng.standard_normal((CLASSES, d))[labels]
    context = MeasureContext(Z, labels, None, rng.integers(0, CLASSES, n), MeasureSettings())
    spent = {}
    for name, compute in SHARED.items():
        begun = time.process_time()
        compute(context)
        spent[name] = time.process_time() - begun
    for one in OF_A_ROW:
        begun = time.process_time()
        COMPUTATIONS[one.name].result(context)
        spent[one.name] = time.process_time() - begun
    return spent


def main() -> None:
    """Print the table, the dearest first, and the sums."""
    given = [int(word) for word in sys.argv[1:]]
    n, d, rounds = (*given, *(N, D, ROUNDS)[len(given) :])
    rng = np.random.default_rng(0)
    # Imports and first calls.
    measure(
        rng.standard_normal((1_200, 16)), np.arange(1_200) % 3, input_clusters=np.arange(1_200) % 4
    )

    runs = [seconds(n, d, seed) for seed in range(rounds)]
    spent = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    values = {name: cost for name, cost in spent.items() if not name.endswith("_se")}
    print(f"n = {n}, d = {d}, {CLASSES} classes, {rounds} rounds; * only with --scores all\n")
    print("| | value | standard error |\n| --- | ---: | ---: |")
    costly = COSTLY | ONLY_WITH_ALL
    for name in sorted(values, key=lambda name: -values[name] - spent.get(f"{name}_se", 0)):
        of_error = f"{name}_se"
        error = f"{spent[of_error]:.2f}{'*' * (of_error in costly)}" if of_error in spent else ""
        print(f"| {name} | {values[name]:.2f}{'*' * (name in costly)} | {error} |")
    by_default = sum(cost for name, cost in spent.items() if name not in costly)
    print(f"\ndefault {by_default:.2f}, all {sum(spent.values()):.2f} processor-seconds")


if __name__ == "__main__":
    main()
