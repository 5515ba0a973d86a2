"""Fine-tune the finalists of a run: choose them, and compute what is missing."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.data_catalog.models.filters import Filters
from dsmi_zoo.pipeline.config.finetuning import FineTuning
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import Job, Plan, plan_of_all
from dsmi_zoo.pipeline.store.finetuned import checkpoint_path, read_finetuned_row
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run
from dsmi_zoo.pipeline.store.subset_file import read_subset

from ..progress import Display, duration, follow
from ..workers import open_workers
from .state import record_of_same_run, touch_record

if TYPE_CHECKING:
    from distributed import Client

    from dsmi_zoo.reports.statistics.finetuned import Finalist

log = logging.getLogger(__name__)

RECIPE = FineTuning()


def fine_tune_after(
    config: RunConfig,
    display: Display,
    confirm_lock: Callable[[], None],
    client: "Client | None" = None,
) -> int:
    """Fine-tune the best models if the settings say so, and return how many failed.

    An InputError is logged and counts as one failure.
    """
    if config.compute.finetune is None:
        return 0
    try:
        return fine_tune_best(config, display, confirm_lock, client)
    except InputError as error:
        log.warning(str(error))
        return 1


def fine_tune_best(
    config: RunConfig,
    display: Display,
    confirm_lock: Callable[[], None],
    client: "Client | None" = None,
) -> int:
    """Fine-tune the finalists that are not fine-tuned yet, and return how many failed.

    Raises
    ------
    InputError
        When no model can be ranked, or the weights or images are no longer those of the rows.
    """
    from dsmi_zoo.reports.page.classes import quantity_of
    from dsmi_zoo.reports.statistics.finetuned import finalists

    out, top, keep = config.folder, config.compute.finetune, config.compute.keep_checkpoints
    assert top is not None
    record, rows = read_run(out), read_results(out)
    if record.subset.n_classes < 2:
        raise InputError(f"{out} has images of one class, so there is nothing to fine-tune for")
    chosen = finalists(rows, quantity_of(rows, record, out), top)
    if not chosen:
        raise InputError(
            f"{out}: no model is ranked, because none has a probe accuracy, so none is fine-tuned; the report says why"
        )
    _log_choice(chosen, top)
    _warn_of_single_images(out)
    plan = _plan(config, chosen)
    todo = [job for job in plan.jobs if _is_missing(out, job, keep)]
    if len(todo) < len(plan.jobs):
        log.info(f"{len(plan.jobs) - len(todo)} of {len(plan.jobs)} fine-tunings are done already")
    if not todo:
        return 0
    from dsmi_zoo.pipeline.engine.finetune import fine_tune_entries

    parts = RECIPE.folds if record.subset.n_images <= RECIPE.few_images else RECIPE.folds_of_many
    times = f"{parts} times" + (", and once on all images" if keep else "")
    log.info(f"fine-tuning {counted(len(todo), 'model')}, each {times}")
    began = monotonic()
    opened = open_workers(config.compute, out, client, models=len(todo))
    with opened as workers:
        finished = fine_tune_entries(workers, plan, todo, RECIPE, keep, confirm_lock)
        _, failed = follow(finished, len(todo), display, "fine-tuning")
    touch_record(out)
    log.info(
        f"{len(todo) - len(failed)} fine-tuned, {len(failed)} failed, in {duration(monotonic() - began)}"
    )
    return len(failed)


def _warn_of_single_images(out: Path) -> None:
    """Warn of classes that no training can learn, because their only image is held out."""
    labels = read_subset(out).drop_duplicates("image")["label"]
    single = int((labels.value_counts() == 1).sum())
    if single:
        log.warning(
            f"{counted(single, 'class')} of a single image: it is held out, so no training can recognise it"
        )


def _log_choice(chosen: "Sequence[Finalist]", top: int) -> None:
    names = [one.name for one in chosen if one.place <= top]
    others = [one.name for one in chosen if one.place > top]
    beside = f"; and {others[0]}, which a static ranker would choose" if others else ""
    log.info(f"the best by the ranking: {', '.join(names)}{beside}")


def _plan(config: RunConfig, chosen: "Sequence[Finalist]") -> Plan:
    """Return the finalists' plan, whose jobs have the identity of their fine-tuning in place of their row's."""
    record = read_run(config.folder)
    whole = config.model_copy(update={"models": (), "filters": Filters()})
    plan = plan_of_all(whole, record)
    record_of_same_run(Plan(config, plan.subset, ()))  # raises if the images have changed
    slugs = {entry.row_id: entry.slug for entry in record.entries}
    jobs_by_slug = {job.slug: job for job in plan.jobs}
    jobs = []
    for one in chosen:
        job = jobs_by_slug.get(slugs[one.row_id])
        if job is None or job.row_id != one.row_id:
            raise InputError(
                f"{one.name} has other weights, code or inputs today than its row in {config.folder}, or is in no "
                "catalogue any more; the same `dsmi-zoo run` measures it again"
            )
        jobs.append(replace(job, row_id=RECIPE.identity(job.embedding_id)))
    return Plan(plan.config, plan.subset, tuple(jobs))


def _is_missing(out: Path, job: Job, keep: bool) -> bool:
    """Return whether a fine-tuning has no successful row, or its weights are wanted and missing."""
    row = read_finetuned_row(out, job.slug)
    if row is None or row["row_id"] != job.row_id or row["status"] != "ok":
        return True
    return keep and not checkpoint_path(out, job.slug, job.row_id).exists()
