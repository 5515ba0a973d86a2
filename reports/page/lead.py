"""What the report says first: the answer, the primary correlation, and the cautions that belong to it."""

from dsmi_zoo._util.text import counted

from ..statistics.correlation import Coefficient, Correlation
from ..statistics.summary import Summary
from ..wording import fixed, interval, measure_title, target_title

ROUGH_UNITS = 20  # with fewer, a percentile interval is known to be too short
# What needs no theory: nearest centre and neighbours.
SIMPLE = (
    "centre_accuracy",
    "neighbour_accuracy",
)


def lead(summary: Summary) -> list[str]:
    """What the run says, in one plain sentence, and the cautions that belong to it."""
    models = summary.models
    if not models["ok"]:
        return [
            f"None of the {counted(models['total'], 'model')} was measured, so there is nothing to correlate."
        ]
    measured = f"{counted(models['ok'], 'model')} {'was' if models['ok'] == 1 else 'were'} measured"
    if not summary.correlations:
        return [f"{measured}, but no measure has a value, so there is nothing to correlate."]
    if not any(summary.correlations.values()):
        return [
            f"{measured}, but no accuracy is known, so nothing can be correlated; the measures stand below."
        ]
    if summary.primary is None:
        return [f"{measured}, but DSMI(Z;Y) has no value; other measures stand below."]
    measure, target = summary.primary
    pooled = summary.correlations[measure][target]
    sentences = [_lead_sentence(summary, pooled)]
    if pooled.spearman.value is not None:
        sentences += _simple_scores(summary, target) + _within(summary, measure, target)
    return sentences


def _lead_sentence(summary: Summary, primary: Correlation) -> str:
    assert summary.primary is not None
    measure, target = summary.primary
    names = f"{measure_title(measure)} and {target_title(target)}"
    rho = primary.spearman
    if rho.value is None:
        return f"The correlation of {names} is not computed, because {rho.reason}."
    across = f"Across {counted(primary.n, 'model')}, "
    value = f"Spearman\N{RIGHT SINGLE QUOTATION MARK}s rho = {fixed(rho.value)}"
    if rho.ci is None:
        return f"{across}{names} correlate with {value}; how sure that is cannot be said ({rho.reason})."
    over = f"95% interval {interval(rho.ci)} over {counted(primary.units, summary.unit)}"
    rough = ", rough with so few" if primary.effective < ROUGH_UNITS else ""
    if rho.ci[0] <= 0 <= rho.ci[1]:
        own = f"{names} show no clear correlation ({value}, {over}{rough}, includes 0)"
    else:
        own = f"{names} correlate with {value} ({over}{rough})"
    return f"{across}{own}."


def answer(summary: Summary) -> str | None:
    """Which score to use here, and how far DSMI(Z;Y) is behind it; None where no score stands out of the others."""
    if summary.primary is None:
        return None
    measure, target = summary.primary
    standings = summary.standings.get(target)
    if standings is None or standings.best is None or standings.scores is None:
        return None
    if standings.best == measure:
        of_all = counted(len(standings.scores), "score")
        return f"Of {of_all} none orders these models better than {measure_title(measure)}."
    rho = summary.correlations[standings.best][target].spearman
    best = (
        f"Of {counted(len(standings.scores), 'score')}, {measure_title(standings.best)} orders these models best: its "
        f"Spearman's rho with {target_title(target)} is {fixed(rho.value)} (95% interval {interval(rho.ci)})"
    )
    own = standings.scores.get(measure)
    if own is None:
        return f"{best}."
    told = "more than chance would explain" if own.behind_best_ci[0] > 0 else "which may be chance"
    behind = f"{fixed(own.behind_best)} ({interval(own.behind_best_ci)}, simultaneous over all pairs of scores)"
    return f"{best}. {measure_title(measure)} is {behind} behind in |rho|, {told}."


def _simple_scores(summary: Summary, target: str) -> list[str]:
    """How nearest centre and nearest neighbours do, where the best of all is not told already."""
    known = []
    best = summary.standings[target].best if target in summary.standings else None
    for score in SIMPLE:
        if score == best:
            continue
        correlation = summary.correlations.get(score, {}).get(target)
        if correlation is not None and correlation.spearman.value is not None:
            known.append(f"{measure_title(score)}: rho = {fixed(correlation.spearman.value)}")
    return [f"{'; '.join(known)}."] if known else []


def _within(summary: Summary, measure: str, target: str) -> list[str]:
    correlations = [group.get(measure, {}).get(target) for group in summary.within_groups.values()]
    rhos = [c.spearman for c in correlations if c is not None and c.spearman.value is not None]
    if not rhos:
        return []
    rho_values = [rho.value for rho in rhos if rho.value is not None]
    low, high = fixed(min(rho_values)), fixed(max(rho_values))
    span = low if low == high else f"{low} to {high}"
    groups = counted(len(rhos), "group")
    caution = _caution(sum(_unclear(rho) for rho in rhos), len(rhos))
    return [f"Within its {groups} rho of {measure_title(measure)} is {span}{caution}."]


def _caution(unclear: int, groups: int) -> str:
    """How many of the groups' intervals say nothing; nothing if all do."""
    if not unclear:
        return ""
    if unclear == groups:
        return "; each interval includes 0 or is undefined"
    verbs = "includes 0 or is" if unclear == 1 else "include 0 or are"
    return f"; {unclear} of the intervals {verbs} undefined"


def _unclear(r: Coefficient) -> bool:
    return r.ci is None or r.ci[0] <= 0 <= r.ci[1]
