"""The order of entries, and how they are split into shares, by their expected costs."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..weights.cache import remote_weights
from .cost import BYTES_A_PARAMETER, DECODE_S, DOWNLOAD_BYTES_S, estimate
from .plan import Job

NOMINAL_RATE = 100.0  # ResNet-18 images per second; the order needs ratios only
MIN_SECONDS = 2.0**-20  # seconds; keeps log2 away from 0


class Expectation:
    """The expected cost of entries, in seconds on one worker.

    Parameters
    ----------
    samples
        Rows of an embedding.
    look
        Whether to look for trained weights on this machine's disk; if False, none are assumed.
    """

    def __init__(self, samples: int, *, look: bool = True) -> None:
        self._samples, self._untrained = samples, None if look else True

    def seconds(self, job: Job) -> float:
        """Return the seconds on one worker, with the download, but without the view, which has its own task."""
        download = 0
        if remote_weights(job.entry):  # as if the cache were empty: that is enough for an order
            download = int(1e6 * BYTES_A_PARAMETER * (job.entry.params_m or 0))
        cost = estimate(job, NOMINAL_RATE, download, untrained=self._untrained)
        return cost.seconds(self._samples) + cost.download / DOWNLOAD_BYTES_S


def longest_first(jobs: Sequence[Job], samples: int) -> list[Job]:
    """Sort the longest first, in steps of a factor of two; within a step, jobs that share a view are adjacent.

    Only the last entries decide how evenly the workers finish, so a coarse order costs nothing, and a view stays in the
    disk cache while it is read.
    """
    expectation = Expectation(samples)

    def key(job: Job) -> tuple[float, str, float]:
        decoding = 0.0 if job.view.exists() else samples * DECODE_S
        expected = max(expectation.seconds(job) + decoding, MIN_SECONDS)
        return (-math.floor(math.log2(expected)), str(job.view), -expected)

    return sorted(jobs, key=key)


def by_network(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group the jobs by their networks, in the order of each one's first job."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.network, []).append(job)
    return list(groups.values())


def balanced(jobs: Sequence[Job], parts: int, samples: int) -> list[list[Job]]:
    """Split the jobs into ``parts`` shares of nearly equal time, the same on every machine.

    The longest job goes to the emptiest share, and all layers of a network go to the same one. With fewer jobs than
    parts some shares are empty. The time to make a view is spread over the jobs that need it.
    """
    expectation, sharing = Expectation(samples, look=False), Counter(job.view for job in jobs)

    def seconds(job: Job) -> float:
        return expectation.seconds(job) + samples * DECODE_S / sharing[job.view]

    shares: list[list[Job]] = [[] for _ in range(parts)]
    loads = [(0.0, part) for part in range(parts)]
    costs = [(sum(map(seconds, group)), group) for group in by_network(jobs)]
    for cost, group in sorted(costs, key=lambda one: (-one[0], one[1][0].slug)):
        load, part = heapq.heappop(loads)
        shares[part] += group
        heapq.heappush(loads, (load + cost, part))
    return shares


def search_order(seconds: Sequence[float], accuracies: Sequence[float | None]) -> list[int]:
    """Return the order that finds good models soonest: first models for which no cheaper one is more accurate.

    Parameters
    ----------
    seconds
        The cost of each model.
    accuracies
        The published accuracy of each; an unknown one counts as the median of the known.

    Returns
    -------
    list of int
        Indices, sorted by the number of models that are as cheap and more accurate; the cheapest first among equals.
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
