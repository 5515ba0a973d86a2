"""Open the workers of a run on any kind of cluster."""

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.compute import LOCAL_CLUSTERS, MODELS, ComputeSettings

from .clusters.machine import default_workers, usable_cores, visible_gpus

if TYPE_CHECKING:
    from distributed import Client

    from dsmi_zoo.pipeline.engine.workers import Workers

log = logging.getLogger(__name__)

GRACE_S = 15.0  # for a worker to end a model that takes too long
EMPTY_FOR_S = 600.0  # on this machine no queue explains why there are no workers


@contextmanager
def open_workers(
    settings: ComputeSettings,
    out: Path,
    given: "Client | None" = None,
    models: int | None = None,
    modules: tuple[str, ...] = MODELS,
) -> "Iterator[Workers]":
    """Yield the workers of a given client, which stays open, or of the kind of cluster that the settings name.

    On this machine's CPUs there are at most ``models`` workers, unless the settings give a number, so that a single
    model gets all cores. Workers import ``modules`` when they start.
    """
    from dsmi_zoo.pipeline.engine.workers import NO_HEARTBEAT_S, Workers

    from .clusters.worker_log import (
        forwarded_log,
        without_connection_messages,
        without_routine_messages,
    )

    # A suspended process does not notice that its model's time is up.
    silent_for_s = min(NO_HEARTBEAT_S, (settings.model_timeout or math.inf) + GRACE_S)
    empty_for_s = settings.workers_within or math.inf
    with ExitStack() as stack:
        stack.enter_context(without_routine_messages())
        if given is not None:
            from .clusters.existing import refuse_unfit

            refuse_unfit(given, "client", out)
            client = given
        else:
            if settings.cluster in LOCAL_CLUSTERS:
                empty_for_s = settings.workers_within or EMPTY_FOR_S
            stack.enter_context(without_connection_messages())
            client = stack.enter_context(_cluster(settings, out, models, modules))
        stack.enter_context(forwarded_log(client))
        workers = Workers(client, empty_for_s, silent_for_s)
        there = workers.count()
        log.info(
            f"{counted(there, 'worker') if there else 'waiting for workers'} {workers.where()}"
        )
        yield workers


def _cluster(
    settings: ComputeSettings, out: Path, models: int | None, modules: tuple[str, ...]
) -> "AbstractContextManager[Client]":
    """Return the context manager that opens a client of the chosen cluster; only its libraries are imported."""
    kind = settings.cluster
    if kind == "auto":
        kind = "cuda" if visible_gpus() else "local"
    if kind == "local":
        from .clusters.local import local_cluster

        if settings.workers is None and models is not None:
            workers = min(default_workers(usable_cores()), max(1, models))
            settings = settings.model_copy(update={"workers": workers})
        return local_cluster(settings, modules)
    if kind == "cuda":
        from .clusters.local import cuda_cluster

        return cuda_cluster(settings, modules)
    if kind == "slurm":
        if find_spec("dask_jobqueue") is None:
            raise InputError("--cluster slurm needs dask-jobqueue: pip install 'dsmi-zoo[slurm]'")
        from .clusters.slurm.cluster import slurm_cluster

        return slurm_cluster(settings, out)
    from .clusters.existing import existing_scheduler

    return existing_scheduler(settings, out)
