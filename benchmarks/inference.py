"""How often the report's tests err, and its intervals hold: simulations of zoos whose truth is known.

    python benchmarks/inference.py clustered|coverage|differences|partial

Prints a Markdown table: before (the way of earlier versions, written out here) and after. Two zoos: 16 families of 3
rows, and families of the sizes that timm's have, one row for each set of weights. Behind ± is the simulation's own
standard error. The same seed (0) gives the same table.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

from dsmi_zoo.data_catalog import load_models
from dsmi_zoo.reports.clustered import clustered_errors
from dsmi_zoo.reports.intervals import Precision, influence_on_spearman, interval, precision
from dsmi_zoo.reports.resampling import Resamples
from dsmi_zoo.reports.sample import effective_number

Array = np.ndarray
LEVEL = 0.05
RESAMPLES = 400


def zoos() -> Iterator[tuple[str, Array]]:
    """Each zoo's name and its rows' families, [n]."""
    yield "16 families of 3", np.repeat(np.arange(16), 3)
    first = {entry.model: entry.family for entry in load_models("imagenet-2025")}
    sizes = pd.Series(list(first.values())).value_counts().to_numpy()
    yield f"timm's {len(sizes)} families of {sizes.min()} to {sizes.max()}", np.repeat(np.arange(len(sizes)), sizes)


def noise(rng: np.random.Generator, family: Array, between: float, within: float) -> Array:
    """Normal numbers [n] of which each family shares a part: standard deviations between families and within."""
    return between * rng.normal(size=family.max() + 1)[family] + within * rng.normal(size=len(family))


def share(hits: list[bool]) -> str:
    """A percentage with its simulation's standard error."""
    p = float(np.mean(hits))
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / len(hits)):.1f}"


def table(heads: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for cells in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(cells)} |", flush=True)


def clustered() -> None:
    """How often a slope of 0 is called another, at 5%."""
    rows = []
    for name, family in zoos():
        for kind, between, within in (
            ("between families only", 1.0, 0.0),
            ("mostly between", 1.0, 0.5),
            ("mostly within", 0.5, 1.0),
            ("within families only", 0.0, 1.0),
        ):
            rng = np.random.default_rng(0)
            before, cr2, after = [], [], []
            for _ in range(4000 if len(family) < 100 else 2000):
                x, y = noise(rng, family, between, within), noise(rng, family, 1.0, 0.5)
                design = np.column_stack([np.ones_like(x), x])
                fit = OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": family}, use_t=True)
                before.append(fit.pvalues[1] < LEVEL)
                cr2.append(clustered_errors(design, y, family, "CR2").p[1] < LEVEL)
                after.append(clustered_errors(design, y, family).p[1] < LEVEL)
            rows.append([name, kind, share(before), share(cr2), share(after)])
    heads = ["zoo", "the score varies", "before: CR1, G - 1 (%)", "CR2, Satterthwaite (%)"]
    table([*heads, "after: CR3, Satterthwaite (%)"], rows)


def correlated(rng: np.random.Generator, family: Array, rho: float, shared: float) -> tuple[Array, Array, float]:
    """Two columns [n] of which families share a part of the variance, and Spearman's correlation of all such rows."""
    mix = np.linalg.cholesky([[1, rho], [rho, 1]])
    families, rows = rng.normal(size=(2, family.max() + 1)), rng.normal(size=(2, len(family)))
    x, y = mix @ (np.sqrt(shared) * families[:, family] + np.sqrt(1 - shared) * rows)
    return x, y, 6 / np.pi * float(np.arcsin(rho / 2))


def coverage() -> None:
    """How often the families' interval at 95% holds Spearman's correlation."""
    rows = []
    falling = np.repeat(np.arange(40), np.maximum(1, (40 / np.arange(1, 41)).astype(int)))
    mixed = np.repeat(np.arange(40), [10] * 10 + [1] * 30)
    for name, family in (*zoos(), ("10 families of 10, 30 of 1", mixed), ("40 families, the k-th of 40 / k", falling)):
        drawn_by = Resamples(family, RESAMPLES, 0)
        earlier = Precision(1.0, max(effective_number(family) - 1, 1))
        for shared in (0.0, 0.4, 0.8):
            for rho in (0.0, 0.5, 0.8):
                rng = np.random.default_rng(0)
                before, after = [], []
                for _ in range(1000 if len(family) < 200 else 600):
                    x, y, truth = correlated(rng, family, rho, shared)
                    value, drawn = stats.spearmanr(x, y)[0], drawn_by.spearman(x, y)
                    for precise, held in ((earlier, before), (precision(family, influence_on_spearman(x, y)), after)):
                        ci = interval(value, drawn, precise, len(x))[0]
                        held.append(ci is not None and ci[0] <= truth <= ci[1])
                rows.append([name, f"{shared:g}", f"{rho:g}", share(before), share(after)])
    table(["zoo", "variance between families", "rho", "before (%)", "after (%)"], rows)


SIMULATIONS: dict[str, Callable[[], None]] = {"clustered": clustered, "coverage": coverage}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulation", choices=SIMULATIONS)
    SIMULATIONS[parser.parse_args().simulation]()
