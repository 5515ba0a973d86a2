"""In what order entries run and how they are shared out: pure functions of what they are expected to cost."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..weights.cache import remote_weights
from .cost import BYTES_A_PARAMETER, DECODE_S, DOWNLOAD_BYTES_S, estimate
from .plan import Job

NOMINAL_RATE = 100.0  # ResNet-18 images per second; the order needs ratios only
SHORTEST = 2.0**-20


class Expectation:
    """What entries are expected to cost, in seconds on one worker.

    Parameters
    ----------
    samples
        Rows of an embedding.
    look
        Whether to look at this machine's disk for what is there already.
    """

    def __init__(self, samples: int, *, look: bool = True) -> None:
        self._samples, self._untrained = samples, None if look else True

    def seconds(self, job: Job) -> float:
        """Seconds on one worker, the download included; a view that is missing is a task of its own."""
        cost = estimate(job, NOMINAL_RATE, _download(job), untrained=self._untrained)
        return cost.seconds(self._samples) + cost.download / DOWNLOAD_BYTES_S


def _download(job: Job) -> int:
    """Bytes of published weights by the parameters, as if the cache were empty: the order needs no more."""
    return (
        int(1e6 * BYTES_A_PARAMETER * (job.entry.params_m or 0)) if remote_weights(job.entry) else 0
    )


def longest_first(jobs: Sequence[Job], samples: int) -> list[Job]:
    """Sort the longest first in steps of a factor of two, within a step those that share a view together.

    Only the last entries decide how evenly the workers finish, so a coarse order costs nothing, and a view stays in the
    memory of its disk while it is read.
    """
    expectation = Expectation(samples)

    def key(job: Job) -> tuple[float, str, float]:
        decoding = 0.0 if job.view.exists() else samples * DECODE_S
        expected = max(expectation.seconds(job) + decoding, SHORTEST)
        return (-math.floor(math.log2(expected)), str(job.view), -expected)

    return sorted(jobs, key=key)


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


def by_promise(seconds: Sequence[float], accuracies: Sequence[float | None]) -> list[int]:
    """The order in which a short time finds good models: first those that no cheaper one is said to beat.

    Parameters
    ----------
    seconds
        What each costs.
    accuracies
        What is published of each; an unknown one counts as the median of the known.

    Returns
    -------
    list of int
        Places in the order of how many models are as cheap and of higher accuracy; among equals, the cheapest first.
    """
    costs = np.array(seconds, dtype=float)
    said = np.array([np.nan if value is None else value for value in accuracies], dtype=float)
    known = np.isfinite(said)
    said[~known] = np.median(said[known]) if known.any() else 0.0
    beaten_by = [
        int(((costs <= cost) & (said > accuracy)).sum())
        for cost, accuracy in zip(costs, said, strict=True)
    ]
    return sorted(range(len(costs)), key=lambda i: (beaten_by[i], costs[i]))
