"""How names and numbers are put into words: titles of columns, rounded numbers, intervals."""

import math
from collections.abc import Sequence

from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, DIAGNOSTICS, MEASURES
from dsmi_zoo.pipeline.store.schema import is_accuracy

from .statistics.sample import BASELINES, CEILING

_REGISTERED = {m.name: m for m in (*MEASURES, *COMPARISONS, *BASELINES, *DIAGNOSTICS)}
MISSING = "–"


def measure_title(name: str) -> str:
    """A measure's title; the user's own go by their column's name."""
    if name == CEILING:
        return "Subset top-1 (ceiling)"
    if name == "top1":  # the score that published accuracy is for another target
        return "Published top-1"
    return _REGISTERED[name].title if name in _REGISTERED else name


def measure_unit(name: str) -> str:
    """A measure's unit, or "" where there is none or it is unknown."""
    return _REGISTERED[name].unit if name in _REGISTERED else ""


def target_title(name: str) -> str:
    """A target's title: ``real_top1`` is "real top-1 accuracy", ``r_effective_robustness`` "r effective robustness"."""
    if not is_accuracy(name):
        return name.replace("_", " ")
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


def significant_interval(ci: Sequence[float] | None) -> str:
    """An interval of any scale in words."""
    return f"{significant(ci[0])} to {significant(ci[1])}" if ci else MISSING


def give_or_take(error: float, digits: int) -> str:
    """A standard error behind its value; nothing where there is none."""
    return f" ± {fixed(error, digits)}" if math.isfinite(error) else ""
