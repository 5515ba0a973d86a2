"""Add the user's own measures to the rows of a finished run, where they are; nothing else is computed again."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.compute import MEASURES
from dsmi_zoo.pipeline.engine.outcome import Outcome
from dsmi_zoo.pipeline.engine.row_content import RemeasureJob, added_code, lacks
from dsmi_zoo.pipeline.measures.own import (
    column_of,
    find_measure,
    measure_identity,
    spec_of,
    try_measures,
)
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.run_folder import embedding_path, read_run
from dsmi_zoo.pipeline.store.schema import COLUMN_NAMES
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..progress import SILENT, Display, follow
from ..workers import open_workers
from .conclude import conclude
from .driver_lock import driver_lock
from .remeasure import refuse_without_embeddings
from .run import elsewhere
from .state import EntryState, by_state, entry_states, make_writable, touch_record

log = logging.getLogger(__name__)


def add_own_scores(
    out: Path, specs: Sequence[str], compute: Mapping[str, Any], display: Display = SILENT
) -> int:
    """Add a column for each of the measures ``specs`` to the successful rows of ``out``, from their embeddings.

    The rows' identities and other columns stay. A row that has a value of today's code is left as it is, so that the
    same command finishes what was interrupted.

    Parameters
    ----------
    specs
        ``package.module:function``, of functions (Z [n, d], labels [n]) -> float.
    compute
        Fields of ``ComputeSettings`` that override the run's.

    Returns
    -------
    int
        The exit code: 1 if a row has no value.
    """
    record = read_run(out)
    config = elsewhere(record.config, compute).model_copy(update={"out": out.absolute()})
    make_writable(out)
    with driver_lock(out) as confirm_lock:
        states, _ = entry_states(out, record.entries)
        measured, _, _ = by_state(states)
        jobs = _jobs(out, record, measured)
        identities = _identities(out, record, specs, [job.source for job in jobs])
        names = [column_of(identity) for identity in identities]
        try_measures([spec_of(identity) for identity in identities], config.compute.model_timeout)
        read_subset(out)  # damaged, it would leave every row without a value
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


def _jobs(out: Path, record: RunRecord, measured: Sequence[EntryState]) -> list[RemeasureJob]:
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
