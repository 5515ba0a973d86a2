"""In what order entries run and how they are shared out: pure functions of what they are expected to cost."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from .cost import BYTES_A_PARAMETER, DECODE_S, DOWNLOAD_BYTES_S, Cost, estimate
from .plan import Job
from .task import Done
from .weights import remote_weights

NOMINAL_RATE = 100.0  # ResNet-18 images a second, until the run's own rows tell; the order needs ratios only
SHORTEST = 2.0**-20


class Expectation:
    """What entries are expected to cost, in seconds: estimates, corrected by the rows that are done.

    Each of building, forward pass and measures is scaled by the median of its measured over its estimated times.

    Parameters
    ----------
    samples
        Rows of an embedding.
    look
        Whether to look at this machine's disk for what is there already.
    """

    def __init__(self, samples: int, *, look: bool = True) -> None:
        self._samples, self._untrained = samples, None if look else True
        self._costs: dict[str, Cost] = {}
        self._ratios: tuple[list[float], list[float], list[float]] = ([], [], [])
        self._factors = (1.0, 1.0, 1.0)

    def learn(self, job: Job, done: Done) -> None:
        """Take in what a finished entry took."""
        if done.stages is None:
            return
        for ratios, measured, expected in zip(self._ratios, done.stages, self._estimated(job), strict=True):
            ratios.append(measured / max(expected, SHORTEST))
        self._factors = tuple(median(ratios) for ratios in self._ratios)  # type: ignore[assignment]

    def seconds(self, job: Job) -> float:
        """Seconds on one worker, the download included; a view that is missing is a task of its own."""
        cost = self._cost(job)
        parts = zip(self._factors, self._estimated(job), strict=True)
        return sum(factor * part for factor, part in parts) + cost.download / DOWNLOAD_BYTES_S

    def _estimated(self, job: Job) -> tuple[float, float, float]:
        cost = self._cost(job)
        forward = self._samples * cost.image
        return cost.build, forward, cost.seconds(self._samples) - cost.build - forward

    def _cost(self, job: Job) -> Cost:
        if job.slug not in self._costs:
            self._costs[job.slug] = estimate(job, NOMINAL_RATE, _download(job), untrained=self._untrained)
        return self._costs[job.slug]


def _download(job: Job) -> int:
    """Bytes of published weights by the parameters, as if the cache were empty: the order needs no more."""
    return int(1e6 * BYTES_A_PARAMETER * (job.entry.params_m or 0)) if remote_weights(job.entry) else 0


def longest_first(seconds: Callable[[Job], float]) -> Callable[[Job], tuple[float, str, float]]:
    """A key for sorting: the longest first in steps of a factor of two, within a step those that share a view together.

    Only the last entries decide how evenly the workers finish, so a coarse order costs nothing, and a view stays in the
    memory of its disk while it is read.
    """

    def key(job: Job) -> tuple[float, str, float]:
        expected = max(seconds(job), SHORTEST)
        return (-math.floor(math.log2(expected)), str(job.view), -expected)

    return key


def balanced(jobs: Sequence[Job], parts: int, samples: int) -> list[list[Job]]:
    """The jobs in ``parts`` shares of nearly equal time, the same on every machine: the longest goes to the emptiest.

    Shares of fewer jobs than parts may be empty; a view's making is spread over those that need it.
    """
    expectation, sharing = Expectation(samples, look=False), Counter(job.view for job in jobs)

    def seconds(job: Job) -> float:
        return expectation.seconds(job) + samples * DECODE_S / sharing[job.view]

    shares: list[list[Job]] = [[] for _ in range(parts)]
    loads = [(0.0, part) for part in range(parts)]
    for job in sorted(jobs, key=lambda job: (-seconds(job), job.slug)):
        load, part = heapq.heappop(loads)
        shares[part].append(job)
        heapq.heappush(loads, (load + seconds(job), part))
    return shares
