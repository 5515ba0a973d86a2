"""What the report says first: the answer, the primary correlation, and the cautions about it."""

from dsmi_zoo._util.text import counted

from ..statistics.correlation import Coefficient
from ..statistics.summary import Summary
from ..wording import fixed, interval, measure_title, target_title

FEW_UNITS = 20  # with fewer, a percentile interval is known to be too short
SIMPLE_SCORES = ("centre_accuracy", "neighbour_accuracy")


def lead(summary: Summary) -> list[str]:
    """Return the main result in one sentence, and the cautions about it."""
    models = summary.models
    if not models["ok"]:
        total = counted(models["total"], "model")
        return [f"None of the {total} was measured, so there is nothing to correlate."]
    measured = f"{counted(models['ok'], 'model')} {'was' if models['ok'] == 1 else 'were'} measured"
    if not summary.correlations:
        return [f"{measured}, but no measure has a value, so there is nothing to correlate."]
    if not any(summary.correlations.values()):
        return [
            f"{measured}, but no accuracy is known, so nothing can be correlated; the measures are below."
        ]
    if summary.primary is None:
        return [f"{measured}, but DSMI(Z;Y) has no value; other measures are below."]
    measure, target = summary.primary
    sentences = [_primary_sentence(summary, measure, target)]
    if summary.correlations[measure][target].spearman.value is not None:
        sentences += _simple_scores(summary, target) + _within_groups(summary, measure, target)
    return sentences


def _primary_sentence(summary: Summary, measure: str, target: str) -> str:
    names = f"{measure_title(measure)} and {target_title(target)}"
    primary = summary.correlations[measure][target]
    rho = primary.spearman
    if rho.value is None:
        return f"The correlation of {names} is not computed, because {rho.reason}."
    across = f"Across {counted(primary.n, 'model')}, "
    value = f"Spearman\N{RIGHT SINGLE QUOTATION MARK}s rho = {fixed(rho.value)}"
    if rho.ci is None:
        return f"{across}{names} correlate with {value}; its uncertainty is unknown ({rho.reason})."
    ci = f"95% interval {interval(rho.ci)}"
    units = counted(primary.units, summary.unit)
    if primary.units < FEW_UNITS:
        ci = f"{ci}, approximate: only {units}"
    elif primary.effective < FEW_UNITS:
        ci = f"{ci}, approximate: {units} of unequal sizes count as {primary.effective:.0f}"
    else:
        ci = f"{ci} over {units}"
    if rho.ci[0] <= 0 <= rho.ci[1]:
        return f"{across}{names} show no clear correlation ({value}, {ci}, includes 0)."
    return f"{across}{names} correlate with {value} ({ci})."


def answer(summary: Summary) -> str | None:
    """Return which score to use here and how far DSMI(Z;Y) trails it; None if scores cannot be ranked."""
    if summary.primary is None:
        return None
    measure, target = summary.primary
    standings = summary.standings.get(target)
    if standings is None or standings.best is None or standings.scores is None:
        return None
    of_all = counted(len(standings.scores), "score")
    if standings.best == measure:
        return f"Of {of_all}, none orders these models better than {measure_title(measure)}."
    rho = summary.correlations[standings.best][target].spearman
    best = (
        f"Of {of_all}, {measure_title(standings.best)} orders these models best: its "
        f"Spearman's rho with {target_title(target)} is {fixed(rho.value)} (95% interval {interval(rho.ci)})"
    )
    own = standings.scores.get(measure)
    if own is None:
        return f"{best}."
    is_clear = own.behind_best_ci[0] > 0
    so = "more than chance would explain" if is_clear else "so the gap may be chance"
    ci = f"simultaneous 95% interval {interval(own.behind_best_ci)}"
    return f"{best}. {measure_title(measure)} trails by {fixed(own.behind_best)} in |rho| ({ci}), {so}."


def _simple_scores(summary: Summary, target: str) -> list[str]:
    """Return the correlations of nearest centre and nearest neighbours, without the best score's."""
    known = []
    best = summary.standings[target].best if target in summary.standings else None
    for score in SIMPLE_SCORES:
        correlation = summary.correlations.get(score, {}).get(target)
        if score != best and correlation is not None and correlation.spearman.value is not None:
            known.append(f"{measure_title(score)}: rho = {fixed(correlation.spearman.value)}")
    return [f"{'; '.join(known)}."] if known else []


def _within_groups(summary: Summary, measure: str, target: str) -> list[str]:
    rhos: list[float] = []
    unclear = 0
    for by_measure in summary.within_groups.values():
        correlation = by_measure.get(measure, {}).get(target)
        if correlation is not None and correlation.spearman.value is not None:
            rhos.append(correlation.spearman.value)
            unclear += _is_unclear(correlation.spearman)
    if not rhos:
        return []
    low, high = fixed(min(rhos)), fixed(max(rhos))
    span = low if low == high else f"{low} to {high}"
    caution = ""
    if unclear == len(rhos):
        caution = "; each interval includes 0 or is undefined"
    elif unclear:
        verbs = "includes 0 or is" if unclear == 1 else "include 0 or are"
        caution = f"; {unclear} of the intervals {verbs} undefined"
    groups = counted(len(rhos), "group")
    return [f"Within the {groups}, rho of {measure_title(measure)} is {span}{caution}."]


def _is_unclear(rho: Coefficient) -> bool:
    return rho.ci is None or rho.ci[0] <= 0 <= rho.ci[1]
