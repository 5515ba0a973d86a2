"""Diffusion spectral mutual information of an embedding and classes, in bits."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.arrays import namespace, times_power_of_two
from ..core.checks import UndefinedScore, as_classes
from ..core.context import MeasureContext
from ..core.distances import SQUARES_FIT, Points, as_points, directions, squares_of_directions
from ..core.exact_or_estimated import TOLERANCE, Estimate, Method, Precision
from ..core.halves import too_few_images
from ..core.hits import first_rows
from ..core.registry import column, score
from ..core.settings import checked_settings
from ..core.threads import computed_once
from .subsets import FOR_QUARTERS, SpectralEntropies, sampling_error, spectral_entropies


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
    """Return the diffusion spectral mutual information (DSMI) of an embedding and labels, in bits.

    It is the sum over classes c of p(c) times the difference between the diffusion spectral entropy of random points,
    as many as the class has, and that of the class. Unlike Shannon's, it depends on the number of points in a class and
    on the number of classes, so compare only values that were measured on the same labels.

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
        As for `diffusion_spectral_entropy`, chosen separately for each class and random subset, by its size in points.

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
    """Return the diffusion spectral mutual information with the standard error of its computation, and the method.

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
    return _error_from(spectral_entropies(context), context)


def _error_from(entropies: SpectralEntropies, context: MeasureContext) -> float:
    """Return the standard error over images; undefined if classes are too small."""
    context.require_halves()
    error = sampling_error(context.classes, context.images, entropies)
    if math.isnan(error):
        raise UndefinedScore(too_few_images(context.classes, context.images, FOR_QUARTERS))
    return error


@score("dsmi_z_y", task="spectrum", error=_error)
@computed_once
def dsmi_z_y(context: MeasureContext) -> float:
    """Return the mutual information with the labels."""
    return spectral_entropies(context).information(context.classes).value


@score("dsmi_z_x", task="spectrum")
def dsmi_z_x(context: MeasureContext) -> float:
    """Return the mutual information with the clusters of the inputs."""
    return spectral_entropies(context).information(context.clusters).value


@computed_once
def _information_without_signal(context: MeasureContext) -> list[float]:
    """Return the mutual information for each permutation of the labels; rows of one image keep a common label."""
    settings, images = context.settings, context.images
    generator = np.random.default_rng(settings.seed)
    of_images = context.classes[first_rows(images)]
    permuted = [generator.permutation(of_images)[images] for _ in range(settings.null_permutations)]
    return [found.value for found in spectral_entropies(context).informations(permuted)]


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


@score("dsmi_z_y_net", task="spectrum")
def dsmi_z_y_net(context: MeasureContext) -> float:
    """Return the mutual information with the labels minus the mean one with permuted labels.

    Both terms subtract from the entropies of the same random subsets, which cancel if permuting keeps the class sizes.
    What remains is the mean entropy of the permuted classes minus that of the classes, so the baseline is averaged over
    ``null_permutations`` labellings, not over ``repetitions`` random subsets.
    """
    return dsmi_z_y(context) - dsmi_z_y_null(context)


# For `dsmi_z_y_scale_free` and `dsmi_z_y_angular`, whatever the settings.
SIGMA_SHARE = 0.5  # of the root mean square length of a row, or of the median distance
DIFFUSION_TIME = 2
ROUNDING = 1e-14  # of directions, whose length is 1


def _scale_free_error(context: MeasureContext) -> float:
    # The registry's `error_over_halves` cuts halves to 500 rows, which for 2,000 rows understates the error threefold.
    return _error_from(_scale_free_entropies(context), context)


@score("dsmi_z_y_scale_free", task="spectrum", error=_scale_free_error)
def dsmi_z_y_scale_free(context: MeasureContext) -> float:
    """Return DSMI at sigma = 1/2 sqrt(mean |z|^2) and t = 2, in bits; 0 for a constant embedding.

    With the paper's sigma = sqrt(d), scaling the embedding changes DSMI. Here it does not, because sigma is half the
    root mean square length of a row: half the paper's where the embedding's root mean square is 1. The value does
    depend on the origin: an offset that all rows share makes them alike, as in their cosines.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI. Sigma and t were chosen on the digits zoo by a script since removed;
    ``docs/score-study-results.md`` has results on others.
    """
    return _scale_free_entropies(context).information(context.classes).value


@computed_once
def _scale_free_entropies(context: MeasureContext) -> SpectralEntropies:
    """Return the entropies at the sigma and t of `dsmi_z_y_scale_free`."""
    points = context.points
    values, exponent = context.scaled_values
    if abs(exponent) > SQUARES_FIT:
        points, exponent = Points(values), 0
    sum_of_squares = float(namespace(values).sum(values * values))
    length = float(np.sqrt(sum_of_squares / values.shape[0]))
    sigma = float(np.ldexp(SIGMA_SHARE * length, exponent)) or 1.0  # for zeros, any sigma will do
    return _entropies_at(context, points, sigma)


@score("dsmi_z_y_angular", task="spectrum")
def dsmi_z_y_angular(context: MeasureContext) -> float:
    """Return DSMI of the centred embedding's cosine geometry, in bits.

    Each row minus the mean is scaled to length 1; sigma is half the median distance of two such points, t is 2. Neither
    the embedding's scale nor its offset matters. The choices were made on the digits zoo of seed 0 and on one zoo of
    photographs; ``docs/score-study-results.md`` has results on others. Undefined if a row equals the mean, and so has
    no direction, or if the median distance is 0, that is, most pairs of rows have the same direction.

    References
    ----------
    Liao et al., arXiv 2312.04823, for DSMI.
    """
    points, values, exponent = context.points, context.centred_values, context.exponent
    unit = directions(values, "rows less their mean")
    if points.few and abs(exponent) <= SQUARES_FIT:
        in_units = times_power_of_two(values, exponent)
        on_sphere = Points(unit, lambda: squares_of_directions(points.squares, in_units, unit))
    else:
        on_sphere = Points(unit)
    median = on_sphere.median_distance(context.settings.seed)
    if median <= ROUNDING:
        raise UndefinedScore("the median distance of the directions is 0")
    entropies = _entropies_at(context, on_sphere, SIGMA_SHARE * median)
    return entropies.information(context.classes).value


def _entropies_at(context: MeasureContext, points: Points, sigma: float) -> SpectralEntropies:
    settings = context.settings.model_copy(update={"t": float(DIFFUSION_TIME)})
    return SpectralEntropies(points, sigma, settings)
