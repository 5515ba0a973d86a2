"""How far a score's order can be trusted: between models of similar accuracy, and without any one family."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .correlation import why_undefined
from .sample import families_of, scores_of, succeeded, values

GAPS = ((0.0, 1.0), (1.0, 3.0), (3.0, 10.0), (10.0, np.inf))
"""Differences of accuracy in points, the lower limit excluded: two equal models have no order."""
MOST_PAIRS = 200_000
FEWEST_PAIRS = 10


@dataclass(frozen=True)
class Fidelity:
    """How well one score orders models by accuracy.

    Attributes
    ----------
    right
        By gap in accuracy (``GAPS``): the share of pairs of models that the score orders right, an equal score counting
        half; the direction is that of its rho. None for fewer than ten pairs.
    rho, lowest, without
        Spearman's rho, the one of the least strength, in the same direction, with one family left out, and that family.
    """

    right: tuple[float | None, ...]
    rho: float
    lowest: float | None = None
    without: str | None = None


def fidelity(rows: pd.DataFrame, target: str) -> dict[str, Fidelity]:
    """Return the fidelity of each score that has a correlation with the target.

    Of more than 200,000 pairs of models a random choice is taken, seed 0.

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
    """Return the share of pairs in which a lead has the sign of the gap, for each band of its size."""
    right = (1 + np.sign(lead) * np.sign(gap)) / 2
    shares: list[float | None] = []
    for low, high in GAPS:
        of_band = right[(np.abs(gap) > low) & (np.abs(gap) <= high)]
        shares.append(float(of_band.mean()) if len(of_band) >= FEWEST_PAIRS else None)
    return tuple(shares)


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _weakest(x: np.ndarray, y: np.ndarray, families: np.ndarray) -> tuple[float | None, str | None]:
    """Return the lowest rho without one family, and that family; None with a single one, or too few rows."""
    found: dict[str, float] = {}
    for family in dict.fromkeys(families.tolist()):
        keep = families != family
        if why_undefined(x[keep], y[keep]) is None:
            found[str(family)] = _rho(x[keep], y[keep])
    if len(found) < 2:
        return None, None
    without = min(found, key=found.__getitem__)
    return found[without], without
