"""Processes that train one network together, sharded (each must take part in every forward pass) or as copies."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic, sleep
from typing import Any, Self

import torch
import torch.distributed as dist

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

PRESENT_WITHIN = 10.0  # seconds
AGREED_WITHIN = 600.0  # seconds, for drawing images and the first forward pass
_NUMBERS = count()  # the monitors of a process, in the same order on every rank


def sharding_of(model: torch.nn.Module) -> str | None:
    """Return the scheme that shards the network's weights over processes; None if each process has all of them."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    for module in model.modules():
        is_fsdp = isinstance(module, FullyShardedDataParallel)
        if is_fsdp and module.sharding_strategy != ShardingStrategy.NO_SHARD:
            return "FSDP"
        if type(module).__name__.startswith("FSDP"):  # what `fully_shard` makes of a module's class
            return "FSDP"
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)  # a DTensor's
        if mesh is not None and mesh.size() > 1:
            return "DTensor"
        if hasattr(parameter, "ds_id"):  # ZeRO-3's
            return "DeepSpeed"
    return None


def rank_here() -> int:
    """Return this process's rank in its group, or the one that ``torchrun`` gave it; 0 for a single process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    has_others = rank.isdecimal() and world.isdecimal() and int(world) > 1
    return int(rank) if has_others else 0


class Ranks:
    """All processes that train one network together, sharded or as copies.

    They communicate through the process group's store, whose requests, unlike collectives, can have a time limit.

    Raises
    ------
    InputError
        When a process makes no monitor within ``PRESENT_WITHIN``.
    """

    def __init__(self, description: str) -> None:
        group_store = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore(f"dsmi-zoo monitor {next(_NUMBERS)}", group_store)
        self.rank, self._world = dist.get_rank(), dist.get_world_size()
        self._exchanges = count()
        try:
            self._gathered("", PRESENT_WITHIN)
        except (TimeoutError, RuntimeError):  # RuntimeError if the store itself is lost
            raise InputError(
                f"the network is {description}: make the monitor on every rank, not on some of the {self._world}"
            ) from None

    @classmethod
    def of_copies(cls) -> Self | None:
        """Return the processes that train copies of one network; None for a single process."""
        has_others = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return cls("trained on several ranks") if has_others else None

    @classmethod
    def of(cls, model: torch.nn.Module) -> Self | None:
        """Return the processes of a sharded network; None for any other."""
        sharding = sharding_of(model)
        return None if sharding is None else cls(f"sharded ({sharding})")

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value: a number, a text, or a dict of them."""
        key = f"value {next(self._exchanges)}"
        if self.rank == 0:
            self._store.set(key, json.dumps(value))
        return json.loads(self._store.get(key))

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Raise InputError on every rank if the body failed on any.

        Waits up to ``AGREED_WITHIN`` for all ranks, so that none enters a forward pass alone.
        """
        failure, cause = "", None
        try:
            yield
        except Exception as error:
            cause = error
            failure = str(error) if isinstance(error, InputError) else described(error)
        try:
            failures = self._gathered(failure, AGREED_WITHIN)
        except (TimeoutError, RuntimeError):  # RuntimeError if the store itself is lost
            failures = [failure, "a rank does not answer"]
        for first in filter(None, failures):
            raise InputError(first) from (None if isinstance(cause, InputError) else cause)

    def _gathered(self, message: str, limit: float) -> list[str]:
        """Return the message of every rank; TimeoutError if one does not send any."""
        exchange = next(self._exchanges)
        self._store.set(f"{exchange} of {self.rank}", f".{message}")  # a store takes no empty value
        keys = [f"{exchange} of {rank}" for rank in range(self._world)]
        until = monotonic() + limit
        while not self._store.check(keys):  # `wait` would log warnings about sockets
            if monotonic() > until:
                raise TimeoutError
            sleep(0.02)
        return [self._store.get(key).decode()[1:] for key in keys]


def described(error: BaseException) -> str:
    """Return an exception's type and text as one line."""
    return f"{type(error).__name__}: {shortened(str(error), 300)}".removesuffix(": ")
