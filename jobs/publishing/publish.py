"""A run as a folder for others: its rows, its page, and what is needed to check them."""

import logging
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import write_text
from dsmi_zoo._util.text import counted
from dsmi_zoo._util.versions import git_commit
from dsmi_zoo.pipeline.plan.identity import measures_identity, versions_of_measures
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import (
    EARLIER,
    FORMAT,
    RECORD,
    RELEASE,
    ROWS,
    SUMS,
    Release,
    files_of,
    is_release,
    public_record,
    read_published,
    read_release,
    read_sums,
    release_id,
    write_release,
    write_rows,
    write_sums,
)
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_run
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.release import card_with_notice, page_with_notice

from ..progress import SILENT, Display
from ..runs.driver_lock import drivers
from ..runs.merge import input_files, link_or_copy
from ..runs.state import EntryState, entry_states

log = logging.getLogger(__name__)

PAGE_LIBRARIES = (
    "dsmi-zoo",
    "bokeh",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
)
STAGED = ".next"
NOTICES: Mapping[str, Callable[[str, Release], str]] = {
    "index.html": page_with_notice,
    "README.md": card_with_notice,
}


def publish(
    out: Path,
    into: Path,
    title: str | None = None,
    license: str | None = None,
    with_embeddings: bool = False,
    display: Display = SILENT,
) -> Release:
    """Write the release of a run into the folder ``into``; an earlier release there moves into its ``releases``.

    All is made in a hidden folder first, so that what goes wrong leaves the earlier release as it is.

    Raises
    ------
    InputError
        For what is no finished run, or a folder that holds something else.
    """
    if is_release(out):
        raise InputError(
            f"{out} is a published folder, not a run; name the run that it was made of"
        )
    record = read_run(out)
    refuse_unfit(out, into, record)
    states, _ = entry_states(out, record.entries)
    earlier = read_release(into) if is_release(into) else None
    staged = into / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    with display.status("Writing the rows"):
        write_rows(staged / ROWS, rows_for_others(states, private_folders(out, record)))
        write_text(staged / RECORD, public_record(record))
        link_or_copy(out / "subset.parquet", staged / "subset.parquet")
        if with_embeddings:
            _carry_embeddings(out, record, states, staged)
    release = _release(staged, record, states, title, license, with_embeddings, earlier)
    write_release(staged, release)
    published = read_published(staged)
    with display.status("Making the page"):
        write_page(published.rows, published.record, staged, release=release)
    write_sums(staged)
    if earlier is not None and earlier.id != release.id:
        _keep_earlier(into, earlier, release)
    _put_in_place(staged, into)
    return release


def refuse_unfit(out: Path, into: Path, record: RunRecord) -> None:
    """Raise InputError for a run that is nothing to publish, or a folder that is not for it."""
    if into.resolve().is_relative_to(out.resolve()) or out.resolve().is_relative_to(into.resolve()):
        raise InputError(f"{into} and the run {out} lie in one another; choose another folder")
    if into.exists() and not into.is_dir():
        raise InputError(f"{into} is a file, not a folder; choose another folder")
    is_empty = not into.exists() or all(path.name.startswith(".") for path in into.iterdir())
    if not is_empty and not is_release(into):
        raise InputError(f"{into} holds something else than a release; choose an empty folder")
    if record.config.random_weights:
        raise InputError(
            f"{out} is a trial with random weights, which says nothing of published models"
        )
    for held in drivers(out).values():
        raise InputError(f"{out} is being computed by {held}; wait for it, or stop it")
    if not any((out / "results").glob("*.parquet")):
        raise InputError(f"{out} has no row to publish; `dsmi-zoo run` computes them")


def rows_for_others(states: list[EntryState], folders: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a run, ok and failed, in whose text the machine's ``folders`` go by other names."""
    rows = []
    for state in states:
        if state.row is None:
            continue
        texts = {name: value for name, value in state.row.items() if isinstance(value, str)}
        renamed = {name: _without(folders, text) for name, text in texts.items()}
        rows.append({**state.row, **renamed})
    return rows


def private_folders(out: Path, record: RunRecord) -> dict[str, str]:
    """Folders of the machine that texts of rows may name, the longest first, and what they are called instead."""
    config = record.config
    folders = {
        str(out.absolute()): "OUT",
        str(config.compute.cache): "CACHE",
        str(Path.home()): "HOME",
    }
    if config.subset.data_root is not None:
        folders[str(config.subset.data_root)] = "DATA"
    if Path(config.catalog).is_absolute():
        folders[str(Path(config.catalog).parent)] = "CATALOG"
    return {
        folder: folders[folder]
        for folder in sorted(folders, key=len, reverse=True)
        if folder != "/"
    }


def _without(folders: Mapping[str, str], text: str) -> str:
    for folder, name in folders.items():
        text = re.sub(rf"{re.escape(folder)}(?![\w.-])", name, text)
    return text


def _carry_embeddings(out: Path, record: RunRecord, states: list[EntryState], staged: Path) -> None:
    """Have the embeddings of all measured rows in the release, and the clusters of their inputs."""
    origin = record.embeddings_from or out
    for state in states:
        if state.state != "ok":
            continue
        kept = embedding_path(origin, state.slug)
        if not kept.is_file():
            raise InputError(
                f"{kept} is missing, and --embeddings publishes all of them; rerun {state.name}, or publish without"
            )
        link_or_copy(kept, embedding_path(staged, state.slug))
    for name in input_files(out):
        link_or_copy(out / name, staged / name)


def _release(
    staged: Path,
    record: RunRecord,
    states: list[EntryState],
    title: str | None,
    license: str | None,
    with_embeddings: bool,
    earlier: Release | None,
) -> Release:
    now = datetime.now(UTC)
    measured = sum(state.state == "ok" for state in states)
    title = (
        title
        or f"{Path(record.catalog.name).name}: representation measures of {counted(measured, 'model')}"
    )
    contents = [(staged / name).read_bytes() for name in (ROWS, RECORD)]
    name = release_id(
        f"{now:%Y-%m-%d}", *contents, repr((title, license, with_embeddings)).encode()
    )
    supersedes = None
    if earlier is not None:
        supersedes = earlier.supersedes if earlier.id == name else earlier.id
    return Release(
        format=FORMAT,
        id=name,
        title=title,
        published_at=now,
        license=license,
        has_embeddings=with_embeddings,
        measures_version=measures_version(record, states),
        git_commit=git_commit(),
        page_versions=page_versions(),
        supersedes=supersedes,
    )


def measures_version(record: RunRecord, states: list[EntryState]) -> int | None:
    """Which version of the measures computed the rows; None where that is not known or differs."""
    settings, n_samples = record.config.measures, record.subset.n_samples
    try:
        measured_by = versions_of_measures(settings, n_samples)
        today = measures_identity(settings, n_samples)["version"]
    except InputError:  # a measure of the user's own that is not here
        return None
    versions = {measured_by(state.row) for state in states if state.state == "ok" and state.row}
    version = versions.pop() if len(versions) == 1 else None
    if version != today:
        log.warning(
            "the rows are not all of today's version of the measures; `dsmi-zoo remeasure` makes them so"
        )
    return version


def page_versions() -> dict[str, str]:
    """The versions of what makes a page: with the same ones, the same rows give the same page."""
    return {name: version(name) for name in PAGE_LIBRARIES}


def _keep_earlier(into: Path, earlier: Release, newer: Release) -> None:
    """Have a copy of the earlier release below ``releases``, which says that it was superseded."""
    kept = into / EARLIER / earlier.id
    if is_release(kept):  # a publication that was interrupted has done it
        return
    for name in read_sums(into):
        if not (into / name).is_file():
            raise InputError(
                f"{into / name} is missing, so the earlier release is damaged; choose another folder"
            )
        link_or_copy(into / name, kept / name)
    say_superseded(kept, earlier, newer)


def say_superseded(kept: Path, earlier: Release, newer: Release) -> None:
    """Let the page, the card and the record of an earlier release name the newer one."""
    for name, with_notice in NOTICES.items():
        text = with_notice((kept / name).read_text(encoding="utf-8"), newer)
        write_text(kept / name, text)
    write_release(kept, earlier.model_copy(update={"superseded_by": newer.id}))
    write_sums(kept)


def _put_in_place(staged: Path, into: Path) -> None:
    """Let the staged files take the place of those of an earlier release; the sums, which speak of all, come last."""
    new = list(files_of(staged))
    for name in sorted(new, key=lambda name: (name == SUMS, name == RELEASE)):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == SUMS:
            _remove_others(into, set(new))
        (staged / name).replace(target)
    shutil.rmtree(staged)


def _remove_others(into: Path, kept: set[str]) -> None:
    """Remove what only the earlier release had; what it did not list is somebody else's."""
    if not (into / SUMS).is_file():
        return
    for name in read_sums(into):
        if name not in kept:
            (into / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty yet
                (into / name).parent.rmdir()
