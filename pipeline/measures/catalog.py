"""Names, titles, units and meanings of all measures, in the order of a row's columns; nothing here computes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Needs = Literal["embedding", "labels", "input_clusters", "image_pairs"]
"""The input of a measure; ``image_pairs`` means labels with at least two images of each class."""


@dataclass(frozen=True)
class Score:
    """A column that models can be compared by: its name, a title for plots, its unit and its meaning.

    The unit is "bits", "nats", "%", "pixels", "flag" (true or false), "text" or "".
    """

    name: str
    title: str
    unit: str
    meaning: str
    lower_is_better: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Measure(Score):
    """A column that is computed from an embedding, by the function that is registered under its name."""

    needs: Needs = field(default="labels", kw_only=True)


SENSIBLE_DISTANCES = 0.6, 2.0
"""Range of median distance over sigma where DSMI is at least a quarter of its best (``benchmarks/scale_range.py``)."""

DIAGNOSTICS: tuple[Measure, ...] = (
    Measure("embedding_rms", "Embedding RMS", "",
            "Root mean square of the embedding's values: its scale.", needs="embedding"),
    Measure("median_distance_over_sigma", "Median distance / sigma", "",
            "Median distance between two points, in units of sigma; below 0.6 or above 2, sigma is wrong for this "
            "embedding's scale.", needs="embedding"),
    Measure("saturated", "Saturated", "flag",
            "DSE is within 0.1 bit of 0 or of log2 n. A false value is no assurance: see "
            "`median_distance_over_sigma`.", needs="embedding"),
    Measure("dsmi_z_y_se", "DSMI(Z;Y) standard error", "bits",
            "Standard error of `dsmi_z_y` over images: its spread over other images of the same classes, as many."),
    Measure("dsmi_z_y_null_sd", "DSMI(Z;Y) null spread", "bits",
            "Standard deviation of DSMI(Z;Y) over the permutations behind `dsmi_z_y_null`."),
)  # fmt: skip

MEASURES: tuple[Measure, ...] = (
    Measure("dse_z", "DSE(Z)", "bits", "Diffusion spectral entropy of the embedding.", needs="embedding"),
    Measure("dsmi_z_y", "DSMI(Z;Y)", "bits", "Diffusion spectral mutual information of embedding and labels."),
    Measure("dsmi_z_y_null", "DSMI(Z;Y) null", "bits",
            "Mean DSMI(Z;Y) with the labels permuted over images, repeats moving together: what no signal gives."),
    Measure("dsmi_z_y_scale_free", "Scale-free DSMI(Z;Y)", "bits",
            "DSMI(Z;Y) at t = 2 and a sigma of half the root mean square length of the embedding's rows, "
            "whatever the settings."),
    Measure("dsmi_z_y_angular", "Angular DSMI(Z;Y)", "bits",
            "DSMI(Z;Y) of the rows' directions from their mean, at t = 2 and a sigma of half the median "
            "distance, whatever the settings."),
    Measure("dsmi_z_x", "DSMI(Z;X)", "bits",
            "Diffusion spectral mutual information of embedding and clusters of the inputs.", needs="input_clusters"),
    Measure("cse_z", "CSE(Z)", "bits", "Classic (binned) Shannon entropy of the embedding.", needs="embedding"),
    Measure("csmi_z_y", "CSMI(Z;Y)", "bits", "Classic Shannon mutual information of embedding and labels; "
            "a class is binned by its own range, so it can be negative."),
    Measure("csmi_z_x", "CSMI(Z;X)", "bits",
            "Classic Shannon mutual information of embedding and clusters of the inputs.", needs="input_clusters"),
)  # fmt: skip
"""The paper's measures, and variants of them."""

COMPARISONS: tuple[Measure, ...] = (
    Measure("logme", "LogME", "nats",
            "Greatest log evidence of a Bayesian linear regression of the labels, a sample."),
    Measure("h_score", "H-score", "",
            "Variance of the class means over the embedding's, summed over directions; shrunk as by Ledoit "
            "and Wolf."),
    Measure("transrate", "TransRate", "nats",
            "Coding rate of the embedding less that of its classes, at a distortion of 1e-4; depends on the scale."),
    Measure("rankme", "RankMe", "",
            "Smooth rank: exp of the entropy of the embedding's singular values; no labels.", needs="embedding"),
    Measure("centre_accuracy", "Nearest centre", "%",
            "Accuracy of the nearest class centre, each image left out of its own, by image.", needs="image_pairs"),
    Measure("neighbour_accuracy", "10 nearest neighbours", "%",
            "Accuracy of a vote of the 10 nearest samples of other images, by image.", needs="image_pairs"),
    Measure("probe_accuracy", "Ridge probe", "%",
            "Accuracy of a ridge classifier on the embedding, each image left out in turn.",
            needs="image_pairs"),
    Measure("within_over_between", "Within / between", "",
            "Variance within classes over variance between them (neural collapse's NC1, traces); lower is better.",
            lower_is_better=True),
    Measure("n_leep", "N-LEEP", "nats",
            "Mean log probability of the labels by a Gaussian mixture of the embedding, fitted without them."),
    Measure("gbc", "GBC", "",
            "Minus the overlap of the classes as spherical Gaussians (Bhattacharyya), in 64 principal components."),
    Measure("sfda", "SFDA", "",
            "Mean probability of the true class by Fisher's discriminant, of samples made hard to tell."),
    Measure("clid", "CLID", "",
            "Learnability of the embedding's own clusters times its TwoNN dimension; no labels.", needs="embedding"),
    Measure("cosine_neighbour_accuracy", "10 nearest neighbours by cosine", "%",
            "Accuracy of a vote of the 10 samples of other images with the greatest cosine, by image.",
            needs="image_pairs"),
    Measure("cosine_centre_accuracy", "Nearest centre by centred cosine", "%",
            "Accuracy of the class centre of the greatest cosine, all less the mean, each image left out, by image.",
            needs="image_pairs"),
    Measure("alpha_req", "alpha-ReQ", "",
            "Exponent of the power law of the covariance's eigenvalues; no labels.", needs="embedding"),
    Measure("participation_ratio", "Participation ratio", "",
            "Squared sum of the covariance's eigenvalues over the sum of their squares; no labels.",
            needs="embedding"),
    Measure("two_nn_dimension", "TwoNN dimension", "",
            "Intrinsic dimension by the distances to the two nearest images; no labels.", needs="embedding"),
    Measure("mst_dimension", "MST dimension", "",
            "Intrinsic dimension by the growth of the images' minimal spanning tree; no labels.", needs="embedding"),
    Measure("label_cka", "Label CKA", "",
            "Linear centred kernel alignment of the embedding and one-hot labels, 0 to 1."),
    Measure("parc", "PARC", "",
            "100 times the rank correlation, over pairs of images, of unlike rows and unlike labels."),
    Measure("dsmi_z_y_net", "DSMI(Z;Y) less its null", "bits",
            "`dsmi_z_y` less `dsmi_z_y_null`, which share their random subsets: most of the sampling error cancels."),
    Measure("dse_z_knn", "DSE(Z) by neighbours", "bits",
            "DSE of a graph of 15 nearest neighbours with bandwidths of their own, at t = 3, over images; no scale, "
            "no labels.", needs="embedding"),
    Measure("dsmi_z_y_knn", "DSMI(Z;Y) by neighbours", "bits",
            "DSMI(Z;Y) by the same entropy, each class's and each random subset's on its own graph, over images."),
    Measure("offset_share", "Offset share", "",
            "The mean's share of the embedding's mean squared length: a diagnostic; no labels.", needs="embedding"),
    Measure("nesum", "NESum", "",
            "Sum of the covariance's eigenvalues over the largest; no labels.", needs="embedding"),
    Measure("matrix_entropy", "Matrix-based entropy", "bits",
            "Renyi's entropy of order 2 of the eigenvalues of the rows' Gram matrix over its trace; no labels.",
            needs="embedding"),
    Measure("cdnv", "Class-distance normalised variance", "",
            "Variance within two classes over twice the squared distance of their means, the mean over pairs; lower "
            "is better.", lower_is_better=True),
    Measure("logistic_probe_accuracy", "Logistic probe", "%",
            "Accuracy of logistic regression on standardised features, five folds of images, penalty by inner folds.",
            needs="image_pairs"),
    Measure("lidar", "LiDAR", "",
            "Smooth rank of the discriminants between images whose repeats are a class; needs repeats, no labels."),
    Measure("pactran_gauss", "PACTran-Gauss", "nats",
            "PAC-Bayesian bound on the loss of a linear classifier on the centred embedding; depends on the scale; "
            "lower is better.", lower_is_better=True),
)  # fmt: skip
"""The scores that DSE and DSMI are compared with."""

DETAILS: tuple[Measure, ...] = (
    Measure("probe_low", "Ridge probe, lower limit", "%",
            "Lower limit of `probe_accuracy`'s 95% interval (Wilson's, over images).", needs="image_pairs"),
    Measure("probe_high", "Ridge probe, upper limit", "%", "Upper limit of it.", needs="image_pairs"),
    Measure("probe_hits", "Ridge probe, images", "text",
            "Which images the probe got right: their number, then their bits in hexadecimal.", needs="image_pairs"),
)  # fmt: skip
"""Columns that rankings with ties need in addition to the scores."""

# The errors of the two that are left out are among the diagnostics.
WITH_ERRORS = [
    score for score in (*MEASURES, *COMPARISONS) if score.name not in ("dsmi_z_y", "dsmi_z_y_null")
]
ERRORS: tuple[Measure, ...] = tuple(
    Measure(
        f"{score.name}_se",
        f"{score.title} standard error",
        score.unit,
        f"Standard error of `{score.name}` over images.",
        needs=score.needs,
    )
    for score in WITH_ERRORS
)

ROW_MEASURES: tuple[Measure, ...] = (*DIAGNOSTICS, *MEASURES, *COMPARISONS, *DETAILS, *ERRORS)
"""All measures, in the order of a row's columns."""

BY_NAME = {measure.name: measure for measure in ROW_MEASURES}

COSTLY = frozenset({
    # As costly as all neighbours, centres and the probe together, and no better at ranking networks.
    "n_leep", "n_leep_se", "clid", "clid_se", "mst_dimension", "mst_dimension_se", "parc", "parc_se",
    # Fifty regressions; two more eigenproblems; a regression, and ten that each leave out a tenth.
    "logistic_probe_accuracy", "logistic_probe_accuracy_se", "lidar", "lidar_se",
    "pactran_gauss", "pactran_gauss_se",
    # One more eigenproblem of all points.
    "dse_z_knn", "dse_z_knn_se", "dsmi_z_y_knn", "dsmi_z_y_knn_se",
    # Eight more decompositions, or binnings, for errors that no ranking uses.
    "h_score_se", "transrate_se", "gbc_se", "rankme_se", "alpha_req_se", "participation_ratio_se",
    "nesum_se", "matrix_entropy_se",
    "cse_z_se", "csmi_z_y_se", "csmi_z_x_se", "dsmi_z_x_se",
})  # fmt: skip
"""Columns that are computed only with ``--scores all``: they double a row's cost."""

NOT_BY_DEFAULT = "not computed by default, --scores all computes it"

UNDEFINED = "undefined_scores"
"""The column that says why scores have no value."""


def format_reasons(reasons: Mapping[str, str]) -> str:
    """Return the text of the ``UNDEFINED`` column: the names that share a reason, then the reason."""
    names_of: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_of.setdefault(reason.replace(";", ","), []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in names_of.items())


def parse_reasons(text: str) -> dict[str, str]:
    """Return the reason of each score, by name, from the text that ``format_reasons`` wrote."""
    reasons: dict[str, str] = {}
    for part in filter(None, text.split("; ")):
        names, _, reason = part.partition(": ")
        reasons |= dict.fromkeys(names.split(", "), reason)
    return reasons
