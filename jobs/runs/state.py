"""The state of OUT: opening it for a run, refusing that of another run, and finding which entries are done."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsmi_zoo._util.errors import DamagedFile, InputError
from dsmi_zoo._util.files import make_folder, move, sweep_temporary, write_atomically
from dsmi_zoo._util.text import counted, shown
from dsmi_zoo._util.versions import git_commit, library_versions
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.registry import catalog_sha256
from dsmi_zoo.pipeline.config.run import RunConfig, SubsetSettings, differences
from dsmi_zoo.pipeline.plan.plan import Job, Plan
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.record import (
    FORMAT,
    CatalogRecord,
    EntryRecord,
    LostRecord,
    RunRecord,
    SubsetRecord,
)
from dsmi_zoo.pipeline.store.run_folder import (
    NOT_THIS_RUN,
    UnreadableRow,
    read_run,
    scan_results,
    write_run,
)
from dsmi_zoo.pipeline.store.subset_file import read_subset
from dsmi_zoo.pipeline.weights.hub import NOT_REACHED, RESUMES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntryState:
    """Whether one entry of a run is done, and the ``reason`` if it is not."""

    name: str
    slug: str
    state: Literal["ok", "failed", "missing"]
    reason: str
    row: dict[str, Any] | None

    @property
    def was_not_reached(self) -> bool:
        """Whether the entry failed because a server could not be reached: the same run retries it automatically."""
        return (
            self.state == "failed"
            and self.row is not None
            and self.row["error_type"] in NOT_REACHED
        )


def by_state(
    states: Sequence[EntryState],
) -> tuple[list[EntryState], list[EntryState], list[EntryState]]:
    """Return the states that are ok, failed and missing."""
    lists: dict[str, list[EntryState]] = {"ok": [], "failed": [], "missing": []}
    for state in states:
        lists[state.state].append(state)
    return lists["ok"], lists["failed"], lists["missing"]


def entry_states(
    out: Path, entries: Sequence[EntryRecord]
) -> tuple[list[EntryState], list[UnreadableRow]]:
    """Return the state of each of ``entries`` (of run.json), and the files in results that are not rows."""
    rows, unreadable = scan_results(out)
    broken = {
        problem.path.stem: problem for problem in unreadable if problem.path.suffix == ".parquet"
    }
    states = []
    for entry in entries:
        slug, row = entry.slug, rows.get(entry.slug)
        if row is None:
            state, reason = "missing", broken[slug].reason if slug in broken else "not computed yet"
        elif row["row_id"] != entry.row_id:
            state, reason, row = "missing", NOT_THIS_RUN, None
        elif row["status"] == "failed":
            state, reason = "failed", f"{row['error_type']}: {row['error_message']}"
        else:
            state, reason = "ok", ""
        states.append(EntryState(str(entry), slug, state, reason, row))  # type: ignore[arg-type]
    return states, unreadable


def states_of(plan: Plan) -> tuple[list[EntryState], list[UnreadableRow]]:
    """Return the state of each job of a plan in its order, and the files in results that are not rows."""
    return entry_states(plan.config.folder, [_entry_of(job) for job in plan.jobs])


def is_to_compute(state: EntryState, retry_failed: bool) -> bool:
    """Return whether a run computes an entry: it has no row, or a failed one that is to be tried again."""
    is_retried = state.was_not_reached or (state.state == "failed" and retry_failed)
    return state.state == "missing" or is_retried


def _entry_of(job: Job) -> EntryRecord:
    return EntryRecord(
        model=job.entry.model, img_size=job.entry.img_size, slug=job.slug, row_id=job.row_id
    )


def how_to_retry(failed: Sequence[EntryState], command: str) -> str:
    """Return how to retry failed entries, in words: by ``command``, or by the same run if a server was not reached."""
    not_reached = sum(state.was_not_reached for state in failed)
    if not not_reached:
        return f"try them again: {command}"
    of = f"the weights of {counted(not_reached, 'model')} could not be reached: {RESUMES}"
    return of if not_reached == len(failed) else f"{of}; try the others again: {command}"


def open_out(plan: Plan) -> RunRecord:
    """Create OUT, or check that it belongs to the same configuration, and add the plan's entries to run.json.

    Returns
    -------
    RunRecord
        The content of run.json.

    Raises
    ------
    InputError
        When OUT is a file, cannot be written, or belongs to a run whose numbers are not comparable with this one's.
    """
    config, out = plan.config, plan.config.folder
    make_writable(out)
    stored = record_of_same_run(plan)
    entries = {entry.slug: entry for entry in (stored.entries if stored else ())}
    for job in plan.jobs:
        entries[job.slug] = _entry_of(job)
    subset = SubsetRecord(
        dataset=plan.subset.images.name,
        hash=plan.subset.digest,
        n_samples=len(plan.subset.labels) * plan.subset.repeats,
        n_images=len(plan.subset.labels),
        n_classes=plan.subset.n_classes,
        seed=config.subset.seed,
        account=plan.subset.account,
        classes=_class_names(plan.subset),
        n_largest_class=int(plan.subset.class_sizes.max()),
    )
    catalog = CatalogRecord(name=config.catalog, sha256=catalog_sha256(config.catalog))
    earlier = other_catalogs([stored] if stored else [], catalog)
    return save_record(out, config, catalog, subset, list(entries.values()), stored, None, earlier)


def other_catalogs(
    records: Iterable[RunRecord], catalog: CatalogRecord
) -> tuple[CatalogRecord, ...]:
    """Return the catalogues of runs other than ``catalog``, the oldest first."""
    known: dict[str, CatalogRecord] = {}
    for record in records:
        known |= {one.name: one for one in (*record.earlier_catalogs, record.catalog)}
    return tuple(
        one
        for one in known.values()
        if one.name != catalog.name and (one.sha256 is None or one.sha256 != catalog.sha256)
    )


def _class_names(subset: Subset) -> tuple[str, ...]:
    """Return the names of the subset's classes, in the order of their labels."""
    known = subset.images.class_names
    names = [known.get(label, str(label)) for label in np.unique(subset.labels).tolist()]
    # A folder's name may hold bytes that are not text, which JSON cannot store.
    return tuple(name.encode(errors="backslashreplace").decode() for name in names)


def record_of_same_run(plan: Plan) -> RunRecord | None:
    """Return the content of OUT's run.json; None if OUT has no rows, or rows whose record is lost. Write nothing.

    Raises
    ------
    InputError
        When OUT belongs to a run whose numbers are not comparable with the plan's.
    """
    out = plan.config.folder
    stored = record_unless_lost(out, {job.slug: job.row_id for job in plan.jobs})
    if stored is None:
        if plan.config.compute.keep_embeddings:
            _refuse_without_embeddings(out)
        return None
    refuse_remeasured(out, stored)
    refuse_mixture(out, stored, plan.config)
    if stored.subset.hash != plan.subset.digest:
        was = images_in_words(stored.subset.n_images, stored.subset.n_classes, stored.config.subset)
        given = images_in_words(len(plan.subset.labels), plan.subset.n_classes, plan.config.subset)
        raise InputError(
            f"{out} holds rows of {was}; you gave {given}: {_difference_of_images(out, plan)}. "
            "Rows of different images cannot be compared; choose another --out"
        )
    _refuse_namesakes(out, stored, plan)
    return stored


def images_in_words(images: int, classes: int, settings: SubsetSettings) -> str:
    """Describe images by their folder or data set, as a user knows them: ``120 images in 4 classes of clothes``."""
    root = settings.data_root
    name = settings.dataset if root is None else root.name or str(root)
    return f"{counted(images, 'image')} in {counted(classes, 'class')} of {shown(name)}"


def _difference_of_images(out: Path, plan: Plan) -> str:
    """Return in words how the files of a plan differ from those whose rows OUT holds."""
    try:
        stored = read_subset(out)
    except DamagedFile:
        return "which files differ is unknown, because its list of images is missing or damaged"
    was, given = set(stored["image"]), set(plan.subset.images.names)
    if was != given:
        new, gone = counted(len(given - was), "new file"), len(was - given)
        return f"{new}, {gone} removed, {len(was & given)} of the same name"
    return "the same file names, with other content or classes, or another level of --white"


def _refuse_namesakes(out: Path, stored: RunRecord, plan: Plan) -> None:
    """Refuse a catalogue whose entries would replace rows of another catalogue's entries of the same name."""
    if stored.catalog.name == plan.config.catalog:
        return
    row_ids = {entry.slug: entry.row_id for entry in stored.entries}
    others = [job for job in plan.jobs if row_ids.get(job.slug, job.row_id) != job.row_id]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"{plan.config.catalog}: {others[0].entry}{more} has other weights, code or inputs than the entry of that "
            f"name in {out}; rename it, or choose another --out"
        )


def record_unless_lost(out: Path, row_ids: Mapping[str, str]) -> RunRecord | None:
    """Return the content of OUT's run.json; None if OUT has no rows, or rows of these identities whose record is lost.

    A row holds its identity, so one whose identity is in ``row_ids`` (by slug) belongs here even without a record.

    Raises
    ------
    InputError
        When the record is missing or damaged, and no row has one of these identities.
    """
    if not any((out / "results").glob("*.parquet")):
        return None
    try:
        return read_run(out)
    except LostRecord as problem:
        rows, _ = scan_results(out)
        ours = sum(row["row_id"] == row_ids.get(slug) for slug, row in rows.items())
        if not ours:
            mend = "its rows are of other settings than these, so choose another --out"
            raise InputError(f"{problem.problem}; {mend}") from None
        log.warning(
            f"{problem.problem}; {counted(ours, 'row')} of this configuration: run.json will be rewritten"
        )
        return None


def _refuse_without_embeddings(out: Path) -> None:
    """Raise InputError if OUT has no record and its rows were measured from another run's embeddings."""
    rows, _ = scan_results(out)
    measured = [slug for slug, row in rows.items() if row["status"] == "ok"]
    if measured and not any(embedding_path(out, slug).exists() for slug in measured):
        raise InputError(
            f"{out} has rows but neither run.json nor embeddings: repeat the `dsmi-zoo remeasure` that made it, or say "
            "--drop-embeddings if they were dropped"
        )


def save_record(
    out: Path,
    config: RunConfig,
    catalog: CatalogRecord,
    subset: SubsetRecord,
    entries: Sequence[EntryRecord],
    stored: RunRecord | None,
    embeddings_from: Path | None = None,
    earlier_catalogs: tuple[CatalogRecord, ...] = (),
) -> RunRecord:
    """Write run.json and return its content; keep the other content of ``stored``."""
    now = datetime.now(UTC)
    whole = config.model_copy(update={"compute": config.compute.model_copy(update={"share": None})})
    unknown = (stored.model_extra if stored else None) or {}
    record = RunRecord(
        format=FORMAT,
        config=whole,
        identity=config.identity(),
        catalog=catalog,
        earlier_catalogs=earlier_catalogs,
        subset=subset,
        entries=tuple(entries),
        versions=library_versions(),
        git_commit=git_commit(),
        created_at=stored.created_at if stored else now,
        updated_at=now,
        embeddings_from=embeddings_from,
        search=stored.search if stored else None,
        **unknown,
    )
    try:
        read_run(out)
    except LostRecord:
        with suppress(FileNotFoundError):
            move(out / "run.json", out / "run.json.damaged")  # for the user to inspect
    write_run(out, record)
    return record


def touch_record(out: Path) -> None:
    """Update the time in run.json at which rows were changed."""
    write_run(out, read_run(out).model_copy(update={"updated_at": datetime.now(UTC)}))


def make_writable(out: Path, folders: Sequence[str] = ("results", "embeddings")) -> None:
    """Create OUT and its folders, and check that they can be written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder; choose another --out")
    try:
        for folder in folders:
            make_folder(out / folder)
            sweep_temporary(out / folder)
        write_atomically(out / ".writable", lambda file: file.write(b""))
        # Another share of the run may remove it at the same time.
        (out / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror}); choose another --out"
        ) from None


def refuse_remeasured(out: Path, stored: RunRecord) -> None:
    """Raise InputError if OUT was measured from another run's embeddings, and only ``remeasure`` can add to it."""
    if stored.embeddings_from is not None:
        raise InputError(
            f"{out} was remeasured from {stored.embeddings_from}: run or rerun there, then remeasure again"
        )


OWN_MEASURES = "measures.own = "
"""The prefix of a difference in the user's own measures; users know the setting as ``--measure``."""


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without the catalogue, and with scores ``all`` if an earlier version recorded none."""
    measures = {"scores": "all"} | identity["measures"]
    return {**identity, "catalog": None, "measures": measures}


def refuse_mixture(out: Path, stored: RunRecord, config: RunConfig) -> None:
    """Raise InputError unless OUT's rows were computed with the same settings; catalogues may differ."""
    was, given = (_comparable(one) for one in (stored.identity, config.identity()))
    different = list(differences(was, given))
    if [line.partition(" = ")[0] for line in different] == ["measures.scores"]:
        scores = config.measures.scores
        raise InputError(
            f"{out} was run with --scores {stored.config.measures.scores}; leave --scores out to continue it, or: "
            f"dsmi-zoo remeasure --out {out} --scores {scores}"
        )
    lacking = [spec for spec in config.measures.own if spec not in stored.config.measures.own]
    if lacking and len(different) == 1 and different[0].startswith(OWN_MEASURES):
        options = " ".join(f"--measure {spec}" for spec in lacking)
        raise InputError(
            f"{out} was run without {options}; add it to its rows: dsmi-zoo remeasure --out {out} {options}"
        )
    if different:
        different = [line.replace(OWN_MEASURES, "--measure = ", 1) for line in different]
        raise InputError(
            f"{out} belongs to another configuration: {'; '.join(different)}; choose another --out"
        )


def with_scores_of_folder(config: RunConfig) -> RunConfig:
    """Return the settings with OUT's choice of scores (earlier versions: all), unless ``--scores`` is given."""
    if "scores" in config.measures.model_fields_set:
        return config
    try:
        scores = read_run(config.folder).config.measures.scores
    except InputError:  # no run.json yet, or an error that opening OUT reports
        return config
    if scores == config.measures.scores:
        return config
    log.info(f"{config.folder} holds rows with --scores {scores}; continuing with these")
    measures = config.measures.model_copy(update={"scores": scores})
    return config.model_copy(update={"measures": measures})


SHOWN = 50  # missing entries, at most
