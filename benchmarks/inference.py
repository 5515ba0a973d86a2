"""Error rates of the report's tests and coverage of its intervals, from simulated zoos whose truth is known.

    python benchmarks/inference.py clustered|coverage|differences|partial|choice

Prints a Markdown table: ``before`` is the method of earlier versions, reimplemented here; ``after`` is today's. The two
zoos are 16 families of 3 rows, and families of the same sizes as timm's, with one row for each set of weights. The
figure behind ± is the standard error of the simulation. The seed is always 0, so each call prints the same table.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.reports.statistics.bootstrap import (
    Resamples,
    SmallSample,
    influence_on_spearman,
    interval,
    small_sample,
)
from dsmi_zoo.reports.statistics.correlation import (
    Bootstraps,
    partial_correlation,
    resampled_partial,
)
from dsmi_zoo.reports.statistics.prediction import TOP_K, leave_one_family_out, regret
from dsmi_zoo.reports.statistics.regression import clustered_errors
from dsmi_zoo.reports.statistics.sample import effective_number
from dsmi_zoo.reports.statistics.standing import difference, simultaneous_reach, strength

Array = np.ndarray
LEVEL = 0.05
RESAMPLES = 400


def zoos() -> Iterator[tuple[str, Array]]:
    """Yield each zoo's name and the families of its rows, [n]."""
    yield "16 families of 3", np.repeat(np.arange(16), 3)
    first = {entry.model: entry.family for entry in load_models("imagenet-2025")}
    sizes = pd.Series(list(first.values())).value_counts().to_numpy()
    yield (
        f"timm's {len(sizes)} families of {sizes.min()} to {sizes.max()}",
        np.repeat(np.arange(len(sizes)), sizes),
    )


def noise(rng: np.random.Generator, family: Array, between: float, within: float) -> Array:
    """Return normal numbers [n] with these standard deviations between and within families."""
    return between * rng.normal(size=family.max() + 1)[family] + within * rng.normal(
        size=len(family)
    )


def share(hits: list[bool]) -> str:
    """Return the percentage of hits with the standard error of the simulation."""
    p = float(np.mean(hits))
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / len(hits)):.1f}"


def table(heads: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for cells in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(cells)} |", flush=True)


def clustered() -> None:
    """Print how often a true slope of 0 is rejected at the 5% level."""
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
                fit = OLS(y, design).fit(
                    cov_type="cluster", cov_kwds={"groups": family}, use_t=True
                )
                before.append(fit.pvalues[1] < LEVEL)
                cr2.append(clustered_errors(design, y, family, "CR2").p[1] < LEVEL)
                after.append(clustered_errors(design, y, family).p[1] < LEVEL)
            rows.append([name, kind, share(before), share(cr2), share(after)])
    heads = ["zoo", "the score varies", "before: CR1, G - 1 (%)", "CR2, Satterthwaite (%)"]
    table([*heads, "after: CR3, Satterthwaite (%)"], rows)


def correlated(
    rng: np.random.Generator, family: Array, rho: float, shared: float
) -> tuple[Array, Array, float]:
    """Return two columns [n] whose families share part of the variance, and the population's Spearman correlation."""
    mix = np.linalg.cholesky([[1, rho], [rho, 1]])
    families, rows = rng.normal(size=(2, family.max() + 1)), rng.normal(size=(2, len(family)))
    x, y = mix @ (np.sqrt(shared) * families[:, family] + np.sqrt(1 - shared) * rows)
    return x, y, 6 / np.pi * float(np.arcsin(rho / 2))


def coverage() -> None:
    """Print how often the 95% interval over families covers Spearman's correlation."""
    rows = []
    falling = np.repeat(np.arange(40), np.maximum(1, (40 / np.arange(1, 41)).astype(int)))
    mixed = np.repeat(np.arange(40), [10] * 10 + [1] * 30)
    for name, family in (
        *zoos(),
        ("10 families of 10, 30 of 1", mixed),
        ("40 families, the k-th of 40 / k", falling),
    ):
        drawn_by = Resamples.drawn(family, RESAMPLES, 0)
        earlier = SmallSample(1.0, max(effective_number(family) - 1, 1))
        for shared in (0.0, 0.4, 0.8):
            for rho in (0.0, 0.5, 0.8):
                rng = np.random.default_rng(0)
                before: list[bool] = []
                after: list[bool] = []
                for _ in range(1000 if len(family) < 200 else 600):
                    x, y, truth = correlated(rng, family, rho, shared)
                    value, drawn = stats.spearmanr(x, y)[0], drawn_by.spearman(x, y)
                    for small, held in (
                        (earlier, before),
                        (small_sample(family, influence_on_spearman(x, y)), after),
                    ):
                        ci = interval(value, drawn, small, len(x))[0]
                        held.append(ci is not None and ci[0] <= truth <= ci[1])
                rows.append([name, f"{shared:g}", f"{rho:g}", share(before), share(after)])
    table(["zoo", "variance between families", "rho", "before (%)", "after (%)"], rows)


def rivals(
    rng: np.random.Generator, family: Array, rhos: Sequence[float], alike: float, shared: float
) -> Array:
    """Return a target and scores that correlate with it at ``rhos``, [1 + scores, n]; their errors do at ``alike``."""

    def normal(columns: int) -> Array:
        families, rows = (
            rng.normal(size=(columns, family.max() + 1)),
            rng.normal(size=(columns, len(family))),
        )
        return np.asarray(np.sqrt(shared) * families[:, family] + np.sqrt(1 - shared) * rows)

    target, in_common, own = normal(1), normal(1), normal(len(rhos))
    error = np.sqrt(alike) * in_common + np.sqrt(1 - alike) * own
    rho = np.array(rhos)[:, None]
    return np.vstack([target, rho * target + np.sqrt(1 - rho**2) * error])


def earlier_difference(
    x: Array, base: Array, y: Array, family: Array, resamples: Resamples
) -> bool:
    """Return whether the earlier test, a t test of rho with the SD of its resamples, finds two scores different."""
    value = stats.spearmanr(x, y)[0] - stats.spearmanr(base, y)[0]
    error = np.std(resamples.spearman(x, y) - resamples.spearman(base, y), ddof=1)
    return bool(2 * stats.t.sf(abs(value) / error, effective_number(family) - 1) < LEVEL)


def differences() -> None:
    """Print how often equal and unequal scores are found different at 5%, then how often all ranks hold."""
    rows = []
    for name, family in zoos():
        drawn_by = Resamples.drawn(family, RESAMPLES, 0)
        for alike in (0.0, 0.7):
            for rhos in ((0.5, 0.5), (0.8, 0.8), (0.95, 0.95), (0.8, 0.9)):
                rng = np.random.default_rng(0)
                before, after = [], []
                for _ in range(1500 if len(family) < 200 else 300):
                    y, x, base = rivals(rng, family, rhos, alike, shared=0.6)
                    before.append(earlier_difference(x, base, y, family, drawn_by))
                    p = difference(x, base, y, family, drawn_by).p
                    after.append(p is not None and p < LEVEL)
                kind = "equal" if rhos[0] == rhos[1] else "power"
                rows.append(
                    [
                        name,
                        kind,
                        f"{rhos[0]:g}, {rhos[1]:g}",
                        f"{alike:g}",
                        share(before),
                        share(after),
                    ]
                )
    heads = ["zoo", "truth", "rho of both", "correlation of errors", "before: told apart (%)"]
    table([*heads, "after: told apart (%)"], rows)
    print()
    simultaneous()


def simultaneous() -> None:
    """Print how often simultaneous intervals hold: of all pairs, of the best found against the others, and of ranks."""
    rows = []
    zoo = {
        "8 equal": [0.7] * 8,
        "8 from 0 to 0.9": np.linspace(0, 0.9, 8).tolist(),
        "19 equal": [0.7] * 19,
    }
    for name, family in zoos():
        drawn_by = Resamples.drawn(family, RESAMPLES, 0)
        for kind, rhos in zoo.items():
            if len(rhos) > 8 and len(family) > 200:  # would take minutes
                continue
            rng = np.random.default_rng(0)
            truth = np.arctanh(6 / np.pi * np.arcsin(np.array(rhos) / 2))
            alone, pairs, best, ranks = [], [], [], []
            for _ in range(400 if len(family) < 200 else 150):
                y, *scores = rivals(rng, family, rhos, 0.3, shared=0.6)
                found = [strength(x, y, drawn_by) for x in scores]
                z = np.array([one.z for one in found])
                reach = simultaneous_reach(found, family)
                # z is that of |rho|, whatever the sign of the estimate, so the truth is that of |rho|, too.
                miss = np.abs(z[:, None] - z - (truth[:, None] - truth)) > reach
                first = int(np.argmax(z))
                pairs.append(not miss.any())
                best.append(not miss[first].any())
                second = difference(scores[first], scores[0 if first else 1], y, family, drawn_by)
                alone.append(second.p is not None and second.p >= LEVEL)
                surely = (z[:, None] - z > reach) & (truth[:, None] <= truth)
                ranks.append(not surely.any())
            one_by_one = share(alone) if len(set(rhos)) == 1 else ""
            rows.append([name, kind, one_by_one, share(best), share(pairs), share(ranks)])
    heads = [
        "zoo",
        "scores",
        "before: the best against one other, alone (%)",
        "after: the best against all (%)",
    ]
    table([*heads, "all pairs (%)", "all ranks (%)"], rows)


def partial() -> None:
    """Print how often a partial correlation of 0 is rejected at the 5% level."""
    rows = []
    for name, family in zoos():
        drawn_by, bootstraps = Resamples.drawn(family, RESAMPLES, 0), Bootstraps(RESAMPLES)
        for controls in (1, 2):
            for kind, between, within in (
                ("mostly between families", 1.0, 0.3),
                ("mostly within", 0.3, 1.0),
            ):
                rng = np.random.default_rng(0)
                before: list[bool] = []
                refitted: list[bool] = []
                after: list[bool] = []
                for _ in range(1500 if len(family) < 200 else 400):
                    given = np.column_stack(
                        [noise(rng, family, between, within) for _ in range(controls)]
                    )
                    x, y = (
                        given.sum(axis=1) + noise(rng, family, between, within) for _ in range(2)
                    )
                    design = np.column_stack([np.ones_like(x), given])
                    left_x, left_y = (
                        v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)
                    )
                    value = float(stats.pearsonr(left_x, left_y)[0])
                    small = small_sample(family, influence_on_spearman(left_x, left_y))
                    refitted_draws = resampled_partial(x, y, given, drawn_by.counts, family)
                    for drawn, hits in (
                        (drawn_by.pearson(left_x, left_y), before),
                        (refitted_draws, refitted),
                    ):
                        p = interval(value, drawn, small, len(x))[1]
                        hits.append(p is not None and p < LEVEL)
                    p = partial_correlation(x, y, given, family, bootstraps).pearson.p_families
                    after.append(p is not None and p < LEVEL)
                rows.append(
                    [name, str(controls), kind, share(before), share(refitted), share(after)]
                )
    heads = ["zoo", "controls", "all vary", "before: controls held fixed (%)", "refitted (%)"]
    table([*heads, "after: refitted, degrees counted (%)"], rows)


def choice() -> None:
    """Print how often intervals of regret and left-out R2 cover their mean over zoos with the same families."""
    rows = []
    for name, family in zoos():
        bootstraps = Bootstraps(RESAMPLES)
        for rho in (0.5, 0.8, 0.95):
            rng = np.random.default_rng(0)
            drawn = [
                correlated(rng, family, rho, 0.6)[:2]
                for _ in range(400 if len(family) < 200 else 100)
            ]
            lines = [leave_one_family_out(x, y, family, bootstraps) for x, y in drawn]
            lost = [regret(x, y, families=family, bootstraps=bootstraps) for x, y in drawn]
            cells = [held([one.r2 for one in lines], [one.r2_ci for one in lines])]
            for k in TOP_K:
                values = [one.lost[k] for one in lost if one.lost]
                cells.append(held(values, [one.lost_ci[k] for one in lost if one.lost_ci]))
            rows.append([name, f"{rho:g}", *cells])
    heads = ["zoo", "rho", "R2 left out (%)", *(f"regret of {k} (%)" for k in TOP_K)]
    table(heads, rows)


def held(found: Sequence[float | None], intervals: Sequence[tuple[float, float] | None]) -> str:
    """Return the percentage of intervals that cover the mean of the found values."""
    truth = float(np.mean([value for value in found if value is not None]))
    return share([ci is not None and ci[0] <= truth <= ci[1] for ci in intervals])


SIMULATIONS: dict[str, Callable[[], None]] = {
    "clustered": clustered,
    "coverage": coverage,
    "differences": differences,
    "partial": partial,
    "choice": choice,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("simulation", choices=SIMULATIONS)
    SIMULATIONS[parser.parse_args().simulation]()
