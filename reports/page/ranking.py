"""The ranking of models on the page of one's own images: its table, and the lead in one sentence."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from ..statistics.ranking import COSTS, NAMED_TIES, Ranked, Ranking
from ..wording import fixed, significant, with_unit


def ranking_table(ranking: Ranking) -> dict[str, Any]:
    """Every model by its probe accuracy, in words: the heads of the costs, and ``rows``."""
    second = ranking.second.models if ranking.second is not None else ()
    return {
        "cost": _cost_head(ranking.cost),
        "second_cost": _cost_head(ranking.second.cost) if ranking.second is not None else "",
        "rows": [
            {
                "model": m.model,
                "size": fixed(m.img_size, 0),
                "accuracy": fixed(m.accuracy, 1),
                "ci": f"{fixed(m.low, 1)} to {fixed(m.high, 1)}",
                "dsmi": fixed(m.dsmi_z_y),
                "cost": significant(m.cost),
                "second_cost": significant(other.cost) if other is not None else "",
                "notes": ", ".join(_notes(m, other)),
            }
            for m, other in zip_longest(ranking.models, second)
        ],
    }


def _cost_head(cost: str | None) -> str:
    if cost is None:
        return ""
    title, unit, _ = COSTS[cost]
    return with_unit(title[:1].upper() + title[1:], unit)


def _notes(model: Ranked, by_second_cost: Ranked | None) -> Iterator[str]:
    if model.tied_for_first:
        yield "tied for first"
    if model.pareto:
        yield "Pareto front"
    if by_second_cost is not None and by_second_cost.pareto:
        yield "Pareto front on a CPU"


def ranking_lead(ranking: Ranking) -> str:
    """The ranking in one sentence."""
    if not ranking.models:
        return "No model has a probe accuracy."
    first, *tied = [m for m in ranking.models if m.tied_for_first]
    of = f"Of {len(ranking.models)} models, " if len(ranking.models) > 1 else "The one model, "
    at = "" if first.img_size is None else f" at {first.img_size} pixels"
    return (
        f"{of}{first.model}{at} has the highest cross-validated "
        f"probe accuracy, {fixed(first.accuracy, 1)}% ({fixed(first.low, 1)} to {fixed(first.high, 1)}); {_ties(tied)}."
    )


def _ties(tied: list[Ranked]) -> str:
    """Who is tied with the first, the best of them by name."""
    if not tied:
        return "no other is tied with it"
    parts = [model.model for model in tied[:NAMED_TIES]]
    if len(tied) > NAMED_TIES:
        parts.append(f"{len(tied) - NAMED_TIES} more")
    if len(parts) == 1:
        return f"{parts[0]} is tied with it"
    return f"{', '.join(parts[:-1])} and {parts[-1]} are tied with it"
