"""Claims and their three-way answer: "holds", "does not hold here" or "cannot tell", by a rule stated beforehand.

Each claim is about one number per seed. Its answer comes from the 95% interval of the mean over seeds (Student's t)
and a threshold, which stand beside the claim; nothing was adjusted after a look at the results. Where all seeds give
the same number there is no t, and fewer than 6 of them cannot tell (sign test).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

Answer = Literal["holds", "does not hold here", "cannot tell"]
Values = Sequence[float] | np.ndarray
LEVEL = 0.95
ALIKE = 1e-9  # seeds that differ by less do not differ


@dataclass(frozen=True)
class Claim:
    """One claim with its answer; ``statistic`` is the mean over seeds of ``what``, ``p`` tests it against ``rule``."""

    claim: str
    answer: Answer
    statistic: float | None
    ci: tuple[float, float] | None
    p: float | None
    seeds: int
    what: str
    rule: str

    def as_json(self) -> dict[str, Any]:
        """Plain values without NaN."""
        return {
            "claim": self.claim,
            "answer": self.answer,
            "statistic": self.statistic,
            "p": self.p,
            "seeds": self.seeds,
            "ci": self.ci,
            "what": self.what,
            "rule": self.rule,
        }


def above(claim: str, values: Values, threshold: float, what: str) -> Claim:
    """A claim that a number is above ``threshold``: holds if the whole interval is, does not if the whole is below."""
    rule = f"the 95% interval over seeds lies above {threshold:g}"
    return _decided(
        claim, values, threshold, what, rule, lambda low, high: (low > threshold, high < threshold)
    )


def below(claim: str, values: Values, threshold: float, what: str) -> Claim:
    """A claim that a number is below ``threshold``."""
    rule = f"the 95% interval over seeds lies below {threshold:g}"
    return _decided(
        claim, values, threshold, what, rule, lambda low, high: (high < threshold, low > threshold)
    )


def flat(claim: str, values: Values, margin: float, what: str) -> Claim:
    """A claim that a number is nearly 0: holds if the whole interval is within ``margin``, does not if it is outside.

    p is that of the number being 0.
    """
    rule = f"the 95% interval over seeds lies within {margin:g} of 0"

    def decide(low: float, high: float) -> tuple[bool, bool]:
        return -margin < low and high < margin, low > margin or high < -margin

    return _decided(claim, values, 0.0, what, rule, decide)


def different(claim: str, a: Values, b: Values, margin: float, what: str) -> Claim:
    """A claim that two sets of seeds differ: holds if the interval of the difference of means (Welch) excludes 0.

    It does not hold if that interval lies within ``margin`` of 0.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    rule = f"Welch's 95% interval of the difference excludes 0, and does not lie within {margin:g} of it"
    seeds = min(len(a), len(b))
    if seeds < 2:
        return Claim(
            claim, "cannot tell", None, None, None, seeds, what, f"{rule}; two seeds are the least"
        )
    difference = float(a.mean() - b.mean())
    if max(np.ptp(a), np.ptp(b)) < ALIKE:
        return Claim(
            claim, "cannot tell", difference, None, None, seeds, what, f"{rule}; seeds do not vary"
        )
    result = stats.ttest_ind(a, b, equal_var=False)
    limits = result.confidence_interval(LEVEL)
    ci, p = (float(limits.low), float(limits.high)), float(result.pvalue)
    answer: Answer = "cannot tell"
    if -margin < ci[0] and ci[1] < margin:
        answer = "does not hold here"
    elif ci[0] > 0 or ci[1] < 0:
        answer = "holds"
    return Claim(claim, answer, difference, ci, p, seeds, what, rule)


def undecided(claim: str, why: str, what: str) -> Claim:
    """A claim that nothing was measured for."""
    return Claim(claim, "cannot tell", None, None, None, 0, what, why)


def _decided(
    claim: str,
    values: Values,
    null: float,
    what: str,
    rule: str,
    decide: Callable[[float, float], tuple[bool, bool]],
) -> Claim:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Claim(
            claim,
            "cannot tell",
            None,
            None,
            None,
            len(values),
            what,
            f"{rule}; two seeds are the least",
        )
    mean = float(values.mean())
    # T is undefined; the sign test's p halves with every seed, 6 are the least to tell.
    if np.ptp(values) < ALIKE:
        ci, p = (mean, mean), (1.0 if abs(mean - null) < ALIKE else 2.0 ** (1 - len(values)))
        enough = 2.0 ** (1 - len(values)) < 1 - LEVEL
    else:
        result = stats.ttest_1samp(values, null)
        limits = result.confidence_interval(LEVEL)
        ci, p, enough = (float(limits.low), float(limits.high)), float(result.pvalue), True
    yes, no = decide(*ci)
    answer: Answer = (
        "cannot tell"
        if not enough
        else "holds"
        if yes
        else "does not hold here"
        if no
        else "cannot tell"
    )
    return Claim(claim, answer, mean, ci, p, len(values), what, rule)
