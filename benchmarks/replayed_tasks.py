"""What stands for the zoo's tasks in a replay: coroutines that sleep, in a module that every worker imports."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from distributed import get_worker

from dsmi_zoo.pipeline.plan.job import Outcome


@dataclass(frozen=True)
class Times:
    """Of an entry, in seconds."""

    build: float
    forward: float
    measure: float

    @property
    def alone(self) -> float:
        """With nothing else running."""
        return self.build + self.forward + self.measure


_turn_on: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
_worked_s: dict[int, float] = defaultdict(float)


async def row(name: str, times: Times, processes: int, *_: object) -> Outcome:
    """What stands for an entry's row."""
    gpu = get_worker().name // processes
    await asyncio.sleep(times.build)
    async with _turn_on[gpu]:
        await asyncio.sleep(times.forward)
        _worked_s[gpu] += times.forward
    await asyncio.sleep(times.measure)
    return Outcome(name, name, True, "", times.alone)


async def rest(seconds: float, *_: object) -> None:
    """What stands for any other task."""
    await asyncio.sleep(seconds)


def begin() -> None:
    """Forget the GPUs of an earlier replay."""
    _turn_on.clear()
    _worked_s.clear()


def worked_s() -> float:
    """Seconds in which GPUs have computed, of all together."""
    return sum(_worked_s.values())
