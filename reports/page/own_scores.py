"""Where the user's own scores stand: one sentence for each."""

from collections import Counter

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.measures.catalog import UNDEFINED, parted_reasons
from dsmi_zoo.pipeline.measures.own import column_of

from ..statistics.sample import own_scores, succeeded, texts, values
from ..statistics.summary import Summary
from ..wording import fixed, interval, target_title


def own_sentences(rows: pd.DataFrame, summary: Summary) -> list[str]:
    """Return for each own score its correlation with accuracy, its rank among all scores, and the rows without it.

    A score without a value in any row is only in the table of scores without one.
    """
    ok = succeeded(rows)
    without = own_without_value(rows)
    return [
        " ".join(filter(None, (_standing(ok, summary, name), _lacking(ok, name), _code(ok, name))))
        for name in own_scores(ok)
        if name not in without
    ]


def own_without_value(rows: pd.DataFrame) -> set[str]:
    """Return the own scores that have no value in any measured row."""
    ok = succeeded(rows)
    return {name for name in own_scores(ok) if not np.isfinite(values(ok, name)).any()}


def _standing(ok: pd.DataFrame, summary: Summary, name: str) -> str:
    by_target = summary.correlations.get(name, {})
    target = summary.primary[1] if summary.primary else next(iter(by_target), None)
    if target is None or target not in by_target:
        known = int(np.isfinite(values(ok, name)).sum())
        of = f"{known} of {counted(len(ok), 'value')}"
        return f"{name}: {of}; no accuracy is known to compare it with."
    rho = by_target[target].spearman
    if rho.value is None:
        return f"{name}: its correlation with {target_title(target)} is not computed: {rho.reason}."
    ci = f"95% interval {interval(rho.ci)}" if rho.ci else f"no interval: {rho.reason}"
    models = counted(by_target[target].n, "model")
    what = (
        f"{name}: Spearman's rho with {target_title(target)} = {fixed(rho.value)} ({ci}, {models})"
    )
    standings = summary.standings[target]
    standing = (standings.scores or {}).get(name)
    if standing is None:
        left_out = (standings.left_out or {}).get(name) or standings.reason
        return f"{what}; not ranked among the scores: {left_out}."
    low, high = standing.ranks
    of = counted(len(standings.scores or {}), "score")
    if (low, high) == (1, len(standings.scores or {})):
        return f"{what}, rank {standing.rank} of {of}, though any rank is plausible."
    span = "" if low == high else f" (simultaneous 95% range {low} to {high})"
    return f"{what}, rank {standing.rank}{span} of {of}."


_NOT_YET = "not computed there yet, which the command that added it does"


def _lacking(ok: pd.DataFrame, name: str) -> str:
    """Say how many rows have no value, and why."""
    numbers, reasons = values(ok, name), texts(ok, UNDEFINED)
    lacking = np.flatnonzero(~np.isfinite(numbers))
    if not len(lacking):
        return ""
    why = Counter(parted_reasons(reasons[i] or "").get(name, _NOT_YET) for i in lacking)
    (reason, _), *more = why.most_common()
    further = f" (and {counted(len(more), 'other reason')})" if more else ""
    return f"No value for {len(lacking)} of {counted(len(ok), 'model')}: {reason}{further}."


def _code(ok: pd.DataFrame, name: str) -> str:
    """Say if versions of the code mix, as after an interruption."""
    codes: set[str] = set()
    for text in texts(ok, "own_measures_code"):
        codes |= {code for code in (text or "").split() if column_of(code) == name}
    if len(codes) < 2:
        return ""
    return f"Rows are of {len(codes)} versions of its code: repeat the command that added it."
