"""The main job: plan, compute what is missing, report."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import noted_damage
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.data_catalog.models.registry import find_entries
from dsmi_zoo.pipeline.config.run import ComputeSettings, RunConfig, from_command_line
from dsmi_zoo.pipeline.engine.row_content import with_current_facts
from dsmi_zoo.pipeline.plan.order import balanced
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.pipeline.store.run_folder import read_run, row_path, write_row
from dsmi_zoo.pipeline.store.subset_file import clusters_path, subset_is_stored
from dsmi_zoo.pipeline.weights.cache import remote_weights
from dsmi_zoo.pipeline.weights.hub import is_offline
from dsmi_zoo.pipeline.weights.waves import downloads, evict, waves_of_jobs, within_download

from ..clusters.opening import open_workers
from ..progress import SILENT, Display, duration, follow
from .driver_lock import driving
from .fleet import expected_costs
from .offline import with_weights_here
from .state import (
    EntryState,
    by_state,
    entry_states,
    make_writable,
    open_out,
    refuse_remeasured,
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
        Where bars are shown; nowhere by default, and what happens is told to the loggers below ``dsmi_zoo``.

    Returns
    -------
    int
        The exit code: 0, or 1 when a model failed.
    """
    with display.status("Reading catalogue and images"):
        plan = make_plan(config)
    if config.compute.max_download is not None:
        plan = within_max_download(plan, sizes_to_download(plan, display))
    make_writable(config.folder)
    with driving(config.folder, config.compute.share) as confirm:
        record = open_out(plan)
        todo = missing(_share_of(plan), record, retry_failed)
        return _compute(plan, todo, display, confirm, client)


def elsewhere(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The same run on other workers; it writes a report unless the changes say no."""
    stored = config.compute.model_dump() | {"write_report": True}
    compute = from_command_line(ComputeSettings, stored | dict(changes))
    return config.model_copy(update={"compute": compute})


def _share_of(plan: Plan) -> Plan:
    """What of the plan this process is to do: all of it, or one of several shares."""
    share = plan.config.compute.share
    if share is None:
        return plan
    part, _, parts = share.partition("/")
    shares = balanced(plan.jobs, int(parts), len(plan.subset.labels) * plan.subset.repeats)
    return Plan(plan.config, plan.subset, tuple(shares[int(part) - 1]))


def rerun(
    out: Path, names: Sequence[str], compute: Mapping[str, Any], display: Display = SILENT
) -> int:
    """Compute single entries of a run anew; an old row stays until its successor is written.

    Parameters
    ----------
    compute
        Fields of ``ComputeSettings`` that are not to be as they were for the run.
    """
    record = read_run(out)
    refuse_remeasured(out, record)
    stored = elsewhere(record.config, compute)
    config = stored.model_copy(update={"out": out.absolute(), "models": (), "filters": Filters()})
    with display.status("Reading catalogue and images"):
        plan = make_plan(config)
    slugs = {entry.slug for entry in record.entries}
    jobs = [job for job in plan.jobs if job.slug in slugs]
    entries = [job.entry for job in jobs]
    chosen = {entry.slug for entry in find_entries(entries, names, str(out))}
    chosen_plan = Plan(config, plan.subset, tuple(job for job in jobs if job.slug in chosen))
    recorded = {entry.slug: entry.row_id for entry in record.entries}
    outdated = sum(job.row_id != recorded[job.slug] for job in jobs if job.slug not in chosen)
    if outdated:
        log.warning(
            f"{counted(outdated, 'other model')} of {out} would be computed from other weights, code or inputs today; "
            "the same `dsmi-zoo run` computes them anew"
        )
    make_writable(config.folder)
    with driving(config.folder) as confirm:
        open_out(chosen_plan)
        return _compute(chosen_plan, chosen_plan.jobs, display, confirm)


def sizes_to_download(plan: Plan, display: Display) -> dict[str, int | None]:
    """Bytes of each file of weights that the cache lacks; None if its server does not say, or may not be asked."""
    with display.status("Asking for the sizes of the weights"):
        sizes = downloads(plan.jobs, plan.config.compute.cache)
    if sizes and is_offline():
        files = counted(len(sizes), "file")
        log.warning(
            f"{files} of weights not in the cache, and HF_HUB_OFFLINE forbids downloading: run prefetch"
        )
    return sizes


def within_max_download(plan: Plan, sizes: Mapping[str, int | None]) -> Plan:
    """The plan without the models whose weights would exceed ``--max-download``, if that is given.

    Raises
    ------
    InputError
        When no model is left.
    """
    most = plan.config.compute.max_download
    if most is None:
        return plan
    jobs = within_download(plan.jobs, sizes, most)
    if not jobs:
        given = size_in_words(most)
        raise InputError(
            f"the weights of no model fit --max-download {given}; raise it or run prefetch first"
        )
    needed = {remote_weights(job.entry) for job in jobs}
    total = sum(size or 0 for name, size in sizes.items() if name in needed)
    left_out = len(plan.jobs) - len(jobs)
    log.info(
        f"{counted(left_out, 'model')} left out by --max-download; {size_in_words(total)} to download"
    )
    return Plan(plan.config, plan.subset, tuple(jobs))


def missing(plan: Plan, record: RunRecord, retry_failed: bool) -> list[Job]:
    """The jobs without a row of their identity; rows that stay take over what the catalogue says today."""
    out = plan.config.folder
    jobs = {job.slug: job for job in plan.jobs}
    states, unreadable = entry_states(
        out, [entry for entry in record.entries if entry.slug in jobs]
    )
    for problem in unreadable:
        mended = (
            "; computing it anew"
            if problem.path.stem in jobs and problem.path.suffix == ".parquet"
            else ""
        )
        log.warning(f"not a row: {problem}{mended}")
    outdated = sum(
        state.state == "missing" and row_path(out, state.slug).exists() for state in states
    )
    outdated -= sum(p.path.stem in jobs and p.path.suffix == ".parquet" for p in unreadable)
    if outdated:
        log.info(
            f"{outdated} rows are of other weights, code or inputs than today's; computing them anew"
        )
    todo = []
    for state in states:
        job = jobs[state.slug]
        if state.state == "missing" or (state.state == "failed" and retry_failed):
            todo.append(job)
        elif state.row is not None:
            row = with_current_facts(state.row, job.entry)
            if row != state.row:
                write_row(out, state.slug, row)
    done = len(jobs) - len(todo)
    if done:
        log.info(f"{done} of {len(jobs)} models are done already")
    return todo


def _compute(
    plan: Plan,
    todo: Sequence[Job],
    display: Display,
    confirm: Callable[[], None],
    client: "Client | None" = None,
) -> int:
    out = plan.config.folder
    started = monotonic()
    _evict_finished(plan, todo)
    if client is None:
        todo = with_weights_here(plan.config, todo)
    if todo:
        from dsmi_zoo.pipeline.engine.graph import run_in_waves

        images = f"{len(plan.subset.labels)} images of {plan.subset.images.name}"
        log.info(f"{counted(len(todo), 'model')} to measure on {images}")
        waves = _waves(plan, todo, display)
        with open_workers(plan.config.compute, out, client, models=len(todo)) as workers:
            follow(
                run_in_waves(workers, plan, waves, confirm),
                len(todo),
                display,
                costs=expected_costs(plan, todo),
            )
        touch_record(out)
    elif not _inputs_are_whole(plan):
        from dsmi_zoo.pipeline.engine.graph import mend_inputs

        log.warning(f"{out}: what it holds of the images is damaged; writing it anew")
        with (
            open_workers(plan.config.compute, out, client) as workers,
            display.status("Reading the images"),
        ):
            mend_inputs(workers, plan)
    if plan.config.compute.share is not None:
        return _conclude_share(plan, todo, started)
    return conclude(
        out,
        {job.slug for job in plan.jobs},
        started,
        display,
        report=plan.config.compute.write_report,
    )


def _inputs_are_whole(plan: Plan) -> bool:
    """Whether OUT's images and their clusters are as they were written; measures may be computed from them again."""
    out = plan.config.folder
    clusters = {
        clusters_path(out, job.entry.img_size)
        for job in plan.jobs
        if job.entry.img_size is not None
    }
    is_good = not any(map(noted_damage, clusters)) or plan.config.protocol != "paper"
    return subset_is_stored(out, plan.subset) and is_good


def _conclude_share(plan: Plan, todo: Sequence[Job], started: float) -> int:
    """Sum up a share; the report is written when all are done."""
    out = plan.config.folder
    slugs = {job.slug for job in todo}
    states, _ = entry_states(out, [entry for entry in read_run(out).entries if entry.slug in slugs])
    failed = sum(state.state == "failed" for state in states)
    lost = [state for state in states if state.state == "missing"]
    log.info(
        f"share {plan.config.compute.share}: {counted(len(todo) - len(lost), 'model')} computed, {failed} failed, in "
        f"{duration(monotonic() - started)}; when all shares are done: dsmi-zoo report --out {out}",
    )
    _tell_lost(lost)
    return 1 if failed or lost else 0


def _tell_lost(states: Sequence[EntryState]) -> None:
    """Name entries whose rows were written and are not there, or not whole."""
    for state in states[:5]:
        log.warning(f"  {state.name} has no row: {state.reason}")
    if states:
        log.warning(
            f"  {counted(len(states), 'row')} missing at the end; the same command computes them"
        )


def _waves(plan: Plan, todo: Sequence[Job], display: Display) -> Sequence[Sequence[Job]]:
    """All jobs in one wave, or in several whose weights fit the budget."""
    budget_gb = plan.config.compute.budget_gb
    if budget_gb is None:
        return [todo]
    with display.status("Asking for the sizes of the weights"):
        waves = waves_of_jobs(todo, plan.config.compute.cache, budget_gb)
    log.info(f"{counted(len(waves), 'wave')} of at most {budget_gb:g} GB of weights each")
    return waves


def _evict_finished(plan: Plan, todo: Sequence[Job]) -> None:
    """Delete what a run on a budget left behind when it was stopped between a row and the eviction."""
    if plan.config.compute.budget_gb is not None:
        needed = {remote_weights(job.entry) for job in todo}
        evict(
            (job for job in plan.jobs if remote_weights(job.entry) not in needed),
            plan.config.compute.cache,
        )


def conclude(
    out: Path,
    slugs: set[str],
    started: float,
    display: Display,
    *,
    report: bool = True,
    may_be_partial: bool = False,
) -> int:
    """Write the report if it is wanted, sum up, and return the exit code for the entries in question.

    Parameters
    ----------
    may_be_partial
        Entries without a row are no fault: time was short, or nobody has begun with them yet.
    """
    page = _written_report(out, display) if report else None
    record = read_run(out)
    states, _ = entry_states(out, [entry for entry in record.entries if entry.slug in slugs])
    ok, failed, lost = by_state(states)
    missed = f", {len(lost)} {'not begun' if may_be_partial else 'missing'}" if lost else ""
    log.info(
        f"{counted(len(states), 'model')}: {len(ok)} ok, {len(failed)} failed{missed}, "
        f"in {duration(monotonic() - started)}",
    )
    for state in failed[:5]:
        log.info(f"  {state.name}: {state.reason}")
    if failed:
        more = f" (and {len(failed) - 5} more)" if len(failed) > 5 else ""
        again = (
            "the same remeasure" if record.embeddings_from else "the same run with --retry-failed"
        )
        log.info(f"  see them all{more}: dsmi-zoo status --out {out}; try them again: {again}")
    if page is None:
        log.info(f"No report was asked for; it is written by: dsmi-zoo report --out {out}")
    else:
        log.info(json.loads(page.with_name("summary.json").read_text(encoding="utf-8"))["lead"])
        log.info(f"Report: {page}")
    if lost and not may_be_partial:
        _tell_lost(lost)
        return 1
    return 1 if failed else 0


def _written_report(out: Path, display: Display) -> Path:
    with display.status("Writing the report"):
        from dsmi_zoo.reports.page.build import write_report

        return write_report(out)
