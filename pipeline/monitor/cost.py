"""The cost of a monitor: the number of images that fits a share of the training time, and the share spent."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

SHARE = 0.02  # share of the training time for the measurements
CHOICE = 0.08  # share of the time between two measurements, once, to choose the number of images
WORTH_TRYING = 1.25  # least factor between the numbers of images of two trials
BUDGET = 0.05  # share of the training time for both together, from five measurements on


def choose_n(
    timed: Callable[[int], float], least: int, most: int, budget: float, limit: float
) -> tuple[int, float]:
    """Choose how many images to measure, by trials with up to twice as many images each.

    The number is never extrapolated: beyond the budget it is interpolated between the last two trials. A trial beyond
    the budget is repeated, in case the machine was busy with something else.

    Parameters
    ----------
    timed
        Function that measures the given number of images and returns the seconds it took.
    least, most
        Bounds of the number of images.
    budget
        Seconds for one measurement.
    limit
        Seconds for all trials: no trial starts that is expected to end later, except the two of ``least``.

    Returns
    -------
    n
        The number of images.
    seconds
        Seconds that ``least`` images took.
    """
    first, n = timed(least), least  # the first call loads and allocates
    again = timed(n)
    spent, seconds = first + again, min(first, again)
    of_least, growth = seconds, 1.0  # time grows by this power of n: 1 forward, 3 eigenvalues
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
    """Time spent on measuring.

    Attributes
    ----------
    regular
        Percent of the training time, from the median measurement: one slowed down by a busy machine does not count.
    whole
        Percent of the training time, from all measurements during training and the choice of their images.
    start
        Seconds before the training: imports, and a first forward pass.
    """

    regular: float
    whole: float
    start: float


def cost_of(rows: pd.DataFrame) -> Cost | None:
    """Return the cost of a monitor's measurements; None before the first one during training."""
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
