"""Several measures of one embedding: what they share is computed once, and tasks run beside each other."""

from collections.abc import Callable, Sequence

from .arrays import is_on_host
from .context import MeasureContext
from .definition import Measure, Task, Value
from .estimate import precision_for
from .spectrum import ONE_THREAD, in_threads
from .undefined import UndefinedScore

UNDEFINED = "undefined_scores"
"""The column that says why scores have no value."""

# The longest first.
TASKS: tuple[Task, ...] = (
    "decomposition",
    "entropy",
    "spectrum",
    "distances",
    "values",
)
WITH_DISTANCES = {"entropy", "spectrum", "distances"}

Results = dict[str, Value | UndefinedScore | None]
Computation = Callable[[], Results]


def values_of(wanted: Sequence[Measure], context: MeasureContext) -> dict[str, Value]:
    """The values of measures that can be computed, by name, in their order; those that are undefined are left out.

    Why a score is undefined for the embedding stands in ``UNDEFINED``, one after the other, if any is.
    """
    possible = [one for one in wanted if one.can_be_computed(context)]
    at_once = [one for one in possible if one.of_halves is None]
    on_halves = [one for one in possible if one.of_halves is not None]
    results: Results = {}
    if any(one.task == "entropy" for one in at_once) and not _takes_one_thread(context):
        results |= _computed([one for one in at_once if one.task == "entropy"], context)
        at_once = [one for one in at_once if one.task != "entropy"]
    if context.points.few and any(one.task in WITH_DISTANCES for one in at_once):
        context.points.squares  # noqa: B018 - by all threads, before several tasks ask for it
    tasks = _tasks(at_once, on_halves, context)
    # A device is one, and does what it is given one after the other.
    beside_each_other = in_threads if is_on_host(context.points.values) else map
    for of_task in beside_each_other(_done, tasks):
        results |= of_task
    results |= _computed(on_halves, context)
    return _in_order(wanted, results)


def _takes_one_thread(context: MeasureContext) -> bool:
    """Whether the entropy of all points is computed by one thread, so that others are free meanwhile."""
    settings = context.settings
    return (
        context.n <= ONE_THREAD
        and precision_for(settings.precision, context.n, settings.t) == "float32"
    )


def _tasks(
    at_once: Sequence[Measure], on_halves: Sequence[Measure], context: MeasureContext
) -> list[Computation]:
    """What can be computed at the same time: each kind of measure, and the scores of each half of the images."""

    def of_kind(kind: Task) -> Computation:
        return lambda: _computed([one for one in at_once if one.task == kind], context)

    def of_half(half: MeasureContext) -> Computation:
        def measured() -> Results:
            for score in scores:
                score.result(half)
            return {}  # the half keeps them

        return measured

    scores = [one.of_halves for one in on_halves if one.of_halves is not None]

    halves = context.halves if on_halves else []
    return [of_kind(kind) for kind in TASKS] + [of_half(half) for half in halves]


def _done(task: Computation) -> Results:
    return task()


def _computed(measures: Sequence[Measure], context: MeasureContext) -> Results:
    return {one.name: one.result(context) for one in measures}


def _in_order(wanted: Sequence[Measure], results: Results) -> dict[str, Value]:
    """The values in the order of the measures, and why others have none."""
    values: dict[str, Value] = {}
    reasons: dict[str, str] = {}
    for one in wanted:
        result = results.get(one.name)
        if isinstance(result, UndefinedScore):
            if one.name.removesuffix("_se") not in reasons:  # which says it for its error too
                reasons[one.name] = str(result)
        elif result is not None:
            values[one.name] = result
    if reasons:
        values[UNDEFINED] = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return values
