"""Compute measures of an embedding: shared work once, independent tasks in parallel."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import rule_of, settings_of, signature_with

from .context import MeasureContext
from .core.arrays import is_on_host
from .core.checks import UndefinedScore
from .core.estimate import precision_for
from .core.points import Points
from .core.settings import MeasureSettings
from .core.threads import in_threads
from .definition import Measure, Task, Value
from .dse.spectrum import ONE_THREAD
from .registry import BY_NAME, OF_A_ROW

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


SETTINGS = tuple(setting for setting in settings_of(MeasureSettings) if setting.key != "own")
"""Those that `measure` takes; a measure of one's own is a function that one calls oneself."""


@signature_with(SETTINGS)
def measure(
    Z: ArrayLike | Points,
    labels: ArrayLike | None = None,
    *,
    scores: str | Iterable[str] | None = None,
    image_ids: ArrayLike | None = None,
    input_clusters: ArrayLike | None = None,
    **settings: Any,
) -> dict[str, Value]:
    """Every measure, diagnostic and comparison score of an embedding, by its column's name, or those asked for.

    Distances, kernels, spectra and neighbours are computed once and shared, and only if a score needs them.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample: an array, a tensor, a data frame. A tensor on a GPU is measured there.
    labels : [n] or [n, 1], optional
        The class of each sample, of any type; without them what needs labels is left out.
    scores : str or iterable of str, optional
        The columns to compute, such as ``("dse_z", "neighbour_accuracy")``; all but the probe's single hits by default.
    image_ids : [n], optional
        The image of each sample: repeats of an image share an id, and are permuted and left out together. By default
        every sample is an image of its own.
    input_clusters : [n] or [n, 1], optional
        The cluster of each sample's input, from `cluster_inputs`; without it the keys that end in ``_z_x`` are left
        out.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper.
    t : float
        Diffusion time, the power of the eigenvalues; 1 by default.
    repetitions : int
        Random subsets for each class of a mutual information; 5 by default.
    seed : int
        Seed of the random subsets and of the null; 0 by default.
    bins : int
        Bins for each dimension of the classic entropy; 2 by default.
    null_permutations : int
        Permutations of the labels behind `dsmi_z_y_null`; 10 by default.
    method : {"auto", "exact", "lanczos"}
        All eigenvalues, or an estimate; by default an estimate for more than 8,192 points.
    precision : {"float32", "float64"}
        Arithmetic of the eigenvalues; float32 by default.
    tolerance : float
        Standard error at which an estimate stops, in bits; 0.005 by default.

    Returns
    -------
    dict
        In the order of a row's columns, or of ``scores``. The unit of each stands in the registry: entropies and
        information in bits, accuracies in percent. What is undefined for this embedding is left out: standard errors
        where classes have too few images, `within_over_between` where all class means coincide, and, unless asked for
        by name, accuracies where a class has a single image. Where others have no value, `undefined_scores` says why.

    Raises
    ------
    ValueError
        If the embedding is no finite matrix of numbers, the labels do not fit it or make one class only, the repeats
        of one image bear different labels, a setting is out of range, or a score is unknown or needs what is not given.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSE and DSMI; the others are those of the single functions.
    """
    checked = checked_settings(settings)
    if checked.own:
        raise InputError(
            "own measures are for runs and the command line; here, call your function itself"
        )
    asked = () if scores is None else names_of(scores)
    context = MeasureContext(Z, labels, image_ids, input_clusters, checked)
    if scores is None:
        wanted = [one for one in OF_A_ROW if one.unit != "text" and one.can_be_computed(context)]
    else:
        wanted = [_askable(name, context) for name in asked]
    return values_of(wanted, context)


def checked_settings(settings: dict[str, Any], function: str = "measure") -> MeasureSettings:
    """The settings of a call of a function; what is wrong with one of them becomes an InputError of one line."""
    try:
        return MeasureSettings.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(setting.key for setting in SETTINGS)
        raise InputError(
            f"{function} has no setting {name!r}; beside its own arguments there are {known}"
        )
    rule = rule_of(problem)
    raise InputError(f"{name} is {problem['input']!r}; {rule[0].lower()}{rule[1:]}")


def names_of(scores: str | Iterable[str]) -> tuple[str, ...]:
    """The names of scores that are asked for; a string is one of them.

    Raises
    ------
    InputError
        For a name that the registry does not have; with near names.
    """
    if not isinstance(scores, Iterable):
        raise InputError(f"scores is {scores!r}; pass names of columns, such as 'dse_z'")
    names = (scores,) if isinstance(scores, str) else tuple(scores)
    if not names:
        raise InputError("scores is empty; name one, or leave it out for all of them")
    for name in names:
        if name in BY_NAME:
            continue
        near = get_close_matches(str(name), BY_NAME, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(BY_NAME)}"
        raise InputError(f"no score is called {name!r}; {hint}")
    return names


def _askable(name: str, context: MeasureContext) -> Measure:
    """The measure of this name, if the context has what it needs."""
    score = BY_NAME[name]
    if score.can_be_computed(context):
        return score
    if score.needs == "image_pairs" and context.has_labels:
        raise InputError(
            f"the score {name} needs two images of each class, one to be left out; give each class two"
        )
    lacking = "input_clusters" if score.needs == "input_clusters" else "labels"
    raise InputError(f"the score {name} needs {lacking}; pass them too")


NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""There where a GPU is: a process that has not loaded torch need not do so to find out."""


def measured(
    embedding: np.ndarray,
    labels: np.ndarray,
    images: np.ndarray,
    clusters: np.ndarray | None,
    settings: MeasureSettings,
) -> dict[str, Value]:
    """Every measure that a row has, of an embedding, float32 [n, d]; on the CPU too if the GPU's memory runs out."""

    def values(Z: Any) -> dict[str, Value]:
        return values_of(OF_A_ROW, MeasureContext(Z, labels, images, clusters, settings))

    if has_gpu():
        import torch

        try:
            with suppress(torch.OutOfMemoryError):
                return values(torch.from_numpy(embedding).cuda())
        finally:
            torch.cuda.empty_cache()  # other processes share the GPU
    return values(embedding)


def has_gpu() -> bool:
    """Whether there is a GPU on which torch has float64."""
    if "torch" not in sys.modules and not NVIDIA_DRIVER.exists():
        return False
    import torch

    return torch.cuda.is_available()
