"""Kinds of cluster: each module opens a Dask client and closes what it started."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dsmi_zoo._util.text import counted
from dsmi_zoo.pipeline.config.compute import OF_THIS_MACHINE, ComputeSettings
from dsmi_zoo.pipeline.config.preloaded import MODELS

from .machine import default_workers, usable_cores, visible_gpus

if TYPE_CHECKING:
    from distributed import Client

    from dsmi_zoo.pipeline.engine.workers import Workers


log = logging.getLogger(__name__)

OPENERS = {
    "local": ("local", "local_cluster"),
    "cuda": ("cuda", "cuda_cluster"),
    "slurm": ("slurm.cluster", "slurm_cluster"),
}
"""The module and the function of each kind: a context manager that yields a client and closes what it started."""
AT_AN_ADDRESS = ("existing", "existing_scheduler")

GRACE_S = 15.0  # a worker ends a model that takes too long by itself
EMPTY_FOR_S = 600.0  # a cluster of this machine without workers has more than a queue to wait for


@contextmanager
def open_workers(
    settings: ComputeSettings,
    out: Path,
    given: "Client | None" = None,
    models: int | None = None,
    modules: tuple[str, ...] = MODELS,
) -> "Iterator[Workers]":
    """Workers of a given client, which stays as it is, or of the kind of cluster that the settings name.

    On this machine there are no more than ``models``, unless the settings say how many: one model gets all cores. They
    have imported ``modules`` when they start.
    """
    from dsmi_zoo.pipeline.engine.workers import Workers

    from .worker_log import forwarded_log, without_dasks_own_words

    if given is not None:
        from .existing import refuse_unfit

        refuse_unfit(given, "client", out)
        with forwarded_log(given):
            yield _told(
                Workers(given, settings.workers_within or math.inf, _silent_for_s(settings))
            )
        return
    of_this_machine = settings.cluster in OF_THIS_MACHINE
    empty_for_s = settings.workers_within or (EMPTY_FOR_S if of_this_machine else math.inf)
    kind = (
        ("cuda" if visible_gpus() else "local") if settings.cluster == "auto" else settings.cluster
    )
    if kind == "local" and settings.workers is None and models is not None:
        workers = min(default_workers(usable_cores()), max(1, models))
        settings = settings.model_copy(update={"workers": workers})
    open_client = _opener(kind)
    with (
        without_dasks_own_words(),
        open_client(settings, out, modules) as client,
        forwarded_log(client),
    ):
        yield _told(Workers(client, empty_for_s, _silent_for_s(settings)))


def _silent_for_s(settings: ComputeSettings) -> float:
    """How long a worker may be silent: a model's clock stands still in a suspended process."""
    from dsmi_zoo.pipeline.engine.workers import NO_HEARTBEAT_S

    return min(NO_HEARTBEAT_S, (settings.model_timeout or math.inf) + GRACE_S)


def _told(workers: "Workers") -> "Workers":
    there = workers.count()
    log.info(
        f"{counted(there, 'worker') if there else 'workers, of which none is there yet,'} {workers.where()}"
    )
    return workers


def _opener(cluster: str) -> "Callable[..., AbstractContextManager[Client]]":
    """The function that opens a kind of cluster; it is imported here, so that others' libraries are not."""
    module, function = OPENERS.get(cluster, AT_AN_ADDRESS)
    opener: Callable[..., AbstractContextManager[Client]] = getattr(
        import_module(f".{module}", __package__), function
    )
    return opener
