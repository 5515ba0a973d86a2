"""A run where nothing may be downloaded: what it lacks is said once, before it starts, and how to get it."""

import logging
import shlex
from collections.abc import Iterator, Sequence

from ..data_catalog.errors import InputError
from ..data_catalog.settings import flags_of
from ..data_catalog.words import counted
from ..pipeline.compute import OF_THIS_MACHINE
from ..pipeline.config import RunConfig
from ..pipeline.plan import Job
from ..pipeline.remote import is_offline
from ..pipeline.weights import local_weights, remote_weights

log = logging.getLogger(__name__)


def with_weights_here(config: RunConfig, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that can be done here without a download, if HF_HUB_OFFLINE forbids it; all of them otherwise.

    Workers elsewhere may have a cache and an internet of their own; they are not asked.

    Raises
    ------
    InputError
        When none is left.
    """
    if config.compute.cluster not in OF_THIS_MACHINE or config.random_weights:
        return list(jobs)
    needed = {weights for job in jobs if (weights := remote_weights(job.entry)) is not None}
    if not needed or not is_offline():
        return list(jobs)
    lacks = {weights for weights in needed if local_weights(weights, config.compute.cache) is None}
    left = [job for job in jobs if remote_weights(job.entry) not in lacks]
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
    """The command that downloads what a run of these settings needs."""
    return shlex.join(["dsmi-zoo", "prefetch", *_options(config)])


def _options(config: RunConfig) -> Iterator[str]:
    flags = flags_of(RunConfig)
    yield from ("--catalog", config.catalog)
    if config.models:
        yield from ("--models", *config.models)
    for name, value in config.filters.model_dump(exclude_defaults=True).items():
        for one in value if isinstance(value, tuple | list) else (value,):
            yield from (flags["filters", name], f"{one:g}" if isinstance(one, float) else str(one))
    yield from ("--cache", str(config.compute.cache))
