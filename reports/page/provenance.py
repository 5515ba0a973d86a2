"""Provenance of the rows, warnings where they may not be comparable, and the account of a search."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.datasets.class_order import LEFT_EMPTY, OPTION
from dsmi_zoo.pipeline.measures.catalog import UNDEFINED, parse_reasons
from dsmi_zoo.pipeline.store.record import (
    NO_TIME,
    RunRecord,
    SearchHistory,
    SubsetRecord,
    catalogs_in_words,
)

from ..statistics.sample import CEILING, succeeded, texts, values
from ..wording import fixed, measure_title, significant

UNKNOWN = "unknown"
# Columns that all rows of a run should share, and their names in a warning.
SHARED = {
    "subset_hash": "subsets of images",
    "n_samples": "numbers of samples",
    "n_classes": "numbers of classes",
    "device": "devices",
    "precision": "precisions",
    "t": "diffusion times t",
    "repetitions": "numbers of repetitions",
    "seed": "seeds",
    "bins": "numbers of bins",
    "null_permutations": "numbers of permutations",
    "measure_method": "methods for eigenvalues",
    "measure_precision": "precisions of eigenvalues",
}


def mixture_warnings(rows: pd.DataFrame) -> list[str]:
    """Return one sentence for each setting, device or library version in which measured rows differ."""
    rows = succeeded(rows)
    seen = {what: distinct(rows, column) for column, what in SHARED.items()}
    for library, versions in _versions(rows).items():
        seen[f"versions of {library}"] = sorted(versions)
    return [
        f"Rows were computed with different {what} ({', '.join(found)}): their numbers may differ for that reason."
        for what, found in seen.items()
        if len(found) > 1
    ]


def warnings_of_images(subset: SubsetRecord, rows: pd.DataFrame) -> list[str]:
    """Return one sentence for each ambiguous input, and one if images were left out for other reasons than by choice.

    An ambiguous order of the classes is mentioned only if an accuracy of the rows is empty because of it.
    """
    account = subset.account
    if account is None:
        return []
    reasons = [parse_reasons(text or "").get(CEILING, "") for text in texts(rows, UNDEFINED)]
    depends_on_order = any(OPTION in reason for reason in reasons)
    warnings = [
        f"{reading}."
        for reading in account.readings
        if depends_on_order or not reading.taken.startswith(LEFT_EMPTY)
    ]
    if not account.is_all_by_choice:
        warnings.append(f"Images: {account.balance(subset.n_images)}.")
    return warnings


def warnings_of_ceiling(rows: pd.DataFrame) -> list[str]:
    """Return one sentence on the models whose own classifiers could not be scored."""
    rows = succeeded(rows)
    reasons = {}
    for model, text in zip(rows["model"], texts(rows, UNDEFINED), strict=True):
        of_row = parse_reasons(text or "")
        if CEILING in of_row:
            reasons[model] = of_row[CEILING]
    if not reasons:
        return []
    model, reason = next(iter(reasons.items()))
    of = counted(len(reasons), "model")
    return [f"{measure_title(CEILING)} is empty for {of}. For {model}, {reason}."]


def warnings_of_readings(rows: pd.DataFrame) -> list[str]:
    """Return one sentence for each way in which ambiguous checkpoints were read."""
    rows = succeeded(rows)
    models: dict[str, list[str]] = {}
    for model, text in zip(rows["model"], texts(rows, "readings"), strict=True):
        if text is not None:
            models.setdefault(text, []).append(model)
    return [
        f"{', '.join(read[:3])}{', ...' if len(read) > 3 else ''}: {text}."
        for text, read in models.items()
    ]


def provenance(rows: pd.DataFrame, run: RunRecord) -> list[tuple[str, str]]:
    """Return names and values of everything needed to repeat the run; "unknown" if not recorded."""
    rows = succeeded(rows)
    subset = run.subset
    images, samples = _text(subset.n_images), _shared(rows, "n_samples", subset.n_samples)
    counts = samples if images == samples else f"{samples} samples of {images} images"
    versions = {library: ", ".join(sorted(seen)) for library, seen in _versions(rows).items()}
    versions = versions or run.versions
    return [
        ("Catalogue", _text(catalogs_in_words(run))),
        ("Catalogue SHA-256", _text(run.catalog.sha256)),
        ("Data set", _text(subset.dataset)),
        ("Subset hash", _shared(rows, "subset_hash", subset.hash)),
        ("Images", counts),
        ("Images found", subset.account.balance(subset.n_images) if subset.account else UNKNOWN),
        ("Classes", _shared(rows, "n_classes", subset.n_classes)),
        ("Subset seed", _text(subset.seed)),
        ("Kernel width sigma", _sigma(rows, run)),
        ("Diffusion time t", _shared(rows, "t")),
        ("Repetitions", _shared(rows, "repetitions")),
        ("Seed of the measures", _shared(rows, "seed")),
        ("Bins per dimension", _shared(rows, "bins")),
        ("Permutations of the null", _shared(rows, "null_permutations")),
        ("Method for eigenvalues", _shared(rows, "measure_method")),
        ("Precision of eigenvalues", _shared(rows, "measure_precision")),
        ("Device", _shared(rows, "device")),
        ("Precision", _shared(rows, "precision")),
        ("Time of all entries", _seconds(rows)),
        ("Versions", "; ".join(f"{k} {v}" for k, v in versions.items()) or UNKNOWN),
        ("Git commit", _text(run.git_commit)),
        ("Started", run.created_at.isoformat(timespec="seconds")),
        ("Last change", run.updated_at.isoformat(timespec="seconds")),
    ]


def distinct(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the different values of a column as text, sorted; numbers without needless decimals."""
    if column not in rows:
        return []
    present = rows[column].dropna().unique().tolist()
    return [_text(v) for v in sorted(present, key=lambda v: (isinstance(v, str), v))]


def _versions(rows: pd.DataFrame) -> dict[str, set[str]]:
    seen: dict[str, set[str]] = {}
    for text in distinct(rows, "versions"):
        try:
            libraries = json.loads(text)
        except (ValueError, RecursionError):
            continue
        for library, version in libraries.items() if isinstance(libraries, dict) else ():
            seen.setdefault(str(library), set()).add(str(version))
    return seen


def _text(value: Any) -> str:
    if value is None or value == "":
        return UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared(rows: pd.DataFrame, column: str, recorded: Any = None) -> str:
    return ", ".join(distinct(rows, column)) or _text(recorded)


def _sigma(rows: pd.DataFrame, run: RunRecord) -> str:
    recorded = run.config.measures.sigma
    sigmas = values(rows, "sigma")
    sigmas = sigmas[np.isfinite(sigmas)]
    rule = "√d" if recorded is None else ""
    if not len(sigmas):
        return rule or _text(recorded)
    low, high = (f"{s:.4g}" for s in (sigmas.min(), sigmas.max()))
    used = low if low == high else f"{low} to {high}"
    return f"{rule} ({used})" if rule else used


def _seconds(rows: pd.DataFrame) -> str:
    parts = [np.nansum(values(rows, f"seconds_{stage}")) for stage in ("build", "embed", "measure")]
    if not any(parts):
        return UNKNOWN
    build, embed, measure = (f"{significant(float(s))} s" for s in parts)
    return f"{build} to build, {embed} to embed, {measure} to measure {counted(len(rows), 'model')}"


def _risk(note: SearchHistory) -> str:
    """Return sentences on the risk that the search dropped the best model, and on the models kept to limit it."""
    tested = [stage for stage in note.stages if stage.contenders is not None]
    if note.error_rate is None or not tested:
        return ""
    metric = "balanced accuracy" if note.metric == "balanced_accuracy" else "accuracy"
    kept = "; ".join(
        f"after {stage.images} images {stage.contenders} were left, with a test at 5% in each stage it would have been "
        f"{stage.contenders_alone}"
        for stage in tested
    )
    words = (
        f"The chance that a model as good as the best on all images, by {metric}, was dropped as clearly worse is at "
        f"most {note.error_rate:g}%, over all stages and models, as far as predictions do not change with the number "
        f"of images that the probe learns from. Its cost: {kept}."
    )
    late = sum(entry.reason == NO_TIME for stage in note.stages for entry in stage.dropped)
    if late:
        words += f" {counted(late, 'model')} dropped for lack of time {'is' if late == 1 else 'are'} not covered."
    return words


def search_context(note: SearchHistory | None, measured: Collection[str]) -> dict[str, Any] | None:
    """Return the stages of a search in words, and the models it dropped, the last ones first; None without a search.

    Models that are ``measured`` on all images by now do not count as dropped.
    """
    if not note:
        return None
    stages = [
        f"{counted(stage.models, 'model')} on {stage.images} images ({stage.seconds:.0f} s)"
        for stage in note.stages
    ]
    dropped = [
        {
            "model": entry.model,
            "images": stage.images,
            "accuracy": fixed(entry.accuracy, 1),
            "ci": f"{fixed(entry.low, 1)} to {fixed(entry.high, 1)}",
            "reason": entry.reason,
        }
        for stage in reversed(note.stages)
        for entry in stage.dropped
        if entry.model not in measured
    ]
    return {
        "words": f"Budget: {note.budget_s:.0f} s. {'; then '.join(stages)}.",
        "risk": _risk(note),
        "left_out": [model for model in note.left_out if model not in measured],
        "dropped": dropped,
    }
