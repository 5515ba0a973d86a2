"""The check of a published folder: its checksums, its page from its rows, and some rows from their embeddings."""

import json
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.engine.row_content import measure_row
from dsmi_zoo.pipeline.measures.catalog import ROW_MEASURES
from dsmi_zoo.pipeline.plan.identity import measures_identity
from dsmi_zoo.pipeline.store.embedding_file import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.release import (
    READY,
    SUMS,
    Published,
    Release,
    files_of,
    read_published,
    read_release,
    read_sums,
)
from dsmi_zoo.pipeline.store.subset_file import subset_with_clusters
from dsmi_zoo.reports.page.build import write_page

from ..progress import SILENT, Display
from .publish import NOTICES, finish_publication, page_versions, publishing

log = logging.getLogger(__name__)

SHOWN = 20
RETIRED = ("class_subsets", "mixed")
"""Parts of ``summary.json`` that releases of earlier versions have."""
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Tolerances between a recomputed number and the published one, because machines add in different orders."""


def verify(folder: Path, sample: int = 5, seed: int = 0, display: Display = SILENT) -> int:
    """Check a release, and log what differs; finish its publication first if that was interrupted.

    Parameters
    ----------
    sample
        The number of rows to recompute from their embeddings, if those are published.
    seed
        The seed of the choice of these rows.

    Returns
    -------
    int
        0 when nothing differs, else 1.

    Raises
    ------
    InputError
        When the folder is not a release, cannot be read, or was published to meanwhile.
    """
    if is_file(folder / READY / SUMS):
        with publishing(folder):
            finish_publication(folder)
    release = read_release(folder)
    try:
        code = _differences(folder, release, sample, seed, display)
    except InputError:
        _refuse_replaced(folder, release)
        raise
    _refuse_replaced(folder, release)
    return code


def _refuse_replaced(folder: Path, release: Release) -> None:
    if read_release(folder) != release:
        raise InputError(f"{folder} was published to meanwhile; verify it again")


def _differences(folder: Path, release: Release, sample: int, seed: int, display: Display) -> int:
    """Log what differs, and return the exit code."""
    sums = read_sums(folder)
    with display.status("Checking the hashes"):
        of_files = list(_changed_files(folder, sums))
    _log(f"{SUMS}: {counted(len(sums), 'file')}", of_files)
    published = read_published(folder)
    with display.status("Making the page again from the rows"):
        of_page = list(_differences_of_page(published))
    _log("the page, made again from the rows", of_page)
    of_rows = _differences_of_rows(published, sample, seed, display)
    if release.superseded_by is not None:
        log.warning(f"this release was superseded by {release.superseded_by}")
    settings = published.record.config.measures.model_copy(update={"own": ()})
    today = measures_identity(settings, published.record.subset.n_samples)["version"]
    if release.measures_version is not None and release.measures_version < today:
        log.warning(
            f"the measures have changed since: version {release.measures_version} there, {today} here; "
            "`dsmi-zoo remeasure` the run and publish it again"
        )
    return 1 if of_files or of_page or of_rows else 0


def _log(what: str, differences: Sequence[str]) -> None:
    result = counted(len(differences), "difference") if differences else "as published"
    log.info(f"{what}: {result}")
    for line in differences[:SHOWN]:
        log.warning(f"  {line}")
    if len(differences) > SHOWN:
        log.warning(f"  and {len(differences) - SHOWN} more")


def _changed_files(folder: Path, sums: dict[str, str]) -> Iterator[str]:
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif file_sha256(path) != digest:
            yield f"{name} has another content than was published"
    for name in sorted(set(files_of(folder)) - set(sums) - {SUMS}):
        yield f"{name} was not published"


def _differences_of_page(published: Published) -> Iterator[str]:
    """Make the page again, and compare its numbers and, with the same libraries, its words."""
    release, folder = published.release, published.folder
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary)
        first_time = release.model_copy(update={"superseded_by": None})
        write_page(published.rows, published.record, again, release=first_time, source=folder)
        try:
            before = json.loads(_text(folder / "summary.json"))
        except ValueError:
            yield "summary.json is not JSON"
        else:
            if isinstance(before, dict):
                before = {name: part for name, part in before.items() if name not in RETIRED}
            yield from _differing_numbers(before, json.loads(_text(again / "summary.json")))
        if release.page_versions != page_versions():
            log.info("the page's words are not compared: other versions of the libraries made them")
            return
        for path in sorted([*again.glob("*.html"), *again.glob("*.md")]):
            made = _text(path)
            if release.superseded_by is not None and path.name in NOTICES:
                newer = release.model_copy(update={"id": release.superseded_by})
                made = NOTICES[path.name](made, newer)
            if made != _text(folder / path.name):
                yield f"{path.name} is not what the rows give"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _differing_numbers(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Compare the leaves of two trees of JSON."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            path = f"{where}.{name}" if where else name
            yield from _differing_numbers(before.get(name), after.get(name), path)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differing_numbers(old, new, f"{where}[{number}]")
    elif not _same(before, after):
        yield f"summary.json: {where} is {_shown(before)}; the rows give {_shown(after)}"


def _same(before: Any, after: Any, absolute: float = ABSOLUTE) -> bool:
    for value in (before, after):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return bool(before == after)
    return math.isclose(before, after, rel_tol=RELATIVE, abs_tol=absolute)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)[:60]


def _differences_of_rows(
    published: Published, sample: int, seed: int, display: Display
) -> list[str]:
    """Recompute a sample of the rows from their embeddings, and return the differences."""
    if not published.release.has_embeddings:
        log.info("rows: not measured again, because the embeddings are not published")
        return []
    ok = published.rows[published.rows["status"].eq("ok")]
    chosen = np.random.default_rng(seed).permutation(len(ok))[:sample]
    differences: list[str] = []
    with display.status("") as show:
        for number, place in enumerate(sorted(chosen)):
            cells = ok.iloc[place].items()
            row = {name: None if pd.isna(value) else value for name, value in cells}
            show(f"Measuring {row['model']} again: {number + 1} of {len(chosen)}")
            differences += _differences_of_row(published, row)
    embeddings = counted(len(ok), "embedding")
    _log(f"rows: {len(chosen)} of {embeddings} measured again (seed {seed})", differences)
    return differences


def _differences_of_row(published: Published, row: dict[str, Any]) -> Iterator[str]:
    name = f"{row['model']}@{row['img_size']}"
    slugs = {entry.row_id: entry.slug for entry in published.record.entries}
    if row["row_id"] not in slugs:
        yield f"{name}: run.json has no such entry"
        return
    path = embedding_path(published.folder, slugs[row["row_id"]])
    settings = published.record.config.measures.model_copy(update={"own": ()})
    again = dict(row)
    try:
        embedding = read_embedding(path, row["embedding_sha256"])
        subset = subset_with_clusters(published.folder, row["img_size"])
        measure_row(again, embedding, subset, settings)
    except InputError as error:
        yield f"{name}: {error}"
        return
    for measure in ROW_MEASURES:
        before, after = row.get(measure.name), again[measure.name]
        # Accuracies may differ by one image: ties among neighbours depend on the last bit.
        absolute = 150 / row["n_samples"] if measure.unit == "%" else ABSOLUTE
        if before is not None and not _same(before, after, absolute):
            yield f"{name}: {measure.name} is {_shown(before)}; its embedding gives {_shown(after)}"
