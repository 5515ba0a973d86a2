"""The section of the choice page with the best models' times, by the device on which they were timed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dsmi_zoo._util.text import size_in_words
from dsmi_zoo.data_catalog.models.registry import published_speeds
from dsmi_zoo.pipeline.plan.cost import EAGER, EAGER_RANGE
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.timed import Mode, Passes, TimedRow, scan_timed

from ..statistics.ranking import Ranked, Ranking, rank
from ..statistics.sample import names, succeeded, texts
from ..wording import significant
from .classes import quantity_of
from .rendering import AnyCell, Table, table_of_words

PUBLISHED = ("Published, GPU", "Published, CPU")


def recommended(rows: pd.DataFrame, run: RunRecord, out: Path) -> list[str]:
    """Return the names of the best model and of those tied with it, as the page recommends them."""
    ranking = rank(rows, quantity_of(rows, run, out))
    return [f"{model.model}@{model.img_size}" for model in _best(ranking)]


def _best(ranking: Ranking) -> list[Ranked]:
    return ranking.best or list(ranking.models[:1])


def timed_context(
    rows: pd.DataFrame, run: RunRecord, ranking: Ranking, out: Path
) -> dict[str, Any] | None:
    """Return the template's variables: times of models by device, the best ones first; None if none was timed."""
    best = {(model.model, model.img_size) for model in _best(ranking)}
    places = {(model.model, model.img_size): n for n, model in enumerate(ranking.models)}
    found, unreadable = scan_timed(out, [one.slug for one in run.entries])
    if not found and not unreadable:
        return None
    times = sorted(
        (row for _, row in found),
        key=lambda row: places.get((row.model, row.img_size), len(places)),
    )
    networks = dict(
        zip(
            ((one["model"], one["img_size"]) for one in names(succeeded(rows))),
            texts(succeeded(rows), "architecture"),
            strict=True,
        )
    )
    by_place: dict[str, list[TimedRow]] = {}
    for row in times:
        by_place.setdefault(row.where, []).append(row)
    return {
        "tables": [_table(where, of_place, networks) for where, of_place in by_place.items()],
        "missing": len(best - {(row.model, row.img_size) for row in times}),
        "disturbed": [f"{row.model} ({row.others_share:.0%})" for row in times if row.is_disturbed],
        "unreadable": unreadable,
        "eager": EAGER,
        "range": EAGER_RANGE,
    }


def _table(where: str, times: Sequence[TimedRow], networks: Any) -> Table:
    rows: list[list[AnyCell]] = []
    for row in times:
        modes: list[tuple[str, Mode | None]] = [("eager", row.eager), ("compiled", row.compiled)]
        network = (networks.get((row.model, row.img_size)) or row.model).partition(".")[0]
        published = published_speeds().get((network, row.img_size), (None, None))
        for title, mode in modes:
            if mode is None:
                continue
            single, best = mode.single, mode.best
            rows.append(
                [
                    f"{row.model} at {row.img_size}, {title}",
                    (_milliseconds(single.median_s), _p95(single)),
                    (significant(best.rate), f"in batches of {best.batch}"),
                    size_in_words(single.memory),
                    size_in_words(best.memory),
                    *(significant(one) for one in published),
                ]
            )
    heads = [
        "Model",
        "One image (ms)",
        "Images/s",
        "Memory, one image",
        "Memory, batches",
        *PUBLISHED,
    ]
    refused = [f"{row.model}: {row.not_compiled}" for row in times if row.not_compiled]
    note = f"Not compiled: {'; '.join(refused)}." if refused else ""
    return table_of_words(where, heads, rows, note=note)


def _milliseconds(seconds: float) -> str:
    return significant(1e3 * seconds)


def _p95(passes: Passes) -> str:
    return "" if passes.p95_s is None else f"95%: {_milliseconds(passes.p95_s)}"
