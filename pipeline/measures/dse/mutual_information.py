"""Diffusion spectral mutual information of an embedding and classes, in bits."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.checks import UndefinedScore, as_classes
from ..core.context import MeasureContext
from ..core.estimate import TOLERANCE, Estimate, Method, Precision
from ..core.hits import first_rows
from ..core.once import computed_once
from ..core.points import Points, as_points
from ..core.registry import column, score
from ..core.settings import checked_settings
from .sampling_error import sampling_error
from .subsets import SpectralEntropies, spectral_entropies


def diffusion_spectral_mutual_information(
    Z: ArrayLike | Points,
    labels: ArrayLike,
    *,
    sigma: float | None = None,
    t: float = 1,
    repetitions: int = 5,
    seed: int = 0,
    method: Method = "auto",
    precision: Precision = "float64",
    tolerance: float = TOLERANCE,
) -> float:
    """Diffusion spectral mutual information (DSMI) of an embedding and labels, in bits.

    The sum over classes c of p(c) times the difference between the diffusion spectral entropy of random points, as
    many as the class has, and that of the class. It is not Shannon's: it depends on the number of points in a class
    and on the number of classes, so compare only values that were measured on the same labels.

    Parameters
    ----------
    Z : real [n, d]
        The embedding, one row per sample.
    labels : [n] or [n, 1]
        The class of each sample; for the information about inputs, their clusters from `cluster_inputs`.
    sigma : float, optional
        Width of the Gaussian kernel, in the units of Z; sqrt(d) by default, as in the paper's experiments.
    t : float
        Diffusion time.
    repetitions : int
        Random subsets for each class size.
    seed : int
        Seed of the random subsets. Each class starts again from it; global random states are neither read nor set.
    method, precision, tolerance
        As for `diffusion_spectral_entropy`, for the entropy of each class and each random subset, by its own size.

    Returns
    -------
    float
        Bits; slightly negative values are possible, because the subsets are random.

    Raises
    ------
    ValueError
        If Z is not a finite numeric matrix, there is not one label for each row, the labels are continuous or make
        fewer than two classes, or a setting is out of range.

    References
    ----------
    Liao et al., arXiv 2312.04823.
    """
    return diffusion_spectral_mutual_information_estimate(
        Z,
        labels,
        sigma=sigma,
        t=t,
        repetitions=repetitions,
        seed=seed,
        method=method,
        precision=precision,
        tolerance=tolerance,
    ).value


def diffusion_spectral_mutual_information_estimate(
    Z: ArrayLike | Points, labels: ArrayLike, **settings: Any
) -> Estimate:
    """Diffusion spectral mutual information with the standard error of its computation, and the method used.

    Settings and errors are those of `diffusion_spectral_mutual_information`.

    Returns
    -------
    Estimate
        Value and standard error in bits; method ``lanczos`` if any of its entropies was estimated. The error is that
        of the computation alone; the standard error over images is `dsmi_z_y_se` of `measure`.
    """
    checked = checked_settings(
        {"precision": "float64"} | settings, "diffusion_spectral_mutual_information_estimate"
    )
    points = as_points(Z)
    n, d = points.values.shape
    classes = as_classes(labels, n)
    return SpectralEntropies(points, checked.sigma_for(d), checked).information(classes)


def _error(context: MeasureContext) -> float:
    context.require_halves()
    return sampling_error(context.classes, context.images, spectral_entropies(context))


@score("dsmi_z_y", task="spectrum", error=_error)
def dsmi_z_y(context: MeasureContext) -> float:
    """Return the mutual information with the labels."""
    return spectral_entropies(context).information(context.classes).value


@score("dsmi_z_x", task="spectrum")
def dsmi_z_x(context: MeasureContext) -> float:
    """Return the mutual information with the clusters of the inputs."""
    return spectral_entropies(context).information(context.clusters).value


@computed_once
def _information_without_signal(context: MeasureContext) -> list[float]:
    """The mutual information with the labels permuted over images, repeats moving together, for each permutation."""
    settings, images = context.settings, context.images
    generator = np.random.default_rng(settings.seed)
    of_images = context.classes[first_rows(images)]
    permuted = [generator.permutation(of_images)[images] for _ in range(settings.null_permutations)]
    entropies = spectral_entropies(context)
    return [entropies.information(classes).value for classes in permuted]


@column("dsmi_z_y_null", task="spectrum")
def dsmi_z_y_null(context: MeasureContext) -> float:
    """Return the mean mutual information with permuted labels."""
    return float(np.mean(_information_without_signal(context)))


@column("dsmi_z_y_null_sd", task="spectrum")
def dsmi_z_y_null_sd(context: MeasureContext) -> float:
    """Return the standard deviation over the permutations; undefined if there is only one."""
    values = _information_without_signal(context)
    if len(values) == 1:
        raise UndefinedScore("one permutation has no spread, set null_permutations to 2 or more")
    return float(np.std(values, ddof=1))
