"""The main job: plan, compute what is missing, report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from dsmi_zoo._util.files import damage_problem
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.data_catalog.models.registry import find_entries
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig, from_command_line
from dsmi_zoo.pipeline.engine.row_content import with_current_facts
from dsmi_zoo.pipeline.plan.order import balanced
from dsmi_zoo.pipeline.plan.plan import Job, Plan, plan_of_all
from dsmi_zoo.pipeline.store.run_folder import read_run, row_path, write_row
from dsmi_zoo.pipeline.store.subset_file import clusters_path, subset_is_stored

from ..progress import SILENT, Display, follow
from ..workers import open_workers
from .conclude import conclude, conclude_share
from .downloads import (
    evict_finished,
    log_images,
    log_plan,
    plan_run,
    waves_within_budget,
    with_weights_here,
)
from .driver_lock import driver_lock
from .finalists import fine_tune_after
from .forecast import expected_costs
from .state import (
    is_to_compute,
    make_writable,
    open_out,
    refuse_remeasured,
    states_of,
    touch_record,
)

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    display: Display = SILENT,
    *,
    retry_failed: bool = False,
    client: "Client | None" = None,
) -> int:
    """Compute all rows that OUT lacks and write the report.

    Parameters
    ----------
    display
        Where bars are shown; by default nowhere, and the loggers below ``dsmi_zoo`` report progress.

    Returns
    -------
    int
        The exit code: 0, or 1 when a model failed.
    """
    plan = plan_run(config, display)
    log_plan(plan)
    make_writable(config.folder)
    with driver_lock(config.folder, config.compute.share) as confirm_lock:
        open_out(plan)
        todo = jobs_to_compute(_share_of(plan), retry_failed)
        return _compute(plan, todo, display, confirm_lock, client)


def with_compute_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return a run's settings with changed compute settings; it writes a report unless the changes forbid it."""
    stored = config.compute.model_dump() | {"write_report": True}
    compute = from_command_line(ComputeSettings, stored | dict(changes))
    return config.model_copy(update={"compute": compute})


def _share_of(plan: Plan) -> Plan:
    """Return the part of the plan that this process computes: all of it, or its share."""
    share = plan.config.compute.share
    if share is None:
        return plan
    part, _, parts = share.partition("/")
    shares = balanced(plan.jobs, int(parts), len(plan.subset.labels) * plan.subset.repeats)
    return Plan(plan.config, plan.subset, tuple(shares[int(part) - 1]))


def rerun(
    out: Path, names: Sequence[str], compute: Mapping[str, Any], display: Display = SILENT
) -> int:
    """Recompute single entries of a run; an old row stays until the new one is written.

    Parameters
    ----------
    compute
        Fields of ``ComputeSettings`` that override the run's.
    """
    record = read_run(out)
    refuse_remeasured(out, record)
    stored = with_compute_changes(record.config, compute)
    config = stored.model_copy(update={"out": out.absolute(), "models": (), "filters": Filters()})
    with display.status("Reading catalogue and images"):
        plan = plan_of_all(config, record)
    log_images(plan.subset)
    recorded = {entry.slug: entry.row_id for entry in record.entries}
    jobs = [job for job in plan.jobs if job.slug in recorded]
    found = find_entries([job.entry for job in jobs], names, str(out))
    slugs = {entry.slug for entry in found}
    chosen = Plan(config, plan.subset, tuple(job for job in jobs if job.slug in slugs))
    outdated = sum(job.row_id != recorded[job.slug] for job in jobs if job.slug not in slugs)
    if outdated:
        log.warning(
            f"{counted(outdated, 'other model')} of {out} would be computed from other weights, code or inputs today; "
            "the same `dsmi-zoo run` recomputes them"
        )
    make_writable(config.folder)
    with driver_lock(config.folder) as confirm_lock:
        open_out(chosen)
        once = config.compute.model_copy(update={"finetune": None})
        chosen = replace(chosen, config=config.model_copy(update={"compute": once}))
        return _compute(chosen, chosen.jobs, display, confirm_lock)


def jobs_to_compute(plan: Plan, retry_failed: bool) -> list[Job]:
    """Return the jobs that are to be computed; update the catalogue's facts in the other rows."""
    out = plan.config.folder
    jobs = {job.slug: job for job in plan.jobs}
    states, unreadable = states_of(plan)
    damaged = set()
    for problem in unreadable:
        if problem.path.stem in jobs and problem.path.suffix == ".parquet":
            damaged.add(problem.path.stem)
            log.warning(f"not a row: {problem}; recomputing it")
        else:
            log.warning(f"not a row: {problem}")
    todo = []
    outdated = not_reached = 0
    for state in states:
        job = jobs[state.slug]
        if is_to_compute(state, retry_failed):
            todo.append(job)
            not_reached += state.was_not_reached
            is_there = state.state == "missing" and row_path(out, state.slug).exists()
            outdated += is_there and state.slug not in damaged
        elif state.row is not None:
            row = with_current_facts(state.row, job.entry)
            if job.entry.layer is not None:  # earlier versions did not record it
                row["network_id"] = job.network_id
            if row != state.row:
                write_row(out, state.slug, row)
    if outdated:
        log.info(
            f"{outdated} rows are of other weights, code or inputs than today's; recomputing them"
        )
    if not_reached:
        log.info(f"{counted(not_reached, 'model')} could not be reached before; trying again")
    if len(todo) < len(jobs):
        log.info(f"{len(jobs) - len(todo)} of {len(jobs)} models are done already")
    return todo


def _compute(
    plan: Plan,
    todo: Sequence[Job],
    display: Display,
    confirm_lock: Callable[[], None],
    client: "Client | None" = None,
) -> int:
    """Compute the rows, or, if there are none to compute, repair OUT's subset and cluster files; then conclude."""
    out, compute = plan.config.folder, plan.config.compute
    started = monotonic()
    evict_finished(plan, todo)
    if client is None:
        todo = with_weights_here(plan.config, todo)
    if todo:
        from dsmi_zoo.pipeline.engine.graph import run_in_waves

        images = f"{len(plan.subset.labels)} images of {plan.subset.images.name}"
        log.info(f"{counted(len(todo), 'model')} to measure on {images}")
        waves = waves_within_budget(plan, todo, display)
        with ExitStack() as stack:
            opened = open_workers(compute, out, client, models=len(todo))
            with display.status("Starting workers"):
                workers = stack.enter_context(opened)
            finished = run_in_waves(workers, plan, waves, confirm_lock)
            follow(finished, len(todo), display, costs=expected_costs(plan, todo))
        touch_record(out)
    elif _inputs_are_damaged(plan):
        from dsmi_zoo.pipeline.engine.graph import repair_inputs

        log.warning(f"{out}: subset or cluster files are missing or damaged; repairing them")
        with (
            open_workers(compute, out, client) as workers,
            display.status("Reading the images"),
        ):
            repair_inputs(workers, plan)
    if compute.share is not None:
        return conclude_share(out, compute.share, {job.slug for job in todo}, started)
    failed = fine_tune_after(plan.config, display, confirm_lock, client)
    slugs = {job.slug for job in plan.jobs}
    code = conclude(out, slugs, started, display, report=compute.write_report)
    return 1 if failed else code


def _inputs_are_damaged(plan: Plan) -> bool:
    """Return whether OUT's subset or cluster files differ from what was written; later measures may need them.

    If no row was measured, they may never have been written.
    """
    if not _inputs_of_any_are_damaged(plan, plan.jobs):
        return False
    measured = {state.slug for state in states_of(plan)[0] if state.state == "ok"}
    jobs = [job for job in plan.jobs if job.slug in measured]
    return bool(jobs) and _inputs_of_any_are_damaged(plan, jobs)


def _inputs_of_any_are_damaged(plan: Plan, jobs: Sequence[Job]) -> bool:
    out = plan.config.folder
    if not subset_is_stored(out, plan.subset):
        return True
    if plan.config.protocol != "paper":
        return False
    sizes = {size for job in jobs if (size := job.entry.img_size) is not None}
    return any(damage_problem(clusters_path(out, size), needs_note=False) for size in sizes)
