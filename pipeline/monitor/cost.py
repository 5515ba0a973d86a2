"""What a monitor may cost: how many images keep to a share of the training time."""

import math
from collections.abc import Callable

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
