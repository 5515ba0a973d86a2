"""What a monitor costs: how many images keep to a share of the training time, and the share that was spent."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

SHARE = 0.02  # of the training time, for the measurements
CHOICE = 0.08  # of the time between two measurements, once, for choosing the number of images
WORTH_TRYING = 1.25  # times as many images
BUDGET = 0.05  # of the training time, for both together, from five measurements on


def choose_n(
    timed: Callable[[int], float], least: int, most: int, budget: float, limit: float
) -> tuple[int, float]:
    """Choose how many images to measure, by measuring up to twice as many each time.

    The number is never extrapolated: beyond the budget it is interpolated between the last two trials. A trial beyond
    the budget is repeated, in case the machine was busy with something else.

    Parameters
    ----------
    timed
        Measures so many images, and returns the seconds that this took.
    least, most
        The bounds of the number.
    budget
        Seconds for one measurement.
    limit
        Seconds for all trials: after it no trial starts, and none is expected to end, except the two of ``least``.

    Returns
    -------
    n
        The number of images.
    seconds
        What the fewest images took.
    """
    first, n = timed(least), least  # the first call loads and allocates
    again = timed(n)
    spent, seconds = first + again, min(first, again)
    of_least, growth = seconds, 1.0  # of the time with n: 1 for forward passes, 3 for eigenvalues
    while n < most and seconds < budget:
        larger = min(2 * n, most, int(n * (budget / seconds) ** (1 / growth)))
        expected = seconds * (larger / n) ** growth
        if (larger < WORTH_TRYING * n and larger < most) or spent + expected > limit:
            break
        taken = timed(larger)
        spent += taken
        if taken > budget and spent + expected <= limit:
            again = timed(larger)
            spent, taken = spent + again, min(taken, again)
        if taken > budget:
            share = math.log(budget / seconds) / math.log(taken / seconds)
            return int(n * (larger / n) ** share), of_least
        growth = min(max(math.log(taken / seconds) / math.log(larger / n), 1.0), 3.0)
        n, seconds = larger, taken
    return n, of_least


@dataclass(frozen=True)
class Cost:
    """What measuring took.

    Attributes
    ----------
    regular
        Percent of the training time, by the median measurement: one that a busy machine made slow does not count.
    whole
        Percent of the training time while it ran: the measurements as they were, and the choice of their images.
    start
        Seconds before the training: imports, and a first forward pass.
    """

    regular: float
    whole: float
    start: float


def cost_of(rows: pd.DataFrame) -> Cost | None:
    """Return what a monitor's measurements took; None before the first one of a training."""
    training = rows["seconds_training"].to_numpy(float)
    measuring = rows["seconds_monitor"].to_numpy(float)
    if len(rows) < 2 or not training[-1] > 0 or not np.isfinite(measuring).all():
        return None
    each = np.diff(measuring)
    usual = np.median(each[1:] if len(each) > 1 else each)  # the first one also chose the images
    return Cost(
        regular=float(100 * usual * len(each) / training[-1]),
        whole=float(100 * (measuring[-1] - measuring[0]) / training[-1]),
        start=float(measuring[0]),
    )
