"""Computation of an embedding's measures: shared work is done once, independent tasks run in parallel."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.settings import signature_with

from . import dse
from . import scores as scores_package
from .catalog import (
    BY_NAME,
    COSTLY,
    NOT_BY_DEFAULT,
    ROW_MEASURES,
    UNDEFINED,
    Measure,
    format_reasons,
    parse_reasons,
)
from .core.arrays import is_on_host
from .core.checks import UndefinedScore
from .core.context import MeasureContext
from .core.distances import Points
from .core.exact_or_estimated import precision_for
from .core.registry import COMPUTATIONS, Computation, Task, Value
from .core.settings import SETTINGS, MeasureSettings, checked_settings
from .core.threads import in_threads
from .dse.spectrum import ONE_THREAD, SMALL

# Each module registers its functions as columns.
for _package in (dse, scores_package):
    for _module in iter_modules(_package.__path__, f"{_package.__name__}."):
        import_module(_module.name)

# The longest first.
TASKS: tuple[Task, ...] = ("decomposition", "entropy", "spectrum", "distances", "values")
WITH_DISTANCES = {"entropy", "spectrum", "distances"}

GROUPS = ("default", "all")

Results = dict[str, Value | UndefinedScore | None]


def values_of(wanted: Sequence[Measure], context: MeasureContext) -> dict[str, Value]:
    """Return the values of measures by name, in the given order, without those whose input the context lacks.

    If scores have no value for this embedding, ``UNDEFINED`` says why.
    """
    possible = [COMPUTATIONS[one.name] for one in wanted if can_be_computed(one, context)]
    direct = [one for one in possible if one.of_halves is None]
    from_halves = [one for one in possible if one.of_halves is not None]
    parallel = _parallel_tasks(context)
    results = _computed([one for one in direct if one.task in parallel], context)
    direct = [one for one in direct if one.task not in parallel]
    if context.points.few and any(one.task in WITH_DISTANCES for one in direct):
        context.points.squares  # noqa: B018 - with all threads, before several tasks ask for it
    parts = [(context, [one for one in direct if one.task == task]) for task in TASKS]
    if from_halves:
        of_half = [one.of_halves for one in from_halves if one.of_halves is not None]
        parts += [(half, of_half) for half in context.halves]

    def compute(part: tuple[MeasureContext, list[Computation]]) -> None:
        _computed(part[1], part[0])

    if is_on_host(context.points.values):
        in_threads(compute, parts)
    else:  # a device works through its tasks in sequence
        for part in parts:
            compute(part)
    results |= _computed(direct, context) | _computed(from_halves, context)
    return _in_order(wanted, results)


def values_by_default(wanted: Sequence[Measure], context: MeasureContext) -> dict[str, Value]:
    """Return the values of measures as ``values_of`` does, without the costly ones: ``UNDEFINED`` names those."""
    values = values_of([one for one in wanted if one.name not in COSTLY], context)
    reasons = parse_reasons(str(values.pop(UNDEFINED, "")))
    left_out = [one for one in wanted if one.name in COSTLY and can_be_computed(one, context)]
    reasons |= {one.name: NOT_BY_DEFAULT for one in left_out}
    return values | ({UNDEFINED: format_reasons(reasons)} if reasons else {})


def can_be_computed(measure: Measure, context: MeasureContext) -> bool:
    """Return whether the context has the input that the measure needs."""
    if measure.needs == "embedding":
        return True
    return context.has_clusters if measure.needs == "input_clusters" else context.has_labels


def _parallel_tasks(context: MeasureContext) -> set[Task]:
    """Return the tasks that use all threads themselves, because a single one would take longer than all other tasks."""
    settings = context.settings
    tasks: set[Task] = set()
    precision = precision_for(settings.precision, context.n, settings.t)
    if context.n > ONE_THREAD or (precision == "float64" and settings.t != 1):
        tasks.add("entropy")
    if context.largest_group > SMALL:
        tasks.add("spectrum")
    return tasks


def _computed(computations: Sequence[Computation], context: MeasureContext) -> Results:
    """Return the results, which the context keeps."""
    return {one.name: one.result(context) for one in computations}


def _in_order(wanted: Sequence[Measure], results: Results) -> dict[str, Value]:
    """Return the values in the order of the measures, and the reasons for those that are missing."""
    values: dict[str, Value] = {}
    reasons: dict[str, str] = {}
    for one in wanted:
        result = results.get(one.name)
        if isinstance(result, UndefinedScore):
            reasons[one.name] = str(result)
        elif result is not None:
            values[one.name] = result
    # The reason of a score is also that of its error, <name>_se, and of its spread, <name>_sd.
    of_scores = {name: why for name, why in reasons.items() if name[:-3] not in reasons}
    if of_scores:
        values[UNDEFINED] = format_reasons(of_scores)
    return values


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
    """Return measures, diagnostics and comparison scores of an embedding by column name: all, or those chosen.

    Distances, kernels, spectra and neighbours are computed once and shared, and only if a score needs them.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample: an array, a tensor, a data frame. A tensor on a GPU is measured there.
    labels : [n] or [n, 1], optional
        The class of each sample, of any type; without labels, scores that need them are left out.
    scores : str or iterable of str, optional
        The columns to compute, such as ``("dse_z", "neighbour_accuracy")``, or ``"all"`` (the default; all except
        `probe_hits`), or ``"default"``: those of a run's row, at half the cost.
    image_ids : [n], optional
        The image of each sample: repeats of an image share an id, and are permuted and left out together. By default
        each sample is a separate image.
    input_clusters : [n] or [n, 1], optional
        The cluster of each sample's input, from `cluster_inputs`; without it, ``_z_x`` scores are left out.
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
        In the order of a row's columns, or of ``scores``. Entropies and information are in bits, accuracies in percent.
        A score that is undefined for this embedding, such as an accuracy where a class has a single image, is left out,
        and `undefined_scores` gives the reason: "NAME, NAME: reason; NAME: reason". The standard error of a score
        without a value is left out with it.

    Raises
    ------
    ValueError
        If the embedding is not a finite matrix of numbers, the labels do not fit it, repeats of an image have different
        labels, a setting is out of range, or a score is unknown or lacks its input.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSE and DSMI; ``docs/measures.md`` lists those of the other scores.
    """
    checked = checked_settings(settings)
    if checked.own:
        raise InputError(
            "own measures are for runs and the command line; here, call your function itself"
        )
    asked = () if is_group(scores) else names_of(scores)
    group = "default" if scores == "default" else "all"
    checked = checked.model_copy(update={"scores": group})
    context = MeasureContext(Z, labels, image_ids, input_clusters, checked)
    if asked:
        return values_of([_askable(name, context) for name in asked], context)
    wanted = [one for one in ROW_MEASURES if one.unit != "text" and can_be_computed(one, context)]
    return (values_by_default if scores == "default" else values_of)(wanted, context)


def is_group(scores: str | Iterable[str] | None) -> bool:
    """Return whether ``scores`` is a group, not names of scores; None means the group of all."""
    return scores is None or (isinstance(scores, str) and scores in GROUPS)


def names_of(scores: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of the requested scores; for an unknown one, raise InputError with similar names."""
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
    """Return the measure of this name; raise InputError if the context lacks its input."""
    score = BY_NAME[name]
    if can_be_computed(score, context):
        return score
    lacking = "input_clusters" if score.needs == "input_clusters" else "labels"
    raise InputError(f"the score {name} needs {lacking}; pass them too")


NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""Exists where there is a GPU, so that a process need not load torch to find out."""


def measured(
    embedding: np.ndarray,
    labels: np.ndarray,
    images: np.ndarray,
    clusters: np.ndarray | None,
    settings: MeasureSettings,
) -> dict[str, Value]:
    """Return the measures of a row for an embedding, float32 [n, d]; on the CPU if the GPU's memory runs out."""

    def values(Z: Any) -> dict[str, Value]:
        compute = values_of if settings.scores == "all" else values_by_default
        return compute(ROW_MEASURES, MeasureContext(Z, labels, images, clusters, settings))

    if has_gpu():
        import torch

        try:
            with suppress(torch.OutOfMemoryError):
                return values(torch.from_numpy(embedding).cuda())
        finally:
            torch.cuda.empty_cache()  # other processes share the GPU
    return values(embedding)


def has_gpu() -> bool:
    """Return whether there is a CUDA device, on which torch has float64."""
    if "torch" not in sys.modules and not NVIDIA_DRIVER.exists():
        return False
    import torch

    return torch.cuda.is_available()
