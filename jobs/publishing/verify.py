"""Whether a published folder is what it says: its sums, its page from its rows, and some rows from their embeddings."""

import json
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.engine.row_content import measure_row
from dsmi_zoo.pipeline.measures.registry import OF_A_ROW
from dsmi_zoo.pipeline.plan.identity import measures_identity
from dsmi_zoo.pipeline.store.release import (
    SUMS,
    Published,
    files_of,
    read_published,
    read_release,
    read_sums,
)
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.subset_file import subset_with_clusters
from dsmi_zoo.reports.page.build import write_page

from ..progress import SILENT, Display
from .publish import NOTICES, page_versions

log = logging.getLogger(__name__)

SHOWN = 20
RETIRED = ("class_subsets", "mixed")
"""Parts of ``summary.json`` that releases of earlier versions have."""
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""How far a number that is computed again may be from the published one: other machines add in another order."""


def verify(folder: Path, sample: int = 5, seed: int = 0, display: Display = SILENT) -> int:
    """Check a release, and say what differs.

    Parameters
    ----------
    sample
        How many rows to measure again from their embeddings, if those are published.
    seed
        Of the choice of rows.

    Returns
    -------
    int
        0 when nothing differs, else 1.

    Raises
    ------
    InputError
        When the folder is no release, or cannot be read.
    """
    release = read_release(folder)
    sums = read_sums(folder)
    with display.status("Checking the hashes"):
        differences = list(_changed_files(folder, sums))
    _tell(f"{SUMS}: {counted(len(sums), 'file')}", differences)
    published = read_published(folder)
    with display.status("Making the page again from the rows"):
        of_page = list(_of_page(published))
    _tell("the page, made again from the rows", of_page)
    of_rows = list(_of_rows(published, sample, seed, display))
    if release.superseded_by is not None:
        log.warning(f"this release was superseded by {release.superseded_by}")
    _warn_of_older_measures(published)
    return 1 if differences or of_page or of_rows else 0


def _tell(what: str, differences: list[str]) -> None:
    log.info(
        f"{what}: {'as published' if not differences else counted(len(differences), 'difference')}"
    )
    for line in differences[:SHOWN]:
        log.warning(f"  {line}")
    if len(differences) > SHOWN:
        log.warning(f"  and {len(differences) - SHOWN} more")


def _changed_files(folder: Path, sums: Mapping[str, str]) -> Iterator[str]:
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif file_sha256(path) != digest:
            yield f"{name} has another content than was published"
    for name in sorted(set(files_of(folder)) - set(sums) - {SUMS}):
        yield f"{name} was not published"


def _of_page(published: Published) -> Iterator[str]:
    """How the page's numbers and words differ from those that the rows give."""
    with tempfile.TemporaryDirectory() as name:
        again, release = Path(name), published.release
        first_time = release.model_copy(update={"superseded_by": None})
        write_page(published.rows, published.record, again, release=first_time)
        yield from _of_numbers(published.folder, again)
        if release.page_versions != page_versions():
            log.info("the page's words are not compared: other versions of the libraries made them")
            return
        for file in ("index.html", "README.md"):
            made = (again / file).read_text(encoding="utf-8")
            if release.superseded_by is not None and file in NOTICES:
                made = NOTICES[file](made, release.model_copy(update={"id": release.superseded_by}))
            if made != _text(published.folder / file):
                yield f"{file} is not what the rows give"


def _of_numbers(folder: Path, again: Path) -> Iterator[str]:
    try:
        before = json.loads(_text(folder / "summary.json"))
    except ValueError:
        yield "summary.json is no JSON"
        return
    after = json.loads(_text(again / "summary.json"))
    if isinstance(before, dict):
        before = {name: part for name, part in before.items() if name not in RETIRED}
    for where, old, new in _different(before, after):
        yield f"summary.json: {where} is {_shown(old)}; the rows give {_shown(new)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _different(before: Any, after: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves of two trees of JSON that are not the same, each with the way to it."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            yield from _different(
                before.get(name), after.get(name), f"{where}.{name}" if where else name
            )
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _different(*pair, f"{where}[{number}]")
    elif not _same(before, after):
        yield where, before, after


def _same(before: Any, after: Any, absolute: float = ABSOLUTE) -> bool:
    numbers = [
        value
        for value in (before, after)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) < 2:
        return bool(before == after)
    return math.isclose(*numbers, rel_tol=RELATIVE, abs_tol=absolute)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)[:60]


def _of_rows(published: Published, sample: int, seed: int, display: Display) -> list[str]:
    """Measure a sample of the embeddings again, and say how their rows differ."""
    if not published.release.has_embeddings:
        log.info("rows: not measured again, because the embeddings are not published")
        return []
    ok = published.rows[published.rows["status"].eq("ok")]
    chosen = np.random.default_rng(seed).permutation(len(ok))[:sample]
    differences: list[str] = []
    with display.status("") as show:
        for number, place in enumerate(sorted(chosen)):
            row = {name: _plain(value) for name, value in ok.iloc[place].items()}
            show(f"Measuring {row['model']} again: {number + 1} of {len(chosen)}")
            differences += _of_row(published, row)
    _tell(
        f"rows: {len(chosen)} of {counted(len(ok), 'embedding')} measured again (seed {seed})",
        differences,
    )
    return differences


def _plain(value: Any) -> Any:
    """A cell as a row file has it."""
    return None if pd.isna(value) else value


def _of_row(published: Published, row: dict[str, Any]) -> Iterator[str]:
    name = f"{row['model']}@{row['img_size']}"
    slugs = {entry.row_id: entry.slug for entry in published.record.entries}
    settings = published.record.config.measures.model_copy(update={"own": ()})
    again = dict(row)
    try:
        slug = slugs[row["row_id"]]
        embedding = read_embedding(embedding_path(published.folder, slug), row["embedding_sha256"])
        measure_row(
            again, embedding, subset_with_clusters(published.folder, row["img_size"]), settings
        )
    except KeyError:
        yield f"{name}: run.json has no such entry"
        return
    except InputError as error:
        yield f"{name}: {error}"
        return
    for measure in OF_A_ROW:
        before, after = row.get(measure.name), again[measure.name]
        # One image more or less may be right: ties among neighbours are broken by the last bit.
        absolute = 150 / row["n_samples"] if measure.unit == "%" else ABSOLUTE
        if before is not None and not _same(before, after, absolute):
            yield f"{name}: {measure.name} is {_shown(before)}; its embedding gives {_shown(after)}"


def _warn_of_older_measures(published: Published) -> None:
    """Say when a measure has been corrected since: a board that predates a fix should not pass for the latest."""
    record, version = published.record, published.release.measures_version
    settings = record.config.measures.model_copy(update={"own": ()})
    today = measures_identity(settings, record.subset.n_samples)["version"]
    if version is not None and version < today:
        log.warning(
            f"the measures have changed since: version {version} there, {today} here; "
            "`dsmi-zoo remeasure` the run and publish it again"
        )
