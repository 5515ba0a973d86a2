"""The content of a row: the catalogue's facts, settings, measures, and scores from the network's own classifier."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.user_code import NOT_AS_PLANNED
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from ..config.run import MeasureSettings, RunConfig
from ..measures.catalog import BY_NAME, UNDEFINED, format_reasons, parse_reasons
from ..measures.core.checks import UndefinedScore
from ..measures.core.exact_or_estimated import method_for, precision_for
from ..measures.own import column_of, load_measure
from ..measures.run import measured
from ..measures.scores.leep import ONE_IMAGE, leep
from ..measures.scores.nce import ONE_LABEL, nce
from ..plan.identity import measures_identity, row_identity
from ..plan.plan import Job
from ..store.schema import COLUMNS

if TYPE_CHECKING:
    from ..networks.forward import Embedding

FACTS = (
    "model", "architecture", "family", "kind", "pretraining", "extra_data", "license",
    "builder", "layer", "img_size", "group", "top1", "top5", "params_m",
)  # fmt: skip
"""The catalogue's facts about an entry that are columns of its row."""

CODE = "own_measures_code"

SUBSET_TOP1 = "subset_top1"
"""The accuracy of the entry's own classifier; undefined if the order of its outputs cannot be determined."""

OF_CLASSIFIER = ("nce", "nce_se", "leep", "leep_se", SUBSET_TOP1)
"""Columns from the outputs of that classifier; measuring the embedding again leaves them unchanged."""
Fields = dict[str, Any]
Reasons = dict[str, str]
Scored = tuple["Embedding", Fields, Reasons]


@dataclass(frozen=True)
class RemeasureJob:
    """A kept embedding to measure again: its row in the source run, and its file."""

    source: dict[str, Any]
    slug: str
    row_id: str
    embedding: Path

    @property
    def name(self) -> str:
        """The entry's display name."""
        return f"{self.source['model']}@{self.source['img_size']}"

    @property
    def order(self) -> float:
        """Sort key: the widest embedding first."""
        return -float(self.source["embedding_dim"])


def measure_row(
    row: dict[str, Any], embedding: np.ndarray, subset: pd.DataFrame, settings: MeasureSettings
) -> None:
    """Fill in the measures of an embedding, float [n, d], of the images of ``subset``."""
    started = perf_counter()
    labels = subset["label"].to_numpy()
    clusters = subset["input_cluster"].to_numpy()
    # Reasons for undefined scores show the images' names.
    images = subset.get("image", subset["number"]).to_numpy()
    n, d = len(labels), embedding.shape[1]
    if settings.own:
        planned = row_identity(row["embedding_id"], measures_identity(settings, n))
        if row["row_id"] != planned:
            raise InputError(f"the module of {' or of '.join(settings.own)} {NOT_AS_PLANNED}")
    row.update(n_samples=n, n_classes=len(np.unique(labels)), embedding_dim=d)
    row["sigma"] = float(np.sqrt(d)) if settings.sigma is None else settings.sigma
    row["measure_method"] = method_for(settings.method, n)
    row["measure_precision"] = precision_for(settings.precision, n, settings.t)
    of_classifier = row.pop(UNDEFINED, None)
    row.update(measured(embedding, labels, images, clusters, settings))
    row[UNDEFINED] = "; ".join(filter(None, (row.get(UNDEFINED), of_classifier))) or None
    measures = [load_measure(spec) for spec in settings.own]
    with torch_defaults_kept():
        row.update({measure.name: measure.value(embedding, labels) for measure in measures})
    own = [measure.name for measure in measures]
    row["own_measures"] = " ".join(dict.fromkeys([*own, *added_code(row)]))
    row["seconds_measure"] = perf_counter() - started


@contextmanager
def torch_defaults_kept() -> Iterator[None]:
    """Restore torch's defaults after a user's measure, whose changes would affect the next model."""
    with ExitStack() as stack:
        if "torch" in sys.modules:
            from ..networks.forward import defaults_kept

            stack.enter_context(defaults_kept())
        yield


def added_code(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the code identity of each own measure that was added to a finished row, by column."""
    identities = (row.get(CODE) or "").split()
    return {column_of(identity): identity for identity in identities}


def lacks(row: Mapping[str, Any], identity: str) -> bool:
    """Return whether a row lacks a value computed by this version of an own measure's code."""
    name = column_of(identity)
    return added_code(row).get(name) != identity or row.get(name) is None


def with_own_scores(
    row: Mapping[str, Any],
    identities: Sequence[str],
    values: Mapping[str, float],
    reasons: Mapping[str, str],
) -> dict[str, Any]:
    """Return a finished row with own measures added or replaced; its other columns and its identity are unchanged.

    Parameters
    ----------
    identities
        Identities of the measures' code.
    values, reasons
        The value of each column, or the reason why it is missing.
    """
    code = added_code(row) | {column_of(identity): identity for identity in identities}
    names = [column_of(identity) for identity in identities]
    known = parse_reasons(row.get(UNDEFINED) or "")
    others = {name: reason for name, reason in known.items() if name not in names}
    return {
        **row,
        **{name: values.get(name) for name in names},
        UNDEFINED: format_reasons(others | dict(reasons)) or None,
        "own_measures": " ".join(dict.fromkeys([*row["own_measures"].split(), *names])),
        CODE: " ".join(code.values()),
    }


def facts(entry: ModelEntry) -> dict[str, Any]:
    """Return the catalogue's facts about an entry, as columns of its row."""
    return {name: getattr(entry, name) for name in FACTS} | entry.extras


def with_current_facts(row: dict[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """Return a finished row with the catalogue's current facts, but keep facts that only the run could determine."""
    current = facts(entry)
    for name in ("top1", "params_m"):
        if current[name] is None and (name == "params_m" or entry.recipe is not None):
            current[name] = row[name]
    ours = {column.name for column in COLUMNS} | set(row["own_measures"].split())
    return {name: value for name, value in row.items() if name in ours} | current


def initial_row(job: Job, config: RunConfig, subset_digest: str) -> dict[str, Any]:
    """Return the fields of an entry's row that are known before its model is built."""
    return {
        **facts(job.entry),
        "random_weights": config.random_weights,
        **_settings(config.measures),
        "dataset": config.subset.dataset,
        "precision": config.precision,
        "embedding_id": job.embedding_id,
        "network_id": job.network_id or None,
        "row_id": job.row_id,
        "subset_hash": subset_digest,
    }


def remeasured_row(job: RemeasureJob, config: RunConfig) -> dict[str, Any]:
    """Return the fields of the source row that are kept when its embedding is measured again, and the new settings.

    Own measures that were added to the source row are kept too, because no setting affects them.
    """
    again = {column_of(spec) for spec in config.measures.own}
    added = {name: code for name, code in added_code(job.source).items() if name not in again}
    measured = set(BY_NAME) | (set(job.source["own_measures"].split()) - set(added))
    kept = {name: value for name, value in job.source.items() if name not in measured}
    reasons = parse_reasons(job.source[UNDEFINED] or "")
    stay = {name: reasons[name] for name in (*OF_CLASSIFIER, *added) if name in reasons}
    kept[UNDEFINED] = format_reasons(stay) or None
    kept[CODE] = " ".join(added.values()) or None
    return {**kept, **_settings(config.measures), "row_id": job.row_id}


def _settings(settings: MeasureSettings) -> dict[str, Any]:
    columns = settings.model_dump(exclude={"own", "method", "precision", "tolerance", "scores"})
    return columns | {"own_measures": ""}


def scored_by_classifier(embedding: "Embedding", labels: np.ndarray, images: np.ndarray) -> Scored:
    """Return an embedding without its probabilities, which are large, and the scores computed from them."""
    scores = scores_of_classifier(embedding, labels, images)
    return replace(embedding, probabilities=None), *scores


def scores_of_classifier(
    embedding: "Embedding", labels: np.ndarray, images: np.ndarray
) -> tuple[Fields, Reasons]:
    """Return NCE and LEEP with their errors, and reasons for missing values; both are empty without a classifier.

    Parameters
    ----------
    embedding
        With ``predictions`` and ``probabilities``.
    labels, images : int64 [n]
        Class and image of each row.
    """
    if embedding.predictions is None:
        return {}, {}
    value, error = nce(embedding.predictions, labels, images)
    fields: Fields = {"nce": value, "nce_se": error}
    reasons: Reasons = {} if error is not None else {"nce_se": ONE_LABEL}
    if embedding.probabilities is None:
        n, width = len(labels), embedding.n_logits
        reasons["leep"] = f"the probabilities of {n:,} images by {width:,} outputs exceed 1 GiB"
        return fields, reasons
    try:
        value, error = leep(embedding.probabilities, labels, images)
    except UndefinedScore as undefined:
        return fields, reasons | {"leep": str(undefined)}
    fields |= {"leep": value, "leep_se": error}
    if error is None:
        reasons["leep_se"] = ONE_IMAGE if value else ONE_LABEL
    return fields, reasons
