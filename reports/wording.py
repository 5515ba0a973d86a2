"""How names and numbers are put into words: titles of columns, rounded numbers, the page's lead."""

from collections.abc import Sequence
from typing import Any

from pipeline.measures.registry import COMPARISONS, DIAGNOSTICS, MEASURES
from reports.statistics import Correlation, Estimate, Summary

_REGISTERED = {m.name: m for m in (*MEASURES, *COMPARISONS, *DIAGNOSTICS)}
# With fewer units a percentile interval is known to be too short.
ROUGH_UNITS = 20
MISSING = "–"


def measure_title(name: str) -> str:
    """A measure's title; the user's own go by their column's name."""
    return _REGISTERED[name].title if name in _REGISTERED else name


def measure_unit(name: str) -> str:
    """A measure's unit, or "" where there is none or it is unknown."""
    return _REGISTERED[name].unit if name in _REGISTERED else ""


def target_title(name: str) -> str:
    """An accuracy's title: ``top1`` is "top-1 accuracy", ``real_top1`` is "real top-1 accuracy"."""
    return name.replace("top1", "top-1").replace("top5", "top-5").replace("_", " ") + " accuracy"


def with_unit(title: str, unit: str) -> str:
    """An axis label or column head."""
    return f"{title} ({unit})" if unit else title


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals and a true minus sign; a dash for what is undefined."""
    if value is None or value != value:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def significant(value: float | None, digits: int = 3) -> str:
    """A number of any scale to so many significant digits; a power of ten only where it is very large or small."""
    if value is None or value != value:
        return MISSING
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10**digits and abs(rounded) < 1e7:
        return f"{rounded:,.0f}".replace("-", "−")
    return f"{value:#.{digits}g}".removesuffix(".").replace("-", "−")


def p_value(p: float | None) -> str:
    """A p value; below 0.001 its size says no more."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else fixed(p, 3)


def interval(ci: Sequence[float] | None, digits: int = 2) -> str:
    """An interval in words."""
    return MISSING if ci is None else f"{fixed(ci[0], digits)} to {fixed(ci[1], digits)}"


def counted(n: int, noun: str) -> str:
    """A number and its noun: "1 model", "1,556 models"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(words: Sequence[str], shown: int = 6) -> str:
    """A, B and C; a long list ends in "and 12 more"."""
    words = [*words[:shown], f"{len(words) - shown} more"] if len(words) > shown + 1 else list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def lead(summary: Summary) -> list[str]:
    """What the run says, in one plain sentence, and the cautions that belong to it."""
    models = summary.models
    if not models["ok"]:
        return [f"None of the {counted(models['total'], 'model')} was measured, so there is nothing to correlate."]
    measured = f"{counted(models['ok'], 'model')} {'was' if models['ok'] == 1 else 'were'} measured"
    if not summary.correlations:
        return [f"{measured}, but no measure has a value, so there is nothing to correlate."]
    if not any(summary.correlations.values()):
        return [f"{measured}, but no accuracy is known, so nothing can be correlated; the measures stand below."]
    if summary.primary is None:
        return [f"{measured}, but DSMI(Z;Y) has no value; other measures stand below."]
    measure, target = summary.primary
    pooled = summary.correlations[measure][target]
    names = f"{measure_title(measure)} and {target_title(target)}"
    sentences = [_lead_sentence(pooled, names, summary.unit)]
    if pooled.pearson.value is not None:
        sentences += _within(summary, measure, target) + _largest(summary, measure, target)
    return sentences


def _lead_sentence(pooled: Correlation, names: str, unit: str) -> str:
    r = pooled.pearson
    if r.value is None:
        return f"The correlation of {names} is not computed, because {r.reason}."
    across = f"Across {counted(pooled.n, 'model')}, {names}"
    value = f"Pearson r = {fixed(r.value)}"
    if r.ci is None:
        return f"{across} correlate with {value}; how sure that is cannot be said ({r.reason})."
    units = counted(pooled.units, unit)
    if r.ci[0] <= 0 <= r.ci[1]:
        return (
            f"{across} show no clear correlation: {value}, and its 95% interval over {units}, "
            f"{interval(r.ci)}, includes 0."
        )
    rough = f"; with so few {unit}s the interval is rough" if pooled.units < ROUGH_UNITS else ""
    return f"{across} correlate with {value} (95% interval {interval(r.ci)} over {units}{rough})."


def _within(summary: Summary, measure: str, target: str) -> list[str]:
    found = [group.get(measure, {}).get(target) for group in summary.within_groups.values()]
    rs = [c.pearson for c in found if c is not None and c.pearson.value is not None]
    if not rs:
        return []
    low, high = (fixed(f(r.value for r in rs if r.value is not None)) for f in (min, max))
    unclear = sum(_unclear(r) for r in rs)
    caution = (
        ""
        if not unclear
        else f"; {'each' if unclear == len(rs) else f'{unclear} of the'} interval"
        + (" includes 0 or is undefined" if unclear in (1, len(rs)) else "s include 0 or are undefined")
    )
    return [f"Within its {counted(len(rs), 'group')} r is {low if low == high else f'{low} to {high}'}{caution}."]


def _unclear(r: Estimate) -> bool:
    return r.ci is None or r.ci[0] <= 0 <= r.ci[1]


def _largest(summary: Summary, measure: str, target: str) -> list[str]:
    ranked = ranked_measures(summary, target)
    best, r = ranked[0], summary.correlations[ranked[0]][target].pearson
    if best == measure or r.value is None:
        return [f"Of the {len(ranked)} measures it has the largest |r|."] if len(ranked) > 1 else []
    return [f"Of the {len(ranked)} measures {measure_title(best)} has the largest |r|: r = {fixed(r.value)}."]


def ranked_measures(summary: Summary, target: str) -> list[str]:
    """Measures by decreasing absolute Pearson correlation with a target; the undefined last."""

    def key(name: str) -> tuple[bool, float]:
        value = summary.correlations[name][target].pearson.value
        return value is None, -abs(value or 0)

    return sorted((m for m in summary.correlations if target in summary.correlations[m]), key=key)


def rivals(summary: Summary, target: str) -> list[str]:
    """The measures whose interval of |r| reaches the best one's: the data do not set them apart from it."""
    best, *rest = ranked_measures(summary, target) or [""]
    limits = {m: _absolute(summary.correlations[m][target].pearson) for m in (best, *rest) if m}
    top = limits.get(best)
    return [m for m in rest if top and (limit := limits[m]) and limit[1] >= top[0]]


def _absolute(r: Estimate) -> tuple[float, float] | None:
    if r.ci is None:
        return None
    low, high = sorted(map(abs, r.ci))
    return (0.0, high) if r.ci[0] <= 0 <= r.ci[1] else (low, high)


def reason(correlation: Any) -> str | None:
    """Why a correlation or regression, or its interval, is undefined."""
    return correlation.pearson.reason if isinstance(correlation, Correlation) else correlation.reason
