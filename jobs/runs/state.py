"""The state of OUT: opened for a run, refused if it belongs to another, and which entries are done."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import make_folder, move, sweep_temporary, write_atomically
from dsmi_zoo._util.text import counted
from dsmi_zoo._util.versions import git_commit, library_versions
from dsmi_zoo.data_catalog.models.registry import catalog_sha256
from dsmi_zoo.pipeline.config.run import RunConfig, differences
from dsmi_zoo.pipeline.monitor.file import monitor_path, read_monitor
from dsmi_zoo.pipeline.plan.plan import Plan
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
    embedding_path,
    read_run,
    scan_results,
    write_run,
)

from ..terminal import print_line
from .driver_lock import WHOLE, drivers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntryState:
    """Whether one entry of a run is done, and the ``reason`` if it is not."""

    name: str
    slug: str
    state: Literal["ok", "failed", "missing"]
    reason: str
    row: dict[str, Any] | None


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
        entries[job.slug] = EntryRecord(
            model=job.entry.model, img_size=job.entry.img_size, slug=job.slug, row_id=job.row_id
        )
    subset = SubsetRecord(
        dataset=plan.subset.images.name,
        hash=plan.subset.digest,
        n_samples=len(plan.subset.labels) * plan.subset.repeats,
        n_images=len(plan.subset.labels),
        n_classes=plan.subset.n_classes,
        seed=config.subset.seed,
        account=plan.subset.account,
        n_largest_class=int(plan.subset.class_sizes.max()),
    )
    catalog = CatalogRecord(name=config.catalog, sha256=catalog_sha256(config.catalog))
    return save_record(out, config, catalog, subset, list(entries.values()), stored)


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
        raise InputError(
            f"{out} was computed on the images {stored.subset.hash}, not {plan.subset.digest}: "
            "the data set's content, or --white, has changed; choose another --out"
        )
    return stored


def record_unless_lost(out: Path, row_ids: Mapping[str, str]) -> RunRecord | None:
    """Return the content of OUT's run.json; None if OUT has no rows, or rows of these identities whose record is lost.

    A row holds its identity, so one that is among ``row_ids`` (by slug) belongs here without a record too.

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
) -> RunRecord:
    """Write run.json and return its content; keep what else ``stored`` holds."""
    now = datetime.now(UTC)
    whole = config.model_copy(update={"compute": config.compute.model_copy(update={"share": None})})
    unknown = (stored.model_extra if stored else None) or {}
    record = RunRecord(
        format=FORMAT,
        config=whole,
        identity=config.identity(),
        catalog=catalog,
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
        # Another share of the run may do so at the same time.
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


def refuse_mixture(out: Path, stored: RunRecord, config: RunConfig) -> None:
    """Raise InputError unless OUT's rows were computed with the same settings."""
    different = list(differences(stored.identity, config.identity()))
    if different:
        raise InputError(
            f"{out} belongs to another configuration: {'; '.join(different)}; choose another --out"
        )


SHOWN = 50  # missing entries


def status(out: Path) -> int:
    """Print what is done, failed (and why) and missing; return exit code 1 when an entry failed."""
    if monitor_path(out).exists() and not (out / "run.json").exists():
        return _of_monitor(out)
    begun = sorted((out / "stages").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if begun and not (out / "run.json").exists():
        print_line(
            f"{out}: an unfinished search on a budget, at its latest stage; the same run goes on from there"
        )
        out = begun[-1].parent
    record = read_run(out)
    states, unreadable = entry_states(out, record.entries)
    ok, failed, missing = by_state(states)
    print_line(
        f"{out}: catalogue {record.catalog.name}, {counted(len(states), 'model')}: "
        f"{len(ok)} ok, {len(failed)} failed, {len(missing)} missing",
    )
    for name, held in drivers(out).items():
        print_line(f"  being computed{'' if name == WHOLE else f' ({name})'} by {held}")
    for state in failed:
        print_line(f"  failed: {state.name}: {state.reason}")
    for state in missing[:SHOWN]:
        print_line(f"  missing: {state.name}: {state.reason}")
    if len(missing) > SHOWN:
        print_line(f"  missing: {len(missing) - SHOWN} more")
    known = {state.slug for state in states}
    for problem in unreadable:
        if problem.path.suffix != ".parquet" or problem.path.stem not in known:
            print_line(f"  not a row: {problem}")
    if missing:
        print_line("compute what is missing: the same `dsmi-zoo run` again")
    if failed:
        again = (
            "the same remeasure" if record.embeddings_from else f"dsmi-zoo rerun MODEL --out {out}"
        )
        print_line(f"try failed ones again: {again}")
    return 1 if failed else 0


def _of_monitor(out: Path) -> int:
    rows, facts = read_monitor(out)
    last = rows.iloc[-1]
    print_line(
        f"{out}: a monitored training, {counted(len(rows), 'measurement')} of {int(last['n_samples'])} images up to "
        f"step {int(last['step'])}, every {facts['every']} steps"
    )
    print_line(f"draw its curves: dsmi-zoo report --out {out}")
    return 0
