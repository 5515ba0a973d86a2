"""Every measure and diagnostic of a row by its column's name, and measures of the user's own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A column that the measures fill: its name, a title for plots, its unit ("bits", "flag", "") and its meaning."""

    name: str
    title: str
    unit: str
    meaning: str


DIAGNOSTICS: tuple[Measure, ...] = (
    Measure("embedding_rms", "Embedding RMS", "", "Root mean square of the embedding's values: its scale."),
    Measure("median_distance_over_sigma", "Median distance / sigma", "", "Median distance between two points, in units of sigma; far from 1, DSE says little."),
    Measure("saturated", "Saturated", "flag", "DSE is within 0.1 bit of 0 or of log2 n: sigma is wrong for this embedding's scale."),
)

MEASURES: tuple[Measure, ...] = (
    Measure("dse_z", "DSE(Z)", "bits", "Diffusion spectral entropy of the embedding."),
    Measure("dsmi_z_y", "DSMI(Z;Y)", "bits", "Diffusion spectral mutual information of embedding and labels."),
    Measure("dsmi_z_y_null", "DSMI(Z;Y) null", "bits", "Mean DSMI(Z;Y) with the labels permuted over images, repeats moving together."),
    Measure("dsmi_z_x", "DSMI(Z;X)", "bits", "Diffusion spectral mutual information of embedding and clusters of the inputs."),
    Measure("cse_z", "CSE(Z)", "bits", "Classic (binned) Shannon entropy of the embedding."),
    Measure("csmi_z_y", "CSMI(Z;Y)", "bits", "Classic Shannon mutual information of embedding and labels."),
    Measure("csmi_z_x", "CSMI(Z;X)", "bits", "Classic Shannon mutual information of embedding and clusters of the inputs."),
)
