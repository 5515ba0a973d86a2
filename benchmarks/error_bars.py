"""Hold the standard errors that estimated entropies state against the truth, under other seeds and other rounding.

    python benchmarks/error_bars.py                     every case, some fifteen minutes on 2 cores
    python benchmarks/error_bars.py ReLU "far clusters" some of them
    python benchmarks/error_bars.py --draws 24          fewer draws of each

A draw is a random order of the points (another order of summation), a seed, one or two threads of BLAS, a kernel in
float32 or in float64 or as the method chooses, held or computed anew in tiles. It is covered if its error is within two
standard errors and 1e-6 bits. A line has the case, the number of points, the exact entropy, the share of draws that are
covered, the largest error, the median standard error, and the largest error in standard errors.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dsmi_zoo.pipeline.measures import Estimate, diffusion_spectral_entropy
from dsmi_zoo.pipeline.measures.dse import operator
from dsmi_zoo.pipeline.measures.dse.lanczos import spectral_entropy_by_lanczos

Array = NDArray[np.float64]

TOLERANCE = 0.005
ALLOWED = 1e-6  # bits beyond two standard errors
TILE = 256  # points, so that a kernel of 600 has several tiles
WIDTH = 64


@dataclass(frozen=True)
class Case:
    """An embedding, the width of the kernel, and the diffusion time."""

    points: Array
    sigma: float = 8.0
    t: float = 1


def normal(n: int, seed: int = 0, d: int = WIDTH) -> Array:
    """Gaussian points [n, d]."""
    return np.random.default_rng([seed, n]).normal(size=(n, d))


def repeated(distinct: int, n: int) -> Array:
    """That many Gaussian points, each equally often."""
    return np.repeat(normal(distinct), n // distinct, axis=0)


def nearly_repeated(distinct: int, n: int) -> Array:
    """Points far apart, each several times within a millionth of sigma."""
    far = 100 * repeated(distinct, n)
    return far + 1e-6 * normal(len(far), 1)


def low_rank(n: int) -> Array:
    """Gaussian points of rank 4."""
    return normal(n, d=4) @ normal(4, 1) / 2


def two_clusters(n: int) -> Array:
    """Two clusters too far apart for the kernel."""
    Z = normal(n)
    Z[: n // 2] += 1e4
    return Z


def ReLU(n: int) -> Array:
    """Gaussian points cut off at 0."""
    return np.maximum(normal(n), 0)


CASES: dict[str, Callable[[int], Case]] = {
    "Gaussian": lambda n: Case(normal(n)),
    "Gaussian, t = 2": lambda n: Case(normal(n), t=2),
    "ReLU": lambda n: Case(ReLU(n)),
    "ReLU, scale 0.3": lambda n: Case(0.3 * ReLU(n)),
    "ReLU, scale 0.03": lambda n: Case(0.03 * ReLU(n)),
    "low rank": lambda n: Case(low_rank(n)),
    "far clusters": lambda n: Case(two_clusters(n)),
    "large sigma": lambda n: Case(normal(n), sigma=8e3),
    "small sigma": lambda n: Case(normal(n), sigma=1.5),
    "tiny sigma": lambda n: Case(normal(n), sigma=0.1),
    "2 points repeated": lambda n: Case(repeated(2, n)),
    "5 points repeated": lambda n: Case(repeated(5, n)),
    "40 points repeated": lambda n: Case(repeated(40, n)),
    "a third repeated": lambda n: Case(repeated(n // 3, n)),
    "a third repeated, scale 3": lambda n: Case(3 * repeated(n // 3, n)),
    "nearly repeated": lambda n: Case(nearly_repeated(40, n)),
    "nearly a third": lambda n: Case(nearly_repeated(n // 3, n)),
    "huge repeated": lambda n: Case(1e20 * repeated(40, n)),
    "huge repeated, t = 2": lambda n: Case(1e20 * repeated(40, n), t=2),
}
SIZES = (600, 1200, 2000)
PRECISIONS: tuple[Literal["float32", "float64"] | None, ...] = (None, "float32", "float64")
HELD_BYTES = operator.HELD_BYTES, 0
# Two threads are slower here.
SETTINGS = (
    *product(PRECISIONS, HELD_BYTES, (1,)),
    *product((None,), HELD_BYTES, (2,)),
)


def draws(case: Case, count: int) -> list[Estimate]:
    """Estimates of a case, each with a seed, an order of the points and a way of rounding of its own."""
    found = []
    for seed, (precision, held_bytes, threads) in zip(range(count), cycle(SETTINGS), strict=False):
        order = np.random.default_rng([seed, 1]).permutation(len(case.points))
        with threadpool_limits(threads, user_api="blas"):
            estimate = spectral_entropy_by_lanczos(
                case.points[order], case.sigma, case.t, TOLERANCE, seed, held_bytes, precision
            )
        found.append(estimate)
    return found


def report(name: str, case: Case, count: int) -> float:
    """Print a case's line; returns the share that is covered."""
    truth = diffusion_spectral_entropy(case.points, sigma=case.sigma, t=case.t, method="exact")
    found = draws(case, count)
    errors = np.array([abs(estimate.value - truth) for estimate in found])
    stated = np.array([estimate.standard_error for estimate in found])
    covered = float(np.mean(errors <= 2 * stated + ALLOWED))
    in_units = np.max(errors / np.maximum(stated, ALLOWED))
    print(
        f"{name:26} {len(case.points):5} {truth:9.5f} {covered:7.0%} {errors.max():10.1e} {np.median(stated):10.1e} "
        f"{in_units:8.1f}",
        flush=True,
    )
    return covered


def main() -> None:
    """Run the cases that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--draws", type=int, default=48)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(CASES)
    if unknown:
        parser.error(f"{unknown.pop()} is no case; the cases are {', '.join(CASES)}")
    operator._TILE = TILE
    print(
        f"{'case':26} {'n':>5} {'truth':>9} {'covered':>7} {'worst':>10} {'stated':>10} {'in units':>8}"
    )
    shares = [
        report(name, CASES[name](n), arguments.draws)
        for name in arguments.names or CASES
        for n in arguments.sizes
    ]
    print(f"lowest coverage {min(shares):.0%}, mean {np.mean(shares):.1%}")


if __name__ == "__main__":
    main()
