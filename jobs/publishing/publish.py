"""Publication of a run: a folder with its rows, its page and all that is needed to check them, and its upload."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import flush_folder, link_or_copy, make_folder, move, write_text
from dsmi_zoo._util.locks import Claim, LockHeldError, acquired
from dsmi_zoo._util.paths import is_file, repository_problem
from dsmi_zoo._util.text import counted, shortened
from dsmi_zoo._util.versions import git_commit
from dsmi_zoo.pipeline.plan.identity import measures_identity, versions_of_measures
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.release import (
    EARLIER,
    FORMAT,
    NEXT,
    READY,
    RECORD,
    RELEASE,
    ROWS,
    SUMS,
    Release,
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
from dsmi_zoo.pipeline.store.run_folder import input_files, read_run
from dsmi_zoo.reports.page.build import card_with_notice, page_with_notice, write_page

from ..progress import SILENT, Display
from ..runs.driver_lock import drivers
from ..runs.state import EntryState, by_state, entry_states

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

# A page depends on their versions.
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
LOCK = ".publish.lock"
NOTICES: Mapping[str, Callable[[str, Release], str]] = {
    "index.html": page_with_notice,
    "README.md": card_with_notice,
}
FILES_OF_A_NEW_REPOSITORY = {".gitattributes", "README.md"}


def publish(
    out: Path,
    into: Path,
    title: str | None = None,
    license: str | None = None,
    with_embeddings: bool = False,
    display: Display = SILENT,
) -> Release:
    """Write the release of a run into the folder ``into``; an earlier release there moves into its ``releases``.

    All files are made in a hidden folder first, so that a failure leaves the earlier release as it is. After an
    interruption the folder holds the earlier release, or `finish_publication` completes the new one.

    Raises
    ------
    InputError
        If the run is being computed or cannot be published, the folder holds other files, or another process publishes.
    """
    record = _checked_record(out, into)
    make_folder(into)
    with publishing(into) as claim:
        finish_publication(into)
        _refuse_other_content(into)
        release = _make_release(out, record, into, title, license, with_embeddings, display)
        if claim.is_lost():
            raise InputError(f"{into}: another process publishes to it now; this one stops")
        move(into / NEXT, into / READY)
        finish_publication(into)
    return release


@contextmanager
def publishing(into: Path) -> Iterator[Claim]:
    """Hold the lock of a folder that is published to; raise InputError while another process holds it."""
    try:
        with acquired(into / LOCK) as claim:
            yield claim
    except LockHeldError as held:
        raise InputError(f"{into} is being published to by {held}; wait for it") from None


def _make_release(
    out: Path,
    record: RunRecord,
    into: Path,
    title: str | None,
    license: str | None,
    with_embeddings: bool,
    display: Display,
) -> Release:
    """Write all files of the release, and the archived earlier one, below ``into / NEXT``."""
    states, _ = entry_states(out, record.entries)
    measured, _, _ = by_state(states)
    earlier = read_release(into) if is_release(into) else None
    pending = into / NEXT
    shutil.rmtree(pending, ignore_errors=True)
    with display.status("Writing the rows"):
        write_rows(pending / ROWS, rows_without_local_paths(out, record, states))
        write_text(pending / RECORD, public_record(record))
        link_or_copy(out / "subset.parquet", pending / "subset.parquet")
        if with_embeddings:
            _add_embeddings(out, record, measured, pending)
    now = datetime.now(UTC)
    if title is None:
        catalog = Path(record.catalog.name).name
        title = f"{catalog}: representation measures of {counted(len(measured), 'model')}"
    options = repr((title, license, with_embeddings)).encode()
    contents = [(pending / name).read_bytes() for name in (ROWS, RECORD)]
    name = release_id(f"{now:%Y-%m-%d}", *contents, options)
    supersedes = None
    if earlier is not None:
        supersedes = earlier.supersedes if earlier.id == name else earlier.id
    release = Release(
        format=FORMAT,
        id=name,
        title=title,
        published_at=now,
        license=license,
        has_embeddings=with_embeddings,
        measures_version=_measures_version(record, measured),
        git_commit=git_commit(),
        page_versions=page_versions(),
        supersedes=supersedes,
    )
    write_release(pending, release)
    published = read_published(pending)
    with display.status("Making the page"):
        write_page(published.rows, published.record, pending, release=release, source=pending)
    write_sums(pending)
    if earlier is not None and earlier.id != release.id:
        _archive(into, earlier, release)
    return release


def _checked_record(out: Path, into: Path) -> RunRecord:
    """Return the record of a run that can be published into a folder, or raise InputError."""
    if is_release(out):
        raise InputError(
            f"{out} is a published folder, not a run; name the run that it was made of"
        )
    record = read_run(out)
    if into.resolve().is_relative_to(out.resolve()) or out.resolve().is_relative_to(into.resolve()):
        raise InputError(f"{into} and the run {out} lie in one another; choose another folder")
    if into.exists() and not into.is_dir():
        raise InputError(f"{into} is a file, not a folder; choose another folder")
    if not (into / READY).exists():
        _refuse_other_content(into)
    if record.config.random_weights:
        raise InputError(
            f"{out} is a trial with random weights, which says nothing of published models"
        )
    for held in drivers(out).values():
        raise InputError(f"{out} is being computed by {held}; wait for it, or stop it")
    if not any((out / "results").glob("*.parquet")):
        raise InputError(f"{out} has no row to publish; `dsmi-zoo run` computes them")
    return record


def _refuse_other_content(into: Path) -> None:
    """Raise InputError for a folder that holds files but no release."""
    is_empty = not into.exists() or all(path.name.startswith(".") for path in into.iterdir())
    if not is_empty and not is_release(into):
        raise InputError(f"{into} holds something else than a release; choose an empty folder")


def rows_without_local_paths(
    out: Path, record: RunRecord, states: Sequence[EntryState]
) -> list[dict[str, Any]]:
    """Return the rows, ok and failed, with names such as OUT for this machine's folders in their texts."""
    config = record.config
    names = {out.absolute(): "OUT", config.compute.cache: "CACHE", Path.home(): "HOME"}
    if config.subset.data_root is not None:
        names[config.subset.data_root] = "DATA"
    if Path(config.catalog).is_absolute():
        names[Path(config.catalog).parent] = "CATALOG"
    folders = {str(folder): name for folder, name in names.items() if str(folder) != "/"}
    rows = []
    for state in states:
        if state.row is None:
            continue
        row = dict(state.row)
        for column, value in row.items():
            if isinstance(value, str):
                for folder in sorted(folders, key=len, reverse=True):
                    value = re.sub(rf"{re.escape(folder)}(?![\w.-])", folders[folder], value)
                row[column] = value
        rows.append(row)
    return rows


def _add_embeddings(
    out: Path, record: RunRecord, measured: Sequence[EntryState], pending: Path
) -> None:
    """Add the embeddings of all measured rows, and the clusters of their inputs."""
    origin = record.embeddings_from or out
    for state in measured:
        kept = embedding_path(origin, state.slug)
        if not kept.is_file():
            raise InputError(
                f"{kept} is missing, and --embeddings publishes all of them; rerun {state.name}, or publish without"
            )
        link_or_copy(kept, embedding_path(pending, state.slug))
    for name in input_files(out):
        link_or_copy(out / name, pending / name)


def _measures_version(record: RunRecord, measured: Sequence[EntryState]) -> int | None:
    """Return the version of the measures that computed the rows; None if it is unknown or differs between rows."""
    settings, n_samples = record.config.measures, record.subset.n_samples
    try:
        version_of = versions_of_measures(settings, n_samples)
        today = measures_identity(settings, n_samples)["version"]
    except InputError:  # the user's own measure is not here
        return None
    versions = {version_of(state.row) for state in measured if state.row}
    version = versions.pop() if len(versions) == 1 else None
    if version != today:
        log.warning(
            "not all rows are of today's version of the measures; `dsmi-zoo remeasure` makes them so"
        )
    return version


def page_versions() -> dict[str, str]:
    """Return the versions that determine a page: with the same versions, the same rows give the same page."""
    return {name: version(name) for name in PAGE_LIBRARIES}


def _archive(into: Path, earlier: Release, newer: Release) -> None:
    """Copy the earlier release into the next one's ``releases``; its page, card and record name the newer one."""
    archived = into / NEXT / EARLIER / earlier.id
    for name in read_sums(into):
        if not (into / name).is_file():
            raise InputError(
                f"{into / name} is missing, so the earlier release is damaged; choose another folder"
            )
        link_or_copy(into / name, archived / name)
    for name, with_notice in NOTICES.items():
        text = (archived / name).read_text(encoding="utf-8")
        write_text(archived / name, with_notice(text, newer))
    write_release(archived, earlier.model_copy(update={"superseded_by": newer.id}))
    write_sums(archived)


def finish_publication(into: Path) -> None:
    """Replace the release in ``into`` by the one in ``into / READY``; keep files that the earlier one did not list.

    It may be called again after an interruption at any step, even a power cut: the checksums move last, after all
    other changes are on the disk. The caller holds the lock.
    """
    ready = into / READY
    if not is_file(ready / SUMS):  # nothing to do, or only to tidy up
        shutil.rmtree(ready, ignore_errors=True)
        return
    new = read_sums(ready)
    earlier = read_sums(into) if is_file(into / SUMS) else {}
    for name in (EARLIER, *new, *earlier):
        if not (into / name).parent.resolve().is_relative_to(into.resolve()):
            raise InputError(f"{into / name} leads out of the folder by a symbolic link; remove it")
    for archived in (ready / EARLIER).glob("*"):
        make_folder(into / EARLIER)
        if not is_release(into / EARLIER / archived.name):
            move(archived, into / EARLIER / archived.name)
    changed = set()
    for name in new:
        make_folder((into / name).parent)
        if is_file(ready / name):
            (ready / name).replace(into / name)
        changed.add((into / name).parent)
    for name in earlier.keys() - new.keys():
        (into / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty yet
            (into / name).parent.rmdir()
        changed |= {(into / name).parent, (into / name).parent.parent}
    for folder in changed:
        if folder.is_dir():
            flush_folder(folder)
    move(ready / SUMS, into / SUMS)
    shutil.rmtree(ready)


def push(folder: Path, repository: str, public: bool = False, display: Display = SILENT) -> str:
    """Upload a published folder, remove files that only an earlier release had, and return the data set's address.

    Parameters
    ----------
    public
        Whether the repository, if it is created here, is visible to all.

    Raises
    ------
    InputError
        For an invalid name, for a repository that holds other files or a release unknown to the folder, or when the hub
        refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars

    # The error class of requests or httpx, depending on the client's version.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    refuse_wrong_name(repository)
    if not display.has_bars:
        disable_progress_bars()
    release, api = read_release(folder), HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        _refuse_others_content(api, repository, folder)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            ignore_patterns=[".*", "**/.*"],
            delete_patterns=["*"],
            commit_message=f"Release {release.id}",
        )
    except LocalTokenNotFoundError:
        raise InputError(
            "the hub needs a token that may write: set HF_TOKEN, or `hf auth login`"
        ) from None
    except OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it") from None
    except http_error as error:
        reason = shortened(str(error), 200)
        if not isinstance(error, HfHubHTTPError):
            raise InputError(
                f"{api.endpoint} cannot be reached ({reason}); try again later"
            ) from None
        is_forbidden = error.response.status_code in (401, 403)
        hint = ": set HF_TOKEN to a token that may write" if is_forbidden else ""
        raise InputError(f"the hub refused {repository} ({reason}){hint}") from None
    return f"{api.endpoint}/datasets/{repository}"


def refuse_wrong_name(repository: str) -> None:
    """Raise InputError for an invalid name of a repository."""
    problem = repository_problem(repository)
    if problem:
        raise InputError(f"--push {repository}: {problem}")


def _refuse_others_content(api: "HfApi", repository: str, folder: Path) -> None:
    """Raise InputError if the upload would remove files other than those of this folder's earlier releases."""
    there = set(api.list_repo_files(repository, repo_type="dataset"))
    if RELEASE not in there:
        if there - FILES_OF_A_NEW_REPOSITORY:
            raise InputError(
                f"{repository} holds something else than a release; choose a new repository"
            )
        return
    path = api.hf_hub_download(repository, RELEASE, repo_type="dataset")
    theirs = json.loads(Path(path).read_text(encoding="utf-8")).get("id")
    known = {
        read_release(folder).id,
        *(path.name for path in (folder / EARLIER).glob("*") if is_release(path)),
    }
    if theirs not in known:
        raise InputError(
            f"{repository} holds release {theirs}, which {folder} does not know; "
            f"`hf download {repository} --repo-type dataset --local-dir DIR`, then publish into DIR"
        )
