"""Stand-ins for the zoo's tasks in a replay: coroutines that sleep, in a module that every worker imports."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from distributed import get_worker

from dsmi_zoo.pipeline.plan.job import Outcome


@dataclass(frozen=True)
class Times:
    """The times of an entry's steps, in seconds."""

    build: float
    forward: float
    measure: float

    @property
    def alone(self) -> float:
        """The total time with nothing else running."""
        return self.build + self.forward + self.measure


_turn_on: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
_worked_s: dict[int, float] = defaultdict(float)


async def sleep_row(name: str, times: Times, processes: int, *_: object) -> Outcome:
    """Sleep in place of an entry's row, with its turn on the GPU."""
    gpu = get_worker().name // processes
    await asyncio.sleep(times.build)
    async with _turn_on[gpu]:
        await asyncio.sleep(times.forward)
        _worked_s[gpu] += times.forward
    await asyncio.sleep(times.measure)
    return Outcome(name, name, True, "", times.alone)


async def sleep_task(seconds: float, *_: object) -> None:
    """Sleep in place of any other task."""
    await asyncio.sleep(seconds)


def reset_gpus() -> None:
    """Reset the GPUs before a replay."""
    _turn_on.clear()
    _worked_s.clear()


def gpu_busy_seconds() -> float:
    """Return the seconds in which GPUs have computed, summed over all of them."""
    return sum(_worked_s.values())
