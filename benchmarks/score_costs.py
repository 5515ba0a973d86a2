"""Processor-seconds of each value and each standard error of a row, as a Markdown table.

    python benchmarks/score_costs.py                   # n = 3,000, d = 1,024, 20 classes; a minute
    python benchmarks/score_costs.py 1000 512 5        # points, dimensions, rounds
    python benchmarks/score_costs.py growth            # exponents of each value, as CSV; two minutes

Parts that several scores share (distances, decompositions, halves) are computed first and have their own lines; the
other lines are what a score adds. A value that comes with another, such as the spread of the null, costs nothing more.
Figures are medians over the rounds, on one thread, so that processor time is the time of the work. ``growth`` prints
the exponent b of seconds ~ size^b over three sizes in n, d and classes, each around n = 2,000, d = 512 and 20 classes;
it is empty where a value takes less than 20 ms. LiDAR gets two rows of each image.
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

from dsmi_zoo.pipeline.measures.catalog import COSTLY, ROW_MEASURES
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


TYPICAL = {"n": 2_000, "d": 512, "classes": 20}
GROWTH = {"n": (1_000, 2_000, 4_000), "d": (256, 512, 1_024), "classes": (10, 40, 160)}
LEAST_S = 0.02


def example(n: int, d: int, classes: int, seed: int, repeats: int = 1) -> MeasureContext:
    """Return the context of random vectors around their class centres, with ``repeats`` rows per image."""
    rng = np.random.default_rng(seed)
    images = np.arange(n) // repeats
    labels = images % classes
    Z = rng.standard_normal((n, d)) + 0.5 * rng.standard_normal((classes, d))[labels]
    clusters = rng.integers(0, classes, n)
    return MeasureContext(Z, labels, images if repeats > 1 else None, clusters, MeasureSettings())


def seconds(context: MeasureContext, with_errors: bool = True) -> dict[str, float]:
    """Return the processor-seconds of a row's parts, by name."""
    spent = {}
    for name, compute in SHARED.items():
        if with_errors or "halves" not in name:
            begun = time.process_time()
            compute(context)
            spent[name] = time.process_time() - begun
    for one in ROW_MEASURES:
        if with_errors or not one.name.endswith("_se"):
            begun = time.process_time()
            COMPUTATIONS[one.name].result(context)
            spent[one.name] = time.process_time() - begun
    return spent


def growth() -> None:
    """Print how each value's cost grows, as CSV."""

    def costs(**size: int) -> dict[str, float]:
        spent = seconds(example(**TYPICAL | size, seed=0), with_errors=False)
        repeated = example(**TYPICAL | size, seed=0, repeats=2)
        return spent | {"lidar": seconds(repeated, with_errors=False)["lidar"]}

    costs(n=1_200, d=16)  # warm-up: imports, also those for large eigenproblems
    typical = costs()
    found = {
        axis: [(size, costs(**{axis: size})) for size in sizes] for axis, sizes in GROWTH.items()
    }
    print("value,seconds," + ",".join(f"exponent_in_{axis}" for axis in GROWTH))
    for name in typical:
        exponents = []
        for points in found.values():
            sizes = [size for size, _ in points]
            spent = [of_size[name] for _, of_size in points]
            is_known = min(spent) >= LEAST_S
            exponents.append(
                f"{np.polyfit(np.log(sizes), np.log(spent), 1)[0]:.2f}" if is_known else ""
            )
        print(f"{name},{typical[name]:.3f},{','.join(exponents)}")


def main() -> None:
    """Print the table, the most expensive first, and the sums."""
    if sys.argv[1:] == ["growth"]:
        growth()
        return
    given = [int(word) for word in sys.argv[1:]]
    n, d, rounds = (*given, *(N, D, ROUNDS)[len(given) :])
    rng = np.random.default_rng(0)
    # Warm-up: imports and first calls.
    measure(
        rng.standard_normal((1_200, 16)), np.arange(1_200) % 3, input_clusters=np.arange(1_200) % 4
    )

    runs = [seconds(example(n, d, CLASSES, seed)) for seed in range(rounds)]
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
