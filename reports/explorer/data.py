"""The data of the explorer: facts and scores of each model, and the settings of the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dsmi_zoo._util.text import plural
from dsmi_zoo.pipeline.measures.catalog import COMPARISONS, MEASURES
from dsmi_zoo.pipeline.store.schema import target_unit

from ..statistics.bootstrap import LEVEL
from ..statistics.correlation import MIN_UNITS
from ..statistics.sample import (
    BASELINES,
    families_of,
    groups_of,
    names,
    one_row_per_weights,
    sign_of,
    texts,
    values,
)
from ..wording import target_title, with_unit

OURS = {
    *("params_m", "gmacs", "throughput", "cpu_throughput", "embedding_dim"),
    *(score.name for score in (*MEASURES, *COMPARISONS, *BASELINES)),
}
FACTS = {
    "family": "Family",
    "kind": "Kind",
    "group": "Group",
    "size": "Image size",
    "extra": "Extra pretraining data",
    "pretraining": "Pretraining",
    "license": "License of the weights",
}
CHOICES = ("family", "kind", "group", "size", "extra")
NUMBERS = ("params_m", "gmacs", "throughput", "cpu_throughput", "embedding_dim")
MIN_MARKER, MAX_MARKER = 6.0, 18.0  # pixels
MAX_MODELS = 100_000


@dataclass(frozen=True)
class ExplorerData:
    """Columns by key, each [n]; the choices of the filters; the columns of a download; the settings of the controls."""

    columns: Mapping[str, Any]
    choices: Mapping[str, list[str]]
    download: list[tuple[str, str]]
    settings: Mapping[str, Any]


def key_of(column: str) -> str:
    """Return the browser's name of a column; own measures get a prefix, because their names may be taken."""
    return column if column in OURS or target_unit(column) is not None else f"own {column}"


def with_target_unit(target: str) -> str:
    """Return an accuracy's title with its unit."""
    return with_unit(target_title(target), target_unit(target) or "")


def explorer_data(rows: pd.DataFrame, across: Sequence[str], up: Sequence[str]) -> ExplorerData:
    """Return the columns of the measured rows for an explorer of these axes."""
    facts = _facts(rows)
    numbers = []
    scores: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for name in dict.fromkeys((*across, *up, *NUMBERS)):
        score, error = values(rows, name), values(rows, f"{name}_se")
        if np.isfinite(score).any():
            numbers.append(name)
            scores[key_of(name)] = score
            if np.isfinite(error).any():
                errors[f"{key_of(name)} se"] = error.astype(np.float32)
    first = rows.index.isin(one_row_per_weights(rows).index)
    unit = pd.factorize(families_of(rows)[1])[0]
    columns = {
        **facts,
        **scores,
        **errors,
        "code": [text or "" for text in texts(rows, "loading_code")],
        "unit": unit.astype(np.int32),
        "first": first.astype(np.int32),
        **_drawn(rows),
    }
    hidden = {name for name in ("pretraining", "license") if not any(facts[name])}
    download = [(name, name) for name in facts if name not in hidden] + [
        (key_of(name), name) for name in numbers
    ]
    settings = {
        "falling": [key_of(name) for name in numbers if sign_of(name) < 0],
        "facts": {name: head for name, head in FACTS.items() if any(facts[name])},
        "unit": plural(families_of(rows)[0]),
        "leastUnits": MIN_UNITS,
        "student": _student_table(),
        "normal": _normal_table(),
    }
    return ExplorerData(columns, _choices(rows, facts), download, settings)


def _facts(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of each model: texts, and the image's size in pixels."""
    extra = {1.0: "yes", 0.0: "no"}

    def known_texts(name: str) -> list[str]:
        return [text or "" for text in texts(rows, name)]

    return {
        "model": [entry["model"] for entry in names(rows)],
        "size": values(rows, "img_size"),
        "family": known_texts("family"),
        "kind": known_texts("kind"),
        "group": known_texts("group"),
        "extra": [extra.get(value, "") for value in values(rows, "extra_data").tolist()],
        "pretraining": known_texts("pretraining"),
        "license": known_texts("license"),
        "flag": np.where(values(rows, "saturated") == 1, "saturated", "").tolist(),
    }


def _choices(rows: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values of each fact with several of them, to filter by."""
    sizes = facts["size"]
    choices = {name: sorted(set(facts[name]) - {""}) for name in ("family", "kind", "extra")}
    choices["group"] = groups_of(rows)
    choices["size"] = [f"{size:.0f}" for size in np.unique(sizes[np.isfinite(sizes)])]
    return {name: choices[name] for name in CHOICES if len(choices[name]) > 1}


def _drawn(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the size of each point, by parameters, and its opacity: pale if saturated."""
    size = values(rows, "params_m")
    scaled = np.log10(np.where(np.isfinite(size) & (size > 0), size, np.nan))
    span = np.nanmax(scaled) - np.nanmin(scaled) if np.isfinite(scaled).any() else 0.0
    share = (scaled - np.nanmin(scaled)) / span if span > 0 else np.full(len(rows), 0.4)
    pixels = np.nan_to_num(MIN_MARKER + (MAX_MARKER - MIN_MARKER) * share, nan=MIN_MARKER)
    alpha = np.where(values(rows, "saturated") == 1, 0.15, 0.7)
    return {"pixels": pixels.astype(np.float32), "alpha": alpha.astype(np.float32)}


def _student_table() -> list[list[float]]:
    """Return Student's t quantile of a 95% interval, by 1 over the degrees of freedom, for interpolation."""
    inverse = np.linspace(0, 1, 101)
    degrees = 1 / np.maximum(inverse, 1e-9)
    quantiles = stats.t.ppf(0.5 + LEVEL / 2, degrees)
    return [inverse.round(4).tolist(), quantiles.round(4).tolist()]


def _normal_table() -> list[list[float]]:
    """Return the normal quantile of k simultaneous comparisons at 0.95, by the logarithm of k, for interpolation."""
    count = np.geomspace(1, MAX_MODELS, 60)
    tail = (1 - LEVEL) / 2 / count
    quantiles = stats.norm.isf(tail)
    return [np.log(count).round(4).tolist(), quantiles.round(4).tolist()]
