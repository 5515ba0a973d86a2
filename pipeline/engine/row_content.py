"""What stands in a row: the catalogue's facts, the settings, and the measures."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.user_code import NOT_AS_PLANNED
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..config.run import MeasureSettings, RunConfig
from ..measures.catalog import BY_NAME
from ..measures.core.estimate import method_for, precision_for
from ..measures.own import load_measure
from ..measures.run import measured
from ..plan.identity import measures_identity, row_identity
from ..plan.plan import Job
from ..store.schema import COLUMNS


@dataclass(frozen=True)
class RemeasureJob:
    """One kept embedding that is measured anew: the source's row, and where its embedding stands."""

    source: dict[str, Any]
    slug: str
    row_id: str
    embedding: Path

    @property
    def name(self) -> str:
        """The entry's name."""
        return f"{self.source['model']}@{self.source['img_size']}"

    @property
    def order(self) -> float:
        """Sorts the widest embeddings first."""
        return -float(self.source["embedding_dim"])


def measure_row(
    row: dict[str, Any], embedding: np.ndarray, subset: pd.DataFrame, settings: MeasureSettings
) -> None:
    """Fill in the measures of an embedding, float [n, d], on the subset that it was taken of."""
    started = perf_counter()
    labels = subset["label"].to_numpy()
    if settings.own and row["row_id"] != row_identity(
        row["embedding_id"], measures_identity(settings, len(labels))
    ):
        raise InputError(f"the module of {' or of '.join(settings.own)} {NOT_AS_PLANNED}")
    row.update(
        n_samples=len(labels), n_classes=len(np.unique(labels)), embedding_dim=embedding.shape[1]
    )
    row["sigma"] = settings.sigma_for(embedding.shape[1])
    clusters, images = subset["input_cluster"].to_numpy(), subset["number"].to_numpy()
    row["measure_method"] = method_for(settings.method, len(labels))
    row["measure_precision"] = precision_for(settings.precision, len(labels), settings.t)
    row.update(measured(embedding, labels, images, clusters, settings))
    measures = [load_measure(spec) for spec in settings.own]
    with _torchs_defaults_kept():
        row.update({measure.name: measure.value(embedding, labels) for measure in measures})
    row["own_measures"] = " ".join(measure.name for measure in measures)
    row["seconds_measure"] = perf_counter() - started


def _torchs_defaults_kept() -> AbstractContextManager[object]:
    """What a measure changes of torch's defaults does not reach the next model; nothing, where torch is not loaded."""
    if "torch" not in sys.modules:
        return nullcontext()
    from ..networks.forward import defaults_kept

    return defaults_kept()


def facts(entry: ModelEntry) -> dict[str, Any]:
    """What the catalogue says of an entry, as it stands in the row."""
    names = (
        *("model", "architecture", "family", "kind", "pretraining", "extra_data", "license"),
        *("builder", "layer", "img_size", "group", "top1", "top5", "params_m"),
    )
    return {**{name: getattr(entry, name) for name in names}, **entry.extras}


def with_current_facts(row: dict[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """A finished row with what the catalogue says today; what only the run could find out stays."""
    current = facts(entry)
    for name in ("top1", "params_m"):
        if current[name] is None and (name == "params_m" or entry.recipe is not None):
            current[name] = row[name]
    ours = {column.name for column in COLUMNS} | set(row["own_measures"].split())
    return {name: value for name, value in row.items() if name in ours} | current


def begun_row(job: Job, config: RunConfig, subset_digest: str) -> dict[str, Any]:
    """What is known of an entry's row before its model is built."""
    return {
        **facts(job.entry),
        "random_weights": config.random_weights,
        **_settings(config.measures),
        "dataset": config.subset.dataset,
        "precision": config.precision,
        "embedding_id": job.embedding_id,
        "row_id": job.row_id,
        "subset_hash": subset_digest,
    }


def carried_row(job: RemeasureJob, config: RunConfig) -> dict[str, Any]:
    """What of the source's row stays when its embedding is measured anew."""
    measured = set(BY_NAME) | set(job.source["own_measures"].split())
    kept = {name: value for name, value in job.source.items() if name not in measured}
    return {**kept, **_settings(config.measures), "row_id": job.row_id}


def _settings(settings: MeasureSettings) -> dict[str, Any]:
    return settings.model_dump(exclude={"own", "method", "precision", "tolerance"}) | {
        "own_measures": ""
    }
