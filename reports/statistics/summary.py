"""All numbers of a report, computed from the rows of a run; undefined ones have a reason."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord

from .bootstrap import LEVEL, RESAMPLES, WEIGHTED_KENDALL_RESAMPLES
from .correlation import (
    Bootstraps,
    Correlation,
    correlations,
    correlations_within_groups,
    partial_correlations,
)
from .fidelity import Fidelity, Variant, fidelity, published, variants
from .prediction import Prediction, Regret, predictions, regrets
from .regression import SHOWN, Influence, Multiple, Regression, influences, multiple, regressions
from .sample import (
    CEILING,
    PRIMARY_MEASURE,
    PRIMARY_TARGET,
    effective_number,
    families_of,
    names,
    off_scale,
    one_row_per_weights,
    own_rows,
    succeeded,
    targets_of,
    texts,
    values,
)
from .standing import Difference, Standings, differences, standings


@dataclass(frozen=True)
class Summary:
    """All results of a report."""

    models: dict[str, int]
    primary: tuple[str, str] | None
    unit: str
    units: int
    effective: float
    sample: int
    correlations: dict[str, dict[str, Correlation]]
    differences: dict[str, Difference]
    standings: dict[str, Standings]
    within_groups: dict[str, dict[str, dict[str, Correlation]]]
    regression: dict[str, dict[str, Regression]]
    influences: list[Influence]
    multiple: Multiple | None
    partial: dict[str, dict[str, Correlation | str]]
    predictions: dict[str, Prediction]
    regrets: dict[str, dict[str, Regret]]
    fidelity: dict[str, Fidelity]
    robustness: list[Variant]
    published: dict[str, dict[str, float]]
    saturated: list[dict[str, Any]]
    off_scale: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    missing: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``summary.json``; other programs rely on ``models`` and ``correlations``."""
        content = asdict(self)
        if self.primary:
            content["primary"] = {"measure": self.primary[0], "target": self.primary[1]}
        content["influences"] = content["influences"][:SHOWN]
        content["resampling"] = {
            "unit": content.pop("unit"),
            "units": content.pop("units"),
            "effective": content.pop("effective"),
            "level": LEVEL,
            "resamples": RESAMPLES,
            "weighted_kendall_resamples": WEIGHTED_KENDALL_RESAMPLES,
        }
        return content


def summarise(rows: pd.DataFrame, run: RunRecord | None = None) -> Summary:
    """Compute all statistics of a run.

    Parameters
    ----------
    rows
        One row per entry, with the columns of ``dsmi_zoo.pipeline.store.schema``.
    run
        The content of ``run.json``, for the entries without a row and the name of the catalogue.
    """
    failed = rows[~rows.index.isin(succeeded(rows).index)]
    missing = missing_entries(rows, run.entries if run else ())
    rows = own_rows(rows)
    ok = succeeded(rows)
    sample = one_row_per_weights(rows)
    bootstraps = Bootstraps()
    pooled = correlations(sample, bootstraps)
    targets = targets_of(sample)
    target = PRIMARY_TARGET if PRIMARY_TARGET in targets else next(iter(targets), None)
    primary = (PRIMARY_MEASURE, target) if target and PRIMARY_MEASURE in pooled else None
    unit, families = families_of(sample)
    errors = zip(texts(failed, "error_type"), texts(failed, "error_message"), strict=True)
    failures = [
        {**name, "error_type": kind, "error_message": message}
        for name, (kind, message) in zip(names(failed), errors, strict=True)
    ]
    return Summary(
        models={
            "total": len(rows) + len(missing),
            "ok": len(ok),
            "failed": len(rows) - len(ok),
            "missing": len(missing),
        },
        primary=primary,
        unit=unit,
        units=int(families.nunique()),
        effective=effective_number(families),
        sample=len(sample),
        correlations=pooled,
        differences=differences(sample, primary[1], primary[0], bootstraps) if primary else {},
        standings=standings(sample, bootstraps),
        within_groups=correlations_within_groups(sample, bootstraps),
        regression=regressions(sample),
        influences=influences(sample, *primary) if primary else [],
        multiple=multiple(sample, primary[1]) if primary else None,
        partial=partial_correlations(sample, primary[1], bootstraps) if primary else {},
        predictions=predictions(sample, primary[1], bootstraps) if primary else {},
        regrets=regrets(sample, primary[1], bootstraps) if primary else {},
        fidelity=fidelity(sample, primary[1]) if primary else {},
        robustness=variants(rows, primary[1], bootstraps) if primary else [],
        published=published(run.catalog.name if run and not run.earlier_catalogs else None, target),
        saturated=names(ok[values(ok, "saturated") == 1]),
        off_scale=names(ok[off_scale(ok)]),
        failures=failures,
        missing=missing,
    )


def ranked_measures(summary: Summary, target: str) -> list[str]:
    """Return scores by decreasing absolute Spearman correlation with a target, undefined ones and the ceiling last."""

    def key(name: str) -> tuple[bool, bool, float]:
        value = summary.correlations[name][target].spearman.value
        return name == CEILING, value is None, -abs(value or 0)

    return sorted((m for m in summary.correlations if target in summary.correlations[m]), key=key)


def missing_entries(rows: pd.DataFrame, planned: Iterable[EntryRecord]) -> list[dict[str, Any]]:
    """Return the entries without a row, each {"model", "img_size"}."""
    there = {(e["model"], e["img_size"]) for e in names(rows)}
    missing = [entry for entry in planned if (entry.model, entry.img_size) not in there]
    return [{"model": entry.model, "img_size": entry.img_size} for entry in missing]
