"""Kinds of cluster: each module opens a Dask client, and closes what it started."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pipeline.config import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client


def open_cluster(settings: ComputeSettings) -> "AbstractContextManager[Client]":
    """A client of the kind of cluster that the settings name."""
    from jobs.clusters.local import local_cluster

    kinds: dict[str, Callable[[ComputeSettings], AbstractContextManager[Client]]] = {"local": local_cluster}
    return kinds[settings.cluster](settings)
