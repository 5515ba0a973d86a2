"""Reliability of a score's order: between similar models, without any one family, and on other subsets."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from .correlation import Bootstraps, Coefficient, correlate, why_undefined
from .sample import (
    PRIMARY_MEASURE,
    PRIMARY_TARGET,
    effective_number,
    families_of,
    off_scale,
    one_row_per_weights,
    scores_of,
    succeeded,
    texts,
    values,
)

GAPS = ((0.0, 1.0), (1.0, 3.0), (3.0, 10.0), (10.0, np.inf))
"""Differences of accuracy in points, the lower limit excluded: two equal models have no order."""
MOST_PAIRS = 200_000
FEWEST_PAIRS = 10
Part = tuple[str, pd.DataFrame, np.ndarray]
"""The name, rows and measure of a variant."""

MIN_M = 1.0  # million parameters; smaller models are toys for tests
MIN_ROWS_OF_VARIANT = 10  # rows of a variant
SIZES = (
    (0, 224, "up to 224 pixels"),
    (225, 320, "225 to 320 pixels"),
    (321, np.inf, "above 320 pixels"),
)

# Liao et al. (arXiv 2312.04823), on ImageNet's validation images, by the authors' own script.
PUBLISHED = {
    "dsmi_z_y": {"pearson": 0.216, "spearman": 0.144},
    "dsmi_z_x": {"pearson": 0.076, "spearman": 0.008},
    "dse_z": {"pearson": 0.002, "spearman": -0.014},
}


@dataclass(frozen=True)
class Fidelity:
    """The agreement of one score's order of models with their order by accuracy.

    Attributes
    ----------
    right
        By gap in accuracy (``GAPS``): the share of pairs of models that the score orders right, an equal score counting
        half; the direction is that of its rho. None for fewer than ten pairs.
    rho, lowest, without
        Spearman's rho; the weakest rho, in the same direction, with one family left out; and that family.
    """

    right: tuple[float | None, ...]
    rho: float
    lowest: float | None = None
    without: str | None = None


def fidelity(rows: pd.DataFrame, target: str) -> dict[str, Fidelity]:
    """Return the fidelity of each score that has a correlation with the target.

    Beyond 200,000 pairs of models, that many are drawn at random (seed 0).

    References
    ----------
    The question of arXiv 2510.06448: do transferability scores tell similar models apart?
    """
    rows = succeeded(rows)
    families = families_of(rows)[1].to_numpy(dtype=object)
    y = values(rows, target)
    first, second = _pairs(len(rows))
    found = {}
    for score in scores_of(rows):
        x = values(rows, score)
        known = np.isfinite(x) & np.isfinite(y)
        if why_undefined(x[known], y[known]) is not None:
            continue
        rho = _rho(x[known], y[known])
        sign = -1.0 if rho < 0 else 1.0
        both = known[first] & known[second]
        i, j = first[both], second[both]
        right = _ordered_right(sign * (x[i] - x[j]), y[i] - y[j])
        lowest, without = _weakest(sign * x[known], y[known], families[known])
        found[score] = Fidelity(right, rho, None if lowest is None else sign * lowest, without)
    return found


def _pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    if n * (n - 1) // 2 <= MOST_PAIRS:
        first, second = np.triu_indices(n, k=1)
        return first, second
    rng = np.random.default_rng(0)
    first = rng.integers(n, size=MOST_PAIRS)
    return first, (first + rng.integers(1, n, size=MOST_PAIRS)) % n


def _ordered_right(lead: np.ndarray, gap: np.ndarray) -> tuple[float | None, ...]:
    """Return the share of pairs in which the lead has the sign of the gap, for each band of gaps."""
    right = (1 + np.sign(lead) * np.sign(gap)) / 2
    shares: list[float | None] = []
    for low, high in GAPS:
        of_band = right[(np.abs(gap) > low) & (np.abs(gap) <= high)]
        shares.append(float(of_band.mean()) if len(of_band) >= FEWEST_PAIRS else None)
    return tuple(shares)


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _weakest(x: np.ndarray, y: np.ndarray, families: np.ndarray) -> tuple[float | None, str | None]:
    """Return the lowest rho without one family, and that family; None for a single family or too few rows."""
    unit, names = pd.factorize(families)
    there = unit != np.arange(len(names))[:, None]
    rank_x, rank_y = (_centred_ranks(numbers, unit, there) for numbers in (x, y))
    length = np.sqrt((rank_x**2).sum(axis=1) * (rank_y**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        rho = (rank_x * rank_y).sum(axis=1) / length
    found = {
        str(family): float(rho[i])
        for i, family in enumerate(names)
        if why_undefined(x[there[i]], y[there[i]]) is None
    }
    if len(found) < 2:
        return None, None
    without = min(found, key=found.__getitem__)
    return found[without], without


def _centred_ranks(x: np.ndarray, unit: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the centred ranks of x [n] with each family left out in turn: [g, n], 0 for the rows left out."""
    value = np.unique(x, return_inverse=True)[1]
    of_family = np.zeros((len(there), int(value.max(initial=-1)) + 1))
    np.add.at(of_family, (unit, value), 1)
    left = of_family.sum(axis=0) - of_family
    ranks = (left.cumsum(axis=1) - left / 2 - left.sum(axis=1, keepdims=True) / 2)[:, value]
    return ranks * there


@dataclass(frozen=True)
class Variant:
    """Spearman's correlation of the primary measure with a target on some of the rows."""

    name: str
    n: int
    families: int
    effective: float
    spearman: Coefficient


def variants(rows: pd.DataFrame, target: str, bootstraps: Bootstraps) -> list[Variant]:
    """Compute the primary correlation on every variant of the sample.

    Parameters
    ----------
    rows
        All rows of a run; the primary sample is the first variant.
    """
    primary, unit = one_row_per_weights(rows), families_of(succeeded(rows))[1]
    found = []
    for name, part, column in _samples(rows, primary, target):
        families = unit.loc[part.index]
        c = correlate(column, values(part, target), families, bootstraps, full=False)
        found.append(Variant(name, c.n, c.units, effective_number(families), c.spearman))
    return found


def _samples(rows: pd.DataFrame, primary: pd.DataFrame, target: str) -> Iterator[Part]:
    measure = values(primary, PRIMARY_MEASURE)
    yield "one row per set of weights (primary)", primary, measure
    everything = succeeded(rows)
    if len(everything) > len(primary):
        yield "all image sizes of each model", everything, values(everything, PRIMARY_MEASURE)
    null = values(primary, "dsmi_z_y_null")
    if np.isfinite(null).any():
        yield "DSMI(Z;Y) minus its permutation null", primary, measure - null
    for name, keep in _row_filters(primary, target):
        if 0 < keep.sum() < len(primary):
            yield name, primary[keep], measure[keep]


def _row_filters(primary: pd.DataFrame, target: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each choice of rows, and which rows it keeps, bool [n]."""
    yield "without rows whose scale sigma does not fit", ~off_scale(primary)
    yield "without extra pretraining data", values(primary, "extra_data") != 1
    is_small = values(primary, "params_m") < MIN_M
    architectures = [text or "" for text in texts(primary, "architecture")]
    is_toy = np.array([name.startswith("test_") for name in architectures], dtype=bool)
    yield "without test_* and models under 1 M parameters", ~(is_small | is_toy)
    kinds = np.array(texts(primary, "kind"), dtype=object)
    for kind in sorted({k for k in kinds if k is not None}):
        if (kinds == kind).sum() >= MIN_ROWS_OF_VARIANT:
            yield f"{kind} only", kinds == kind
    size = values(primary, "img_size")
    for low, high, name in SIZES:
        inside = (size >= low) & (size <= high)
        if inside.sum() >= MIN_ROWS_OF_VARIANT:
            yield name, inside
    yield from _extreme_tags(primary, target)


def _extreme_tags(primary: pd.DataFrame, target: str) -> Iterator[tuple[str, np.ndarray]]:
    """Leave out each pretraining tag in turn, and yield the filters of the lowest and the highest correlation."""
    tags = np.array(texts(primary, "pretraining"), dtype=object)
    x, y = values(primary, PRIMARY_MEASURE), values(primary, target)
    known = np.isfinite(x) & np.isfinite(y)
    rho_without: dict[str, float] = {}
    for tag in sorted({t for t in tags if t is not None}):
        keep = known & (tags != tag)
        if (tags == tag).sum() >= MIN_ROWS_OF_VARIANT and why_undefined(x[keep], y[keep]) is None:
            rho_without[tag] = float(spearmanr(x[keep], y[keep]).statistic)
    if rho_without:
        lowest = min(rho_without, key=rho_without.__getitem__)
        highest = max(rho_without, key=rho_without.__getitem__)
        in_turn = f"of {len(rho_without)} left out in turn"
        yield f"without the pretraining {lowest} (lowest rho {in_turn})", tags != lowest
        yield f"without the pretraining {highest} (highest rho {in_turn})", tags != highest


def published(catalog: str | None, target: str | None) -> dict[str, dict[str, float]]:
    """Return the paper's own correlations, if this run is comparable: on its table of models and top-1 accuracy."""
    return PUBLISHED if catalog == "imagenet-2023" and target == PRIMARY_TARGET else {}
