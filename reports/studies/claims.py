"""Claims and their three-way answer: "holds", "does not hold here" or "cannot tell", by a rule stated beforehand.

Each claim is about one number per seed. The 95% interval of the mean over seeds (Student's t) is compared with a
threshold that is stated beside the claim; nothing was adjusted after a look at the results. If all seeds give the same
number there is no t, and fewer than 6 seeds cannot tell (sign test).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Answer = Literal["holds", "does not hold here", "cannot tell"]
Values = Sequence[float] | np.ndarray
LEVEL = 0.95
ALIKE = 1e-9  # smaller differences between seeds are rounding


@dataclass(frozen=True)
class Claim:
    """A claim and its answer; ``statistic`` is the mean over seeds of ``what``, ``p`` tests it against ``rule``."""

    claim: str
    answer: Answer
    statistic: float | None
    ci: tuple[float, float] | None
    p: float | None
    seeds: int
    what: str
    rule: str


def above(claim: str, values: Values, threshold: float, what: str) -> Claim:
    """Decide the claim that a number is above ``threshold``."""
    rule = f"the 95% interval over seeds is above {threshold:g}"
    return _decided(claim, values, threshold, (threshold, np.inf), what, rule)


def below(claim: str, values: Values, threshold: float, what: str) -> Claim:
    """Decide the claim that a number is below ``threshold``."""
    rule = f"the 95% interval over seeds is below {threshold:g}"
    return _decided(claim, values, threshold, (-np.inf, threshold), what, rule)


def flat(claim: str, values: Values, margin: float, what: str) -> Claim:
    """Decide the claim that a number is within ``margin`` of 0; p tests whether it is 0."""
    rule = f"the 95% interval over seeds is within {margin:g} of 0"
    return _decided(claim, values, 0.0, (-margin, margin), what, rule)


def different(claim: str, a: Values, b: Values, margin: float, what: str) -> Claim:
    """Decide the claim that two sets of seeds differ: it holds if Welch's interval of the difference excludes 0.

    It does not hold if that interval is within ``margin`` of 0.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    rule = f"Welch's 95% interval of the difference excludes 0, and is not within {margin:g} of it"
    seeds = min(len(a), len(b))
    if seeds < 2:
        return undecided(claim, f"{rule}; two seeds are the least", what, seeds)
    difference = float(a.mean() - b.mean())
    if max(np.ptp(a), np.ptp(b)) < ALIKE:
        return undecided(claim, f"{rule}; seeds do not vary", what, seeds, difference)
    result = stats.ttest_ind(a, b, equal_var=False)
    limits = result.confidence_interval(LEVEL)
    ci, p = (float(limits.low), float(limits.high)), float(result.pvalue)
    answer: Answer = "cannot tell"
    if -margin < ci[0] and ci[1] < margin:
        answer = "does not hold here"
    elif ci[0] > 0 or ci[1] < 0:
        answer = "holds"
    return Claim(claim, answer, difference, ci, p, seeds, what, rule)


def undecided(
    claim: str, why: str, what: str, seeds: int = 0, statistic: float | None = None
) -> Claim:
    """Return a claim that the data cannot decide."""
    return Claim(claim, "cannot tell", statistic, None, None, seeds, what, why)


def _decided(
    claim: str, values: Values, null: float, inside: tuple[float, float], what: str, rule: str
) -> Claim:
    """Decide the claim that a number is ``inside`` two bounds; p tests whether it is ``null``."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    seeds = len(values)
    if seeds < 2:
        return undecided(claim, f"{rule}; two seeds are the least", what, seeds)
    mean = float(values.mean())
    is_enough = True
    if np.ptp(values) < ALIKE:
        # Student's t is undefined; the p value of the sign test halves with every seed.
        sign_test = 2.0 ** (1 - seeds)
        ci, p = (mean, mean), (1.0 if abs(mean - null) < ALIKE else sign_test)
        is_enough = sign_test < 1 - LEVEL
    else:
        result = stats.ttest_1samp(values, null)
        limits = result.confidence_interval(LEVEL)
        ci, p = (float(limits.low), float(limits.high)), float(result.pvalue)
    answer: Answer = "cannot tell"
    if is_enough and inside[0] < ci[0] and ci[1] < inside[1]:
        answer = "holds"
    elif is_enough and (ci[1] < inside[0] or ci[0] > inside[1]):
        answer = "does not hold here"
    return Claim(claim, answer, mean, ci, p, seeds, what, rule)
