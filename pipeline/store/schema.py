"""The columns of a row, declared once for the files and the report.

``python -m dsmi_zoo.pipeline.store.schema`` prints the table of ``docs/columns.md``.
"""

from dataclasses import dataclass
from typing import Literal

from dsmi_zoo.data_catalog.models.entry import is_accuracy, target_unit

from ..measures.catalog import OF_A_ROW, UNDEFINED, Measure

__all__ = ["COLUMNS", "COLUMN_NAMES", "Column", "is_accuracy", "markdown_table", "target_unit"]


ColumnKind = Literal["text", "integer", "number", "flag", "time"]


@dataclass(frozen=True)
class Column:
    """One column of a row: its name, kind of value, unit ("" where there is none) and meaning."""

    name: str
    kind: ColumnKind
    unit: str
    meaning: str


def _column_of(measure: Measure) -> Column:
    """Return the column that a measure fills."""
    kinds: dict[str, ColumnKind] = {"flag": "flag", "text": "text"}
    kind = kinds.get(measure.unit, "number")
    unit = measure.unit if kind == "number" else ""
    return Column(measure.name, kind, unit, measure.meaning)


# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("model", "text", "", "The entry's name in its catalogue."),
    Column("architecture", "text", "", "timm's name of the network; with a builder, as the catalogue calls it."),
    Column("builder", "text", "", "The catalogue's own code that made the network, `module:function`."),
    Column("layer", "text", "", "The layer whose output is the embedding, if not the penultimate one's."),
    Column("layer_depth", "number", "",
           "Where in a forward pass the layer ends: the share of the innermost modules that have run, 0 to 1."),
    Column("network_id", "text", "", "Identity of the network and its images: rows of its layers share it."),
    Column("pooling", "text", "", "How positions or tokens became one vector: timm's `global_pool` of the network."),
    Column("loading_code", "text", "", "Python that loads the network by timm, and makes the transform of its images."),
    Column("family", "text", "", "timm's module of the architecture: relatives share one."),
    Column("kind", "text", "",
           "What mixes the image's positions: `convolutional`, `transformer`, `hybrid` (both) or `MLP`."),
    Column("pretraining", "text", "", "timm's tag of the weights: how and on what they were trained."),
    Column("extra_data", "flag", "", "Whether the weights were trained on images beyond ImageNet-1k."),
    Column("license", "text", "", "License of the weights, where it is known."),
    Column("random_weights", "flag", "", "Whether the network was tried out with random weights, not with its own."),
    Column("img_size", "integer", "pixels", "Side of the square input."),
    Column("group", "text", "",
           "Entries that the report also compares among themselves (digits: the training budget)."),
    Column("status", "text", "", "`ok` or `failed`."),
    Column("error_type", "text", "", "A failed entry's exception."),
    Column("error_message", "text", "", "A failed entry's message."),
    Column("n_samples", "integer", "images", "Rows of the embedding; each repeat of an image counts."),
    Column("n_classes", "integer", "", "Classes in the subset."),
    Column("embedding_dim", "integer", "", "Columns of the embedding, d."),
    *map(_column_of, OF_A_ROW),
    Column("readings", "text", "", "How ambiguous input of this row was read."),
    Column(UNDEFINED, "text", "", "Scores that have no value for this embedding, each with the reason."),
    Column("own_measures", "text", "", "Names of the columns that `--measure` added, separated by spaces."),
    Column("own_measures_code", "text", "",
           "Code of those added to a finished row: `module:function:SHA-256`."),
    Column("sigma", "number", "", "Width of the Gaussian kernel that was used."),
    Column("t", "number", "", "Diffusion time: the power of the eigenvalues."),
    Column("repetitions", "integer", "", "Random subsets for each class of a mutual information."),
    Column("seed", "integer", "", "Seed of the random subsets and of the null."),
    Column("bins", "integer", "", "Bins for each dimension of the classic entropy."),
    Column("null_permutations", "integer", "", "Permutations of the labels behind `dsmi_z_y_null`."),
    Column("measure_method", "text", "",
           "How `dse_z` was computed: `exact` (all eigenvalues) or `lanczos` (estimated)."),
    Column("measure_precision", "text", "", "Floating-point format of the eigenvalues behind `dse_z`."),
    Column("subset_top1", "number", "%",
           "Top-1 accuracy of the model's own classifier on the subset; empty if the order of its outputs is open."),
    Column("nce", "number", "nats",
           "Negative conditional entropy of the labels given the classes that the model's own classifier predicts."),
    Column("nce_se", "number", "nats", "Standard error of `nce` over images."),
    Column("leep", "number", "nats",
           "Mean log probability of the labels, expected by the probabilities of the model's own classifier."),
    Column("leep_se", "number", "nats", "Standard error of `leep` over images."),
    Column("top1", "number", "%", "Published top-1 accuracy (digits: measured on the held-out test images)."),
    Column("top5", "number", "%", "Published top-5 accuracy."),
    Column("params_m", "number", "millions", "Parameters of the model, its classifier included."),
    Column("device", "text", "", "Device that computed the embedding."),
    Column("precision", "text", "", "Floating-point format of the forward pass."),
    Column("seconds_build", "number", "s", "Time to build the model and load its weights."),
    Column("seconds_embed", "number", "s", "Time of the forward passes."),
    Column("seconds_measure", "number", "s", "Time of the measures."),
    Column("embedding_id", "text", "",
           "Identity of the embedding: weights, architecture, view, normalisation, precision."),
    Column("embedding_sha256", "text", "", "Hash of the embedding's values, which a kept file is checked against."),
    Column("row_id", "text", "", "Identity of the row: its embedding's and the measure settings."),
    Column("dataset", "text", "", "Data set of the subset."),
    Column("subset_hash", "text", "", "Content hash of the images, labels and crop seeds."),
    Column("versions", "text", "", "Versions of Python and the libraries that computed the row, as JSON."),
    Column("finished_at", "time", "UTC", "When the row was written."),
)
# fmt: on

COLUMN_NAMES = frozenset(column.name for column in COLUMNS)


def markdown_table() -> str:
    """Return the table of columns in `docs/columns.md`, which has one sentence for all standard errors."""
    lines = ["| column | unit | meaning |", "| --- | --- | --- |"]
    lines += [
        f"| `{c.name}` | {c.unit} | {c.meaning} |" for c in COLUMNS if not c.name.endswith("_se")
    ]
    return "\n".join(lines)
