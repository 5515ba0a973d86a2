"""Waves of a run whose weights do not all fit on the disk; each wave fits a budget."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Protocol, TypeVar

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import size_in_words
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .cache import evict_weights, is_evictable, local_weights, remote_weights
from .hub import Stopped, Unreachable, is_offline, is_on_hub, remote_file

PARALLEL_REQUESTS = 8


class HasEntry(Protocol):
    """An object for one catalogue entry, such as a job."""

    @property
    def entry(self) -> ModelEntry:
        """The entry."""
        ...


Answer = TypeVar("Answer")
AnyJob = TypeVar("AnyJob", bound=HasEntry)


def plan_waves(sizes: Mapping[str, int | None], budget: int) -> list[list[str]]:
    """Split files, in their order, into waves of at most ``budget`` bytes.

    Parameters
    ----------
    sizes
        Bytes of each file; None if unknown: such a file gets its own wave.

    Raises
    ------
    InputError
        For a file that is larger than the budget.
    """
    waves: list[list[str]] = []
    room = -1
    for name, size in sizes.items():
        if size is not None and size > budget:
            needed, given = size_in_words(size), f"{budget / 1e9:.3g}"
            raise InputError(
                f"{name} needs {needed}, more than --budget-gb {given}; raise it or leave the model out"
            )
        needs = budget if size is None else size
        if not waves or needs > room:
            waves.append([])
            room = budget
        waves[-1].append(name)
        room -= needs
    return waves


def waves_of_jobs(jobs: Sequence[AnyJob], cache: Path, budget_gb: float) -> list[list[AnyJob]]:
    """Split jobs into waves: those that share weights share a wave, those that download nothing come first."""
    needing: dict[str, list[AnyJob]] = {}
    free: list[AnyJob] = []
    for job in jobs:
        weights = remote_weights(job.entry)
        path = None if weights is None else local_weights(weights, cache)
        if weights is None or (path is not None and not is_evictable(path)):
            free.append(job)
        else:
            needing.setdefault(weights, []).append(job)
    sizes = weights_sizes(needing, cache)
    waves = [free] if free else []
    for files in plan_waves(sizes, int(budget_gb * 1e9)):
        waves.append([job for weights in files for job in needing[weights]])
    return waves


def weights_sizes(weights: Iterable[str], cache: Path) -> dict[str, int | None]:
    """Return the bytes of each file of published weights, in the cache or at its server.

    None if the server does not say; 0 for a file that is not available: nothing will be downloaded then, and the row
    of the model will say why.
    """
    weights = list(weights)

    def size(name: str, while_waiting: Callable[[], None]) -> int | None:
        path = local_weights(name, cache)
        if path is not None:
            return path.stat().st_size
        try:
            return remote_file(name, while_waiting).size
        except OSError as error:
            if isinstance(error, Unreachable) and is_on_hub(name):
                raise
            return 0

    return dict(zip(weights, asked_at_once(weights, size), strict=True))


def asked_at_once(
    weights: Sequence[str], ask: Callable[[str, Callable[[], None]], Answer]
) -> list[Answer]:
    """Ask servers about several files in parallel; an interrupt ends the pauses between attempts.

    Parameters
    ----------
    ask
        Function of a file and of the function that it calls while it waits.
    """
    stop = Event()

    def while_waiting() -> None:
        if stop.is_set():
            raise Stopped

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        try:
            return list(pool.map(lambda name: ask(name, while_waiting), weights))
        except BaseException:
            stop.set()
            raise


def downloads(jobs: Iterable[HasEntry], cache: Path) -> dict[str, int | None]:
    """Return the bytes of each file that the jobs need and the cache lacks; None if unknown, or offline."""
    needed = {name for job in jobs if (name := remote_weights(job.entry)) is not None}
    absent = [name for name in sorted(needed) if local_weights(name, cache) is None]
    return dict.fromkeys(absent) if is_offline() else weights_sizes(absent, cache)


def within_download(
    jobs: Sequence[AnyJob], sizes: Mapping[str, int | None], most: float
) -> list[AnyJob]:
    """Return the jobs, in their order, whose weights fit into ``most`` bytes of download, smallest files first.

    Parameters
    ----------
    sizes
        Bytes of each file that must be downloaded; a file of unknown size never fits.
    """
    too_much: set[str] = set()
    left = most
    for file, size in sorted(sizes.items(), key=lambda item: (item[1] or 0, item[0])):
        if size is None or size > left:
            too_much.add(file)
        else:
            left -= size
    return [job for job in jobs if remote_weights(job.entry) not in too_much]


def evict(jobs: Iterable[HasEntry], cache: Path) -> int:
    """Delete the weights of jobs whose rows are written; return the freed bytes."""
    published = {remote_weights(job.entry) for job in jobs}
    return sum(evict_weights(weights, cache) for weights in published if weights is not None)
