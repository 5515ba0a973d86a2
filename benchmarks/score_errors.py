"""Compare every score's standard error over images with its actual spread over fresh images.

    python benchmarks/score_errors.py                        five distributions, 40 draws of each: about ten minutes
    python benchmarks/score_errors.py overlapping --draws 100

A draw is 300 new points of 10 classes. For each score the table has the median over draws of its standard error,
divided by the standard deviation of the score itself over the draws. 1 is right; with 40 draws the denominator alone
is uncertain by 11%. A score that is the same in every draw (an accuracy of 100%) has no ratio.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import dsmi_zoo

Array = NDArray[np.float64]
Draw = tuple[Array, NDArray[np.int64]]

CLASSES, PER_CLASS, WIDTH = 10, 30, 64
CENTRES = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))


def mixture(rng: np.random.Generator, spread: float) -> Draw:
    """Return Gaussian classes around fixed centres."""
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    return CENTRES[labels] + spread * rng.normal(size=(len(labels), WIDTH)), labels


def separate(rng: np.random.Generator) -> Draw:
    """Return classes that hardly touch."""
    return mixture(rng, 1.5)


def overlapping(rng: np.random.Generator) -> Draw:
    """Return classes with much overlap."""
    return mixture(rng, 4)


def rectified(rng: np.random.Generator) -> Draw:
    """Return overlapping classes after a ReLU, as in convolutional networks."""
    points, labels = mixture(rng, 3)
    return np.maximum(points, 0), labels


def heavy_tailed(rng: np.random.Generator) -> Draw:
    """Return overlapping classes that spread as a multivariate Student's t with 4 degrees of freedom."""
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    lengths = np.sqrt(4 / rng.chisquare(4, size=(len(labels), 1)))
    return CENTRES[labels] + 2 * lengths * rng.normal(size=(len(labels), WIDTH)), labels


def low_dimensional(rng: np.random.Generator) -> Draw:
    """Return classes that spread along 5 directions, and slightly along all."""
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    directions = np.random.default_rng(1).normal(size=(5, WIDTH))
    along = 1.5 * rng.normal(size=(len(labels), 5)) @ directions
    return CENTRES[labels] + along + 0.3 * rng.normal(size=(len(labels), WIDTH)), labels


CASES: dict[str, Callable[[np.random.Generator], Draw]] = {
    case.__name__: case
    for case in (separate, overlapping, rectified, heavy_tailed, low_dimensional)
}


def ratios(case: Callable[[np.random.Generator], Draw], draws: int) -> pd.Series:
    """Return the median standard error divided by the actual spread, by score; NaN for a constant score."""
    found = []
    for seed in range(draws):
        points, labels = case(np.random.default_rng([2, seed]))
        found.append(dsmi_zoo.measure(points.astype(np.float32), labels))
        print(f"{case.__name__}: {seed + 1} of {draws}", end="\r", file=sys.stderr, flush=True)
    measured = pd.DataFrame(found).apply(pd.to_numeric, errors="coerce")
    errors = [name for name in measured if name.endswith("_se")]
    spread = measured[[name.removesuffix("_se") for name in errors]].std().to_numpy()
    stated = measured[errors].median().to_numpy()
    known = np.where(spread > 1e-9, spread, np.nan)
    return pd.Series(
        stated / known, [name.removesuffix("_se") for name in errors], name=case.__name__
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case is called {sorted(unknown)[0]}; there are {', '.join(CASES)}")
    table = pd.concat(
        [ratios(CASES[name], arguments.draws) for name in arguments.cases or CASES], axis=1
    )
    print(table.dropna(how="all").round(2).to_string(na_rep=""))


if __name__ == "__main__":
    main()
