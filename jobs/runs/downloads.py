"""Downloads of a run: limited by ``--max-download``, in waves of ``--budget-gb``, or none when offline."""

import logging
import shlex
from collections.abc import Mapping, Sequence

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.paths import is_file
from dsmi_zoo._util.settings import flags_of
from dsmi_zoo._util.text import counted, size_in_words
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.data_catalog.models.csv_catalog import nearest_column, own_columns
from dsmi_zoo.pipeline.config.compute import LOCAL_CLUSTERS
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.cost import BYTES_A_PARAMETER
from dsmi_zoo.pipeline.plan.plan import Job, Plan, make_plan
from dsmi_zoo.pipeline.weights.cache import local_weights, remote_weights
from dsmi_zoo.pipeline.weights.hub import Unreachable, is_offline
from dsmi_zoo.pipeline.weights.waves import downloads, evict, waves_of_jobs, within_download

from ..progress import Display
from .state import with_scores_of_folder

log = logging.getLogger(__name__)


def plan_run(config: RunConfig, display: Display, *, only_plan: bool = False) -> Plan:
    """Plan a run of all models whose weights fit ``--max-download``, with the scores that OUT has."""
    with display.status("Reading catalogue and images"):
        plan = make_plan(with_scores_of_folder(config))
    if config.compute.max_download is None:
        return plan
    sizes = planned_sizes(plan, display) if only_plan else sizes_to_download(plan, display)
    return within_max_download(plan, sizes)


def log_images(subset: Subset) -> None:
    """Log how many images are used and left out, and how ambiguous input was read."""
    account = subset.account
    for reading in account.readings:
        log.warning(str(reading))
    if account.left_out:
        level = logging.INFO if account.is_all_by_choice else logging.WARNING
        log.log(level, account.balance(len(subset.labels)))
    single = int((subset.class_sizes == 1).sum())
    if single:
        log.warning(
            f"{single} of {counted(subset.n_classes, 'class')} have one image, so no accuracy can be computed and no "
            "model ranked: add images until at least two classes have two"
        )


def own_columns_in_words(plan: Plan) -> str:
    """Return one line on the unknown columns of the user's catalogue; "" if there are none."""
    is_users = is_file(plan.config.catalog)
    names = own_columns([job.entry for job in plan.jobs]) if is_users else []
    if not names:
        return ""
    described = ", ".join(f"{name}{nearest_column(name)}" for name in names)
    kept = "kept as numbers of your own" if len(names) > 1 else "kept as a number of your own"
    return f"{counted(len(names), 'unknown column')}, {kept}: {described}"


def log_plan(plan: Plan) -> None:
    """Log the catalogue's unknown columns, the images used and left out, and how ambiguous input was read."""
    unknown = own_columns_in_words(plan)
    if unknown:
        log.info(f"{plan.config.catalog}: {unknown}")
    log_images(plan.subset)


def sizes_to_download(plan: Plan, display: Display) -> dict[str, int | None]:
    """Return the bytes of each file of weights that the cache lacks; None if unknown, or offline."""
    with display.status("Asking for the sizes of the weights"):
        sizes = downloads(plan.jobs, plan.config.compute.cache)
    if sizes and is_offline():
        files = counted(len(sizes), "file")
        log.warning(
            f"{files} of weights not in the cache, and HF_HUB_OFFLINE forbids downloading: run prefetch"
        )
    return sizes


def planned_sizes(plan: Plan, display: Display) -> dict[str, int | None]:
    """Return sizes like `sizes_to_download`; estimate them offline, or without ``--max-download`` or an answer."""
    if plan.config.compute.max_download is not None and not is_offline():
        try:
            return sizes_to_download(plan, display)
        except Unreachable as error:
            log.warning(f"{error}; sizes of weights are by the numbers of parameters")
    sizes: dict[str, int | None] = {}
    for job in plan.jobs:
        name = remote_weights(job.entry)
        if name is not None and local_weights(name, plan.config.compute.cache) is None:
            params = job.entry.params_m
            sizes[name] = None if params is None else int(1e6 * BYTES_A_PARAMETER * params)
    return sizes


def within_max_download(plan: Plan, sizes: Mapping[str, int | None]) -> Plan:
    """Return the plan without the models whose weights would exceed ``--max-download``, if that is given.

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
    left_out = counted(len(plan.jobs) - len(jobs), "model")
    log.info(f"{left_out} left out by --max-download; {size_in_words(total)} to download")
    return Plan(plan.config, plan.subset, tuple(jobs))


def waves_within_budget(plan: Plan, todo: Sequence[Job], display: Display) -> list[list[Job]]:
    """Split the jobs into waves whose weights fit ``--budget-gb``; without it, return a single wave."""
    budget_gb = plan.config.compute.budget_gb
    if budget_gb is None:
        return [list(todo)]
    with display.status("Asking for the sizes of the weights"):
        waves = waves_of_jobs(todo, plan.config.compute.cache, budget_gb)
    log.info(f"{counted(len(waves), 'wave')} of at most {budget_gb:g} GB of weights each")
    return waves


def evict_finished(plan: Plan, todo: Sequence[Job]) -> None:
    """Delete weights that a run with ``--budget-gb`` left when it was stopped between a row and the deletion."""
    if plan.config.compute.budget_gb is not None:
        needed = {remote_weights(job.entry) for job in todo}
        finished = [job for job in plan.jobs if remote_weights(job.entry) not in needed]
        evict(finished, plan.config.compute.cache)


def with_weights_here(config: RunConfig, jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that need no download, if HF_HUB_OFFLINE forbids it; else all of them.

    Workers elsewhere may have another cache and internet access, so nothing is checked for them.

    Raises
    ------
    InputError
        When no job is left.
    """
    if config.compute.cluster not in LOCAL_CLUSTERS or config.random_weights or not is_offline():
        return list(jobs)
    left = []
    for job in jobs:
        weights = remote_weights(job.entry)
        if weights is None or local_weights(weights, config.compute.cache) is not None:
            left.append(job)
    lacking = len(jobs) - len(left)
    if not lacking:
        return left
    are = "are" if lacking > 1 else "is"
    problem = (
        f"the weights of {counted(lacking, 'model')} {are} not in {config.compute.cache}, and HF_HUB_OFFLINE forbids "
        f"downloading; where there is internet: `{prefetch_command(config)}`, then the same command goes on"
    )
    if not left:
        raise InputError(problem)
    log.warning(f"{problem}; without them until then")
    return left


def prefetch_command(config: RunConfig) -> str:
    """Return the command that downloads what a run of these settings needs."""
    words = ["dsmi-zoo", "prefetch", "--catalog", config.catalog]
    if config.models:
        words += ["--models", *config.models]
    flags = flags_of(RunConfig)
    for name, value in config.filters.model_dump(exclude_defaults=True).items():
        for one in value if isinstance(value, tuple | list) else (value,):
            words += [flags["filters", name], f"{one:g}" if isinstance(one, float) else str(one)]
    return shlex.join([*words, "--cache", str(config.compute.cache)])
