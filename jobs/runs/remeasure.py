"""Remeasure the stored embeddings of a run: all measures into another OUT, or the user's own into its rows."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import link_or_copy
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.compute import MEASURES
from dsmi_zoo.pipeline.config.run import MeasureSettings, RunConfig, from_command_line
from dsmi_zoo.pipeline.engine.row_content import RemeasureJob, added_code, lacks
from dsmi_zoo.pipeline.measures.own import (
    column_of,
    find_measure,
    measure_identity,
    spec_of,
    try_measures,
)
from dsmi_zoo.pipeline.plan.identity import check_own_measures, measures_identity, row_identity
from dsmi_zoo.pipeline.plan.job import Outcome
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.record import EntryRecord, RunRecord
from dsmi_zoo.pipeline.store.run_folder import input_files, read_run
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES
from dsmi_zoo.pipeline.store.subset_file import read_subset, write_subset

from ..progress import SILENT, Display, follow
from ..workers import open_workers
from .conclude import conclude
from .driver_lock import driver_lock
from .run import with_compute_changes
from .state import (
    EntryState,
    by_state,
    entry_states,
    make_writable,
    record_unless_lost,
    refuse_mixture,
    save_record,
    touch_record,
)

log = logging.getLogger(__name__)


def remeasure(
    source: Path,
    into: Path | None,
    changes: Mapping[str, Any],
    compute: Mapping[str, Any],
    display: Display = SILENT,
) -> int:
    """Measure every stored embedding of ``source`` with its settings, modified by ``changes``.

    Parameters
    ----------
    into
        The new OUT; by default one beside ``source``, named after the changes.
    changes
        Fields of ``MeasureSettings``.
    compute
        Fields of ``ComputeSettings`` that override the run's.

    Returns
    -------
    int
        The exit code.
    """
    record = read_run(source)
    before = with_compute_changes(record.config, compute)
    settings = from_command_line(MeasureSettings, before.measures.model_dump() | dict(changes))
    out = into or source.parent / f"{source.absolute().name}-{_named(before.measures, settings)}"
    out = out.absolute()
    if out == source.absolute():
        raise InputError(f"{source} cannot be remeasured into itself; choose another --into")
    config = before.model_copy(update={"out": out, "measures": settings})
    check_own_measures(config)

    origin = record.embeddings_from or source.absolute()
    jobs = _jobs(source, origin, record, settings)
    make_writable(out)
    with driver_lock(out) as confirm_lock:
        is_outdated = _prepare(out, source, origin, config, record, jobs)
        done = set()
        if not is_outdated:
            states, _ = entry_states(out, _entries(jobs))
            done = {state.slug for state in states if state.state == "ok"}
        if done:
            log.info(f"{len(done)} of {len(jobs)} models are done already")
        todo = [job for job in jobs if job.slug not in done]
        started = monotonic()
        if todo:
            from dsmi_zoo.pipeline.engine.graph import remeasure_entries

            log.info(f"{counted(len(todo), 'embedding')} to measure")
            with open_workers(config.compute, out, models=len(todo), modules=MEASURES) as workers:
                follow(remeasure_entries(workers, config, todo, confirm_lock), len(todo), display)
            touch_record(out)
        slugs = {job.slug for job in jobs}
        return conclude(out, slugs, started, display, report=config.compute.write_report)


def refuse_without_embeddings(origin: Path, jobs: Sequence[RemeasureJob]) -> None:
    """Raise InputError if the run ``origin`` has kept no embedding of any job."""
    if not any(job.embedding.exists() for job in jobs):
        raise InputError(
            f"{origin}/embeddings is empty: the run dropped its embeddings; run it without --drop-embeddings"
        )


def _jobs(
    source: Path, origin: Path, record: RunRecord, settings: MeasureSettings
) -> list[RemeasureJob]:
    """Return a job for each successful row of ``source``, whose embeddings are in ``origin``."""
    measures_id = measures_identity(settings, record.subset.n_samples)
    states, _ = entry_states(source, record.entries)
    jobs = []
    for state in states:
        if state.row is None or state.state != "ok":
            continue
        row_id = row_identity(state.row["embedding_id"], measures_id)
        embedding = embedding_path(origin, state.slug)
        jobs.append(
            RemeasureJob(source=state.row, slug=state.slug, row_id=row_id, embedding=embedding)
        )
    if not jobs:
        raise InputError(f"{source} has no finished model to remeasure")
    refuse_without_embeddings(origin, jobs)
    left_out = len(states) - len(jobs)
    if left_out:
        log.info(f"{left_out} models of {source} have no finished row and are left out")
    return jobs


def _prepare(
    out: Path,
    source: Path,
    origin: Path,
    config: RunConfig,
    record: RunRecord,
    jobs: Sequence[RemeasureJob],
) -> bool:
    """Write the files of OUT other than rows; return whether existing rows were measured without cluster files."""
    stored = record_unless_lost(out, {job.slug: job.row_id for job in jobs})
    if stored is not None:
        refuse_mixture(out, stored, config)
        if stored.embeddings_from != origin:
            raise InputError(f"{out} was not remeasured from {origin}; choose another --into")
    write_subset(out, read_subset(source))
    clusters = [name for name in input_files(origin) if name.parent.name == "input_clusters"]
    # Early versions did not copy cluster files.
    is_outdated = any(not (out / name).exists() for name in clusters)
    for name in clusters:
        link_or_copy(origin / name, out / name)
    save_record(
        out,
        config,
        record.catalog,
        record.subset,
        _entries(jobs),
        stored,
        embeddings_from=origin,
        earlier_catalogs=record.earlier_catalogs,
    )
    return is_outdated


def _entries(jobs: Sequence[RemeasureJob]) -> list[EntryRecord]:
    return [
        EntryRecord(
            model=job.source["model"],
            img_size=job.source["img_size"],
            slug=job.slug,
            row_id=job.row_id,
        )
        for job in jobs
    ]


def _named(before: MeasureSettings, after: MeasureSettings) -> str:
    """Return a folder name that describes the changed settings."""
    old, new = before.model_dump(), after.model_dump()
    parts = []
    for name, value in new.items():
        if value == old[name]:
            continue
        if name == "own":
            name, value = "measure", "+".join(spec.split(":")[-1] for spec in value)
        parts.append(f"{name}-{'sqrt-d' if value is None else value}")
    if not parts:
        raise InputError(
            "nothing to remeasure: the settings are those of the run; give --sigma, --t, --measure, ..."
        )
    return re.sub(r"[^A-Za-z0-9.+_-]", "-", "_".join(parts))


def add_own_scores(
    out: Path, specs: Sequence[str], compute: Mapping[str, Any], display: Display = SILENT
) -> int:
    """Add a column for each of the measures ``specs`` to the successful rows of ``out``, from their embeddings.

    The rows' identities and other columns stay. A row that has a value of the current code is left as it is, so that
    the same command continues after an interruption.

    Parameters
    ----------
    specs
        ``package.module:function``, names of functions (Z [n, d], labels [n]) -> float.
    compute
        Fields of ``ComputeSettings`` that override the run's.

    Returns
    -------
    int
        The exit code: 1 if a row has no value.
    """
    record = read_run(out)
    config = with_compute_changes(record.config, compute).model_copy(update={"out": out.absolute()})
    make_writable(out)
    with driver_lock(out) as confirm_lock:
        states, _ = entry_states(out, record.entries)
        measured, _, _ = by_state(states)
        jobs = _jobs_of_measured(out, record, measured)
        identities = _identities(out, record, specs, [job.source for job in jobs])
        names = [column_of(identity) for identity in identities]
        try_measures([spec_of(identity) for identity in identities], config.compute.model_timeout)
        read_subset(out)  # raises if damaged, because then no row would get a value
        if len(jobs) < len(states):
            missing = counted(len(states) - len(jobs), "model")
            log.info(f"{missing} of {out} without a finished row left out")
        todo = [job for job in jobs if any(lacks(job.source, one) for one in identities)]
        if len(todo) < len(jobs):
            log.info(f"{len(jobs) - len(todo)} of {len(jobs)} models are done already")
        started = monotonic()
        failed: list[Outcome] = []
        if todo:
            from dsmi_zoo.pipeline.engine.graph import add_own_scores as finished_rows

            log.info(f"adding {', '.join(names)} to {counted(len(todo), 'row')} of {out}")
            with open_workers(config.compute, out, models=len(todo), modules=MEASURES) as workers:
                finished = finished_rows(workers, config, todo, identities, confirm_lock)
                _, failed = follow(finished, len(todo), display)
            touch_record(out)
        slugs = {job.slug for job in jobs}
        code = conclude(
            out, slugs, started, display, report=config.compute.write_report, added=names
        )
        if failed:
            models = counted(len(failed), "model")
            log.warning(f"{models} without a value; the same command tries them again")
        return 1 if failed else code


def _jobs_of_measured(
    out: Path, record: RunRecord, measured: Sequence[EntryState]
) -> list[RemeasureJob]:
    origin = record.embeddings_from or out.absolute()
    jobs = []
    for state in measured:
        assert state.row is not None
        embedding = embedding_path(origin, state.slug)
        jobs.append(RemeasureJob(state.row, state.slug, state.row["row_id"], embedding))
    if not jobs:
        raise InputError(f"{out} has no finished model to measure")
    refuse_without_embeddings(origin, jobs)
    return jobs


def _identities(
    out: Path, record: RunRecord, specs: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the identities of the measures' code; raise InputError for a name that another column has."""
    columns, added = set(COLUMN_NAMES), dict[str, str]()
    for row in rows:
        columns |= set(row)
        added |= added_code(row)
    identities = []
    for spec in dict.fromkeys(specs):
        if spec in record.config.measures.own:
            raise InputError(
                f"--measure {spec}: {out} has this column since it was run; for the code as it is now, give --into"
            )
        theirs = {name for name, identity in added.items() if spec_of(identity) == spec}
        module, name = find_measure(spec, columns - theirs)
        columns.add(name)
        identities.append(measure_identity(spec, module))
    return identities
