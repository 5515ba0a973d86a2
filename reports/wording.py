"""Titles of columns, and numbers and intervals as text."""

from collections.abc import Sequence

from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, DIAGNOSTICS, MEASURES
from dsmi_zoo.pipeline.store.schema import is_accuracy

from .statistics.sample import BASELINES, CEILING, COSTS

_REGISTERED = {m.name: m for m in (*MEASURES, *COMPARISONS, *BASELINES, *DIAGNOSTICS)}
MISSING = "–"


def measure_title(name: str) -> str:
    """Return a measure's title; own measures are called by their column's name."""
    if name == CEILING:
        return "Subset top-1 (ceiling)"
    if name == "top1":  # as a score for another target
        return "Published top-1"
    return _REGISTERED[name].title if name in _REGISTERED else name


def measure_unit(name: str) -> str:
    """Return a measure's unit; "" without one."""
    return _REGISTERED[name].unit if name in _REGISTERED else ""


def target_title(name: str) -> str:
    """Return a target's title, such as "real top-1 accuracy" for ``real_top1``."""
    if not is_accuracy(name):
        return name.replace("_", " ")
    return name.replace("top1", "top-1").replace("top5", "top-5").replace("_", " ") + " accuracy"


def cost_title(name: str) -> str:
    """Return the title of a cost with its unit."""
    title, unit, _ = COSTS[name]
    return with_unit(title[:1].upper() + title[1:], unit)


def with_unit(title: str, unit: str) -> str:
    """Return a title with its unit in brackets, if it has one."""
    return f"{title} ({unit})" if unit else title


def fixed(value: float | None, digits: int = 2) -> str:
    """Return a number with ``digits`` decimals and a minus sign; a dash if undefined."""
    if value is None or value != value:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """Return a change with ``digits`` decimals and its sign, also where it is positive."""
    return f"{value:+.{digits}f}".replace("-", "−")


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits; as a power of ten only if very large or small."""
    if value is None or value != value:
        return MISSING
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10**digits and abs(rounded) < 1e7:
        return f"{rounded:,.0f}".replace("-", "−")
    return f"{value:#.{digits}g}".removesuffix(".").replace("-", "−")


def p_value(p: float | None) -> str:
    """Return a p value as text, ``< 0.001`` if it is smaller."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else fixed(p, 3)


def p_in_words(p: float) -> str:
    """Return a p value with its relation: ``= 0.012`` or ``< 0.001``."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def interval(ci: Sequence[float] | None, digits: int = 2) -> str:
    """Return an interval as text."""
    return MISSING if ci is None else f"{fixed(ci[0], digits)} to {fixed(ci[1], digits)}"


def significant_interval(ci: Sequence[float] | None) -> str:
    """Return an interval of any scale as text."""
    return f"{significant(ci[0])} to {significant(ci[1])}" if ci else MISSING
