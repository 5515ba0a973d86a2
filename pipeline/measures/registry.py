"""Every measure of a row, declared once: its column, its words, its computation, its standard error."""

from __future__ import annotations  # so that help() shows ArrayLike by its name

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .context import MeasureContext
from .core.arrays import namespace
from .core.checks import UndefinedScore
from .core.decomposition import scaled
from .definition import Measure, Value
from .dse.angular import angular_mutual_information
from .dse.entropy import binned_entropy
from .dse.scale_free import scale_free_mutual_information
from .scores.class_gaussians import gbc_of_decomposition
from .scores.clid import clid_of_directions
from .scores.cosine import offset_share_of_scaled
from .scores.dimension import (
    alpha_req_of_squares,
    mst_dimension_of_squares,
    participation_ratio_of_squares,
)
from .scores.probe import Z95, packed, percent, wilson_interval
from .scores.transferability import (
    h_score_of_decomposition,
    logme_of_decomposition,
    rankme_of_decomposition,
    transrate_of_decomposition,
    within_over_between_of_centred,
)
from .uncertainty import error_over_halves, sampling_error


def error_of_share(
    hits: Callable[[MeasureContext], NDArray[np.bool_]],
) -> Callable[[MeasureContext], float]:
    """The standard error of a share of hits, in percentage points: above 0 also where all are hits, or none."""

    def error(context: MeasureContext) -> float:
        low, high = wilson_interval(int(hits(context).sum()), len(hits(context)))
        return (high - low) / (2 * Z95)

    return error


def error_of_two_nn(context: MeasureContext) -> float:
    """That of the maximum-likelihood estimate of an exponent from so many points."""
    return context.two_nn_dimension / float(np.sqrt(len(context.different_image_points)))


def error_of_mean(
    of_rows: Callable[[MeasureContext], NDArray[np.float64]],
) -> Callable[[MeasureContext], float]:
    """The standard error of a mean over images, whose rows belong together, with the fitted model as it is."""

    def error(context: MeasureContext) -> float:
        of_images = np.bincount(context.images, of_rows(context)) / np.bincount(context.images)
        return float(np.std(of_images, ddof=1) / np.sqrt(len(of_images)))

    return error


def over_halves(score: Measure) -> Callable[[MeasureContext], float | None]:
    """The standard error of a score by its values on random halves of the images; None if one of them has none."""

    def error(context: MeasureContext) -> float | None:
        halves = context.halves
        results = [score.result(half) for half in halves]
        values = np.array([float(_defined(result)) for result in results if result is not None])
        if len(values) < len(halves) or not halves:
            return None
        if not score.grows_with_images or (values == 0).any():
            return error_over_halves(values, halves[0].n, context.n)
        of_all = score.result(context)
        if of_all is None:
            return None
        return abs(float(_defined(of_all))) * error_over_halves(
            np.log(np.abs(values)), halves[0].n, context.n
        )

    return error


def _defined(result: Value | UndefinedScore) -> Value:
    if isinstance(result, UndefinedScore):
        raise result
    return result


SATURATION = 0.1
"""Bits: an entropy this near to 0 or to log2 n says nothing of the embedding."""


def _root_mean_square(context: MeasureContext) -> float:
    values = context.points.values
    return float(np.sqrt(float(namespace(values).mean(values * values))))


def _distance_in_sigmas(context: MeasureContext) -> float | None:
    return context.median_distance / context.sigma if context.n > 1 else None


def _is_saturated(context: MeasureContext) -> bool:
    most = float(np.log2(context.n))
    return bool(context.entropy <= SATURATION or context.entropy >= most - SATURATION)


def _null_spread(context: MeasureContext) -> float | None:
    values = context.information_without_signal
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _sampling_error(context: MeasureContext) -> float | None:
    settings = context.settings
    error = sampling_error(
        context.classes,
        context.images,
        context.spectral_entropies,
        settings.repetitions,
        settings.seed,
    )
    return _finite(error)


def _whatever_the_settings(
    information: Callable[..., float],
) -> Callable[[MeasureContext], float]:
    """A DSMI that chooses sigma and t itself; only the subsets and the arithmetic are those of the settings."""

    def compute(context: MeasureContext) -> float:
        settings = context.settings
        return information(
            context.points,
            context.classes,
            repetitions=settings.repetitions,
            seed=settings.seed,
            method=settings.method,
            precision=settings.precision,
            tolerance=settings.tolerance,
        )

    return compute


def _transrate(context: MeasureContext) -> float | None:
    rate = transrate_of_decomposition(
        context.centred_values, context.decomposition, context.classes, context.exponent
    )
    return _finite(rate)


def _probe_interval(context: MeasureContext) -> tuple[float, float]:
    hits = context.probe_hits
    return wilson_interval(int(hits.sum()), len(hits))


def _error_measure(score: Measure) -> Measure:
    """The column of a score's standard error."""
    meaning = f"Standard error of `{score.name}` over images."
    title = f"{score.title} standard error"
    error = score.error or over_halves(score)
    of_halves = None if score.error else score
    name = f"{score.name}_se"
    return Measure(
        name,
        title,
        score.unit,
        meaning,
        error,
        needs=score.needs,
        task=score.task,
        of_halves=of_halves,
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


DIAGNOSTICS: tuple[Measure, ...] = (
    Measure(
        "embedding_rms", "Embedding RMS", "", "Root mean square of the embedding's values: its scale.",
        _root_mean_square, needs="embedding",
        task="values",
    ),
    Measure(
        "median_distance_over_sigma", "Median distance / sigma", "",
        "Median distance between two points, in units of sigma; far from 1, DSE says little.",
        _distance_in_sigmas, needs="embedding",
    ),
    Measure(
        "saturated", "Saturated", "flag",
        "DSE is within 0.1 bit of 0 or of log2 n: sigma is wrong for this embedding's scale.",
        _is_saturated, needs="embedding", task="entropy",
    ),
    Measure(
        "dsmi_z_y_se", "DSMI(Z;Y) standard error", "bits",
        "Standard error of `dsmi_z_y` over images: its spread over other images of the same classes, as many.",
        _sampling_error,
    ),
    Measure(
        "dsmi_z_y_null_sd", "DSMI(Z;Y) null spread", "bits",
        "Standard deviation of DSMI(Z;Y) over the permutations behind `dsmi_z_y_null`.",
        _null_spread,
    ),
)  # fmt: skip

MEASURES: tuple[Measure, ...] = (
    Measure(
        "dse_z", "DSE(Z)", "bits", "Diffusion spectral entropy of the embedding.",
        lambda context: context.entropy, needs="embedding", task="entropy",
    ),
    Measure(
        "dsmi_z_y", "DSMI(Z;Y)", "bits", "Diffusion spectral mutual information of embedding and labels.",
        lambda context: context.spectral_information(context.classes),
    ),
    Measure(
        "dsmi_z_y_null", "DSMI(Z;Y) null", "bits",
        "Mean DSMI(Z;Y) with the labels permuted over images, repeats moving together: what no signal gives.",
        lambda context: float(np.mean(context.information_without_signal)),
    ),
    Measure(
        "dsmi_z_y_scale_free", "Scale-free DSMI(Z;Y)", "bits",
        "DSMI(Z;Y) at t = 2 and a sigma of half the root mean square length of the embedding's rows, whatever the "
        "settings.",
        _whatever_the_settings(scale_free_mutual_information),
    ),
    Measure(
        "dsmi_z_y_angular", "Angular DSMI(Z;Y)", "bits",
        "DSMI(Z;Y) of the rows' directions from their mean, at t = 2 and a sigma of half the median distance, whatever "
        "the settings.",
        _whatever_the_settings(angular_mutual_information),
    ),
    Measure(
        "dsmi_z_x", "DSMI(Z;X)", "bits",
        "Diffusion spectral mutual information of embedding and clusters of the inputs.",
        lambda context: context.spectral_information(context.clusters), needs="input_clusters",
    ),
    Measure(
        "cse_z", "CSE(Z)", "bits", "Classic (binned) Shannon entropy of the embedding.",
        lambda context: binned_entropy(context.points.values, context.settings.bins), needs="embedding",
        task="values",
    ),
    Measure(
        "csmi_z_y", "CSMI(Z;Y)", "bits", "Classic Shannon mutual information of embedding and labels.",
        lambda context: context.binned_information(context.classes),
        task="values",
    ),
    Measure(
        "csmi_z_x", "CSMI(Z;X)", "bits",
        "Classic Shannon mutual information of embedding and clusters of the inputs.",
        lambda context: context.binned_information(context.clusters), needs="input_clusters",
        task="values",
    ),
)  # fmt: skip

COMPARISONS: tuple[Measure, ...] = (
    Measure(
        "logme", "LogME", "nats", "Greatest log evidence of a Bayesian linear regression of the labels, a sample.",
        lambda context: _finite(logme_of_decomposition(context.uncentred_decomposition, context.classes)),
        task="decomposition",
    ),
    Measure(
        "h_score", "H-score", "",
        "Variance of the class means over the embedding's, summed over directions; shrunk as by Ledoit and Wolf.",
        lambda context: _finite(h_score_of_decomposition(context.decomposition, context.d, context.classes)),
        task="decomposition",
    ),
    Measure(
        "transrate", "TransRate", "nats",
        "Coding rate of the embedding less that of its classes, at a distortion of 1e-4; depends on the scale.",
        _transrate, task="decomposition",
    ),
    Measure(
        "rankme", "RankMe", "", "Smooth rank: exp of the entropy of the embedding's singular values; no labels.",
        lambda context: _finite(rankme_of_decomposition(context.uncentred_decomposition, min(context.n, context.d))),
        needs="embedding", task="decomposition",
    ),
    Measure(
        "centre_accuracy", "Nearest centre", "%",
        "Accuracy of the nearest class centre, each image left out of its own, by image.",
        lambda context: percent(context.centre_hits), needs="image_pairs",
        error=error_of_share(lambda context: context.centre_hits),
        task="values",
    ),
    Measure(
        "neighbour_accuracy", "10 nearest neighbours", "%",
        "Accuracy of a vote of the 10 nearest samples of other images, by image.",
        lambda context: percent(context.neighbour_hits), needs="image_pairs",
        error=error_of_share(lambda context: context.neighbour_hits), task="distances",
    ),
    Measure(
        "probe_accuracy", "Linear probe", "%",
        "Accuracy of a linear probe (a ridge classifier) on the embedding, each image left out in turn.",
        lambda context: percent(context.probe_hits), needs="image_pairs",
        error=error_of_share(lambda context: context.probe_hits), task="decomposition",
    ),
    Measure(
        "within_over_between", "Within / between", "",
        "Variance within classes over variance between them (neural collapse's NC1, traces); lower is better.",
        lambda context: _finite(within_over_between_of_centred(context.centred_values, context.classes)),
        lower_is_better=True, grows_with_images=True,
        task="values",
    ),
    Measure(
        "n_leep", "N-LEEP", "nats",
        "Mean log probability of the labels by a Gaussian mixture of the embedding, fitted without them.",
        lambda context: float(context.leep_log_likelihoods.mean()), task="decomposition",
    ),
    Measure(
        "gbc", "GBC", "",
        "Minus the overlap of the classes as spherical Gaussians (Bhattacharyya), in 64 principal components.",
        lambda context: gbc_of_decomposition(context.decomposition, context.classes),
        grows_with_images=True, task="decomposition",
    ),
    Measure(
        "sfda", "SFDA", "",
        "Mean probability of the true class by Fisher's discriminant, of samples made hard to tell.",
        lambda context: float(context.sfda_probabilities.mean()),
        error=error_of_mean(lambda context: context.sfda_probabilities), task="decomposition",
    ),
    Measure(
        "clid", "CLID", "",
        "Learnability of the embedding's own clusters times its TwoNN dimension; no labels.",
        lambda context: clid_of_directions(context.image_directions, context.two_nn_dimension, context.settings.seed),
        needs="embedding", task="distances",
    ),
    Measure(
        "cosine_neighbour_accuracy", "10 nearest neighbours by cosine", "%",
        "Accuracy of a vote of the 10 samples of other images with the greatest cosine, by image.",
        lambda context: percent(context.cosine_neighbour_hits), needs="image_pairs",
        error=error_of_share(lambda context: context.cosine_neighbour_hits), task="distances",
    ),
    Measure(
        "cosine_centre_accuracy", "Nearest centre by centred cosine", "%",
        "Accuracy of the class centre of the greatest cosine, all less the mean, each image left out, by image.",
        lambda context: percent(context.cosine_centre_hits), needs="image_pairs",
        error=error_of_share(lambda context: context.cosine_centre_hits),
        task="values",
    ),
    Measure(
        "alpha_req", "alpha-ReQ", "",
        "Exponent of the power law of the covariance's eigenvalues; no labels.",
        lambda context: alpha_req_of_squares(context.decomposition.squares), needs="embedding",
        task="decomposition",
    ),
    Measure(
        "participation_ratio", "Participation ratio", "",
        "Squared sum of the covariance's eigenvalues over the sum of their squares; no labels.",
        lambda context: participation_ratio_of_squares(context.decomposition.squares), needs="embedding",
        task="decomposition",
    ),
    Measure(
        "two_nn_dimension", "TwoNN dimension", "",
        "Intrinsic dimension by the distances to the two nearest images; no labels.",
        lambda context: context.two_nn_dimension, needs="embedding",
        error=error_of_two_nn, task="distances",
    ),
    Measure(
        "mst_dimension", "MST dimension", "",
        "Intrinsic dimension by the growth of the images' minimal spanning tree; no labels.",
        lambda context: mst_dimension_of_squares(context.different_image_points.squares, context.settings.seed),
        needs="embedding", task="distances",
    ),
    Measure(
        "offset_share", "Offset share", "",
        "The mean's share of the embedding's mean squared length: a diagnostic; no labels.",
        lambda context: offset_share_of_scaled(scaled(context.points.values)[0]), needs="embedding",
        task="values",
    ),
)  # fmt: skip
"""What one would use instead of the measures."""

DETAILS: tuple[Measure, ...] = (
    Measure(
        "probe_low", "Linear probe, lower limit", "%",
        "Lower limit of `probe_accuracy`'s 95% interval (Wilson's, over images).",
        lambda context: _probe_interval(context)[0], needs="image_pairs", task="decomposition",
    ),
    Measure(
        "probe_high", "Linear probe, upper limit", "%", "Upper limit of it.",
        lambda context: _probe_interval(context)[1], needs="image_pairs", task="decomposition",
    ),
    Measure(
        "probe_hits", "Linear probe, images", "text",
        "Which images the probe got right: their number, then their bits in hexadecimal.",
        lambda context: packed(context.probe_hits), needs="image_pairs", task="decomposition",
    ),
)  # fmt: skip
"""What stands in a row beside the scores, for rankings with ties."""

ERRORS: tuple[Measure, ...] = tuple(
    _error_measure(score)
    for score in (*MEASURES, *COMPARISONS)
    if score.name
    not in ("dsmi_z_y", "dsmi_z_y_null")  # which have columns of their own: DIAGNOSTICS
)
"""The standard error of each score over images."""

OF_A_ROW: tuple[Measure, ...] = (*DIAGNOSTICS, *MEASURES, *COMPARISONS, *DETAILS, *ERRORS)
"""All of them, in the order of a row's columns."""

BY_NAME = {measure.name: measure for measure in OF_A_ROW}
