"""The rows of fine-tuned models: ``OUT/finetuned/<slug>.parquet``, and the results kept between two trainings."""

import json
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dsmi_zoo._util.files import write_json

from .run_folder import read_row_file, read_run, write_row_file
from .schema import Column

# fmt: off
FINETUNED_COLUMNS: tuple[Column, ...] = (
    Column("model", "text", "", "The entry's name in its catalogue."),
    Column("img_size", "integer", "pixels", "Side of the square input."),
    Column("status", "text", "", "`ok` or `failed`."),
    Column("error_type", "text", "", "A failed fine-tuning's exception."),
    Column("error_message", "text", "", "A failed fine-tuning's message."),
    Column("finetuned_accuracy", "number", "%", "Share of the held-out images that are recognised."),
    Column("finetuned_low", "number", "%", "Lower limit of its 95% interval over images (Wilson's)."),
    Column("finetuned_high", "number", "%", "Upper limit of that interval."),
    Column("finetuned_balanced_accuracy", "number", "%", "Mean over the classes of the share recognised."),
    Column("finetuned_spread", "number", "points",
           "Standard deviation of the accuracy over the trainings, each of its own seed and held-out part."),
    Column("trainings", "integer", "", "Trainings, each of which held out another part of the images."),
    Column("finetuned_hits", "text", "", "Which held-out images are recognised: number and hexadecimal bits."),
    Column("held_out", "text", "", "Which images were held out, in the same form."),
    Column("n_images", "integer", "images", "All images."),
    Column("n_classes", "integer", "", "Classes."),
    Column("minutes", "number", "min", "Time of all trainings, with their predictions."),
    Column("peak_memory_gb", "number", "GB", "Greatest memory: allocated on a GPU, else resident of the process."),
    Column("device", "text", "", "Device that trained."),
    Column("precision", "text", "", "`bf16` (mixed) on a GPU that has it, else `fp32`."),
    Column("recipe", "text", "", "The recipe, as JSON."),
    Column("readings", "text", "", "How ambiguous input of this row was read."),
    Column("embedding_id", "text", "", "Identity of the weights and images, as in the row of the run."),
    Column("row_id", "text", "", "Identity of the fine-tuning: the recipe, the weights and the images."),
    Column("versions", "text", "", "Versions of Python and the libraries, as JSON."),
    Column("finished_at", "time", "UTC", "When the row was written."),
)
# fmt: on

ALWAYS_THERE = ("model", "img_size", "status", "row_id", "embedding_id", "finished_at")


def finetuned_path(out: Path, slug: str) -> Path:
    """Return the path of the row of a fine-tuned entry."""
    return out / "finetuned" / f"{slug}.parquet"


def checkpoint_path(out: Path, slug: str, row_id: str) -> Path:
    """Return the path of a fine-tuned entry's weights, one per identity."""
    return out / "finetuned" / "checkpoints" / f"{slug}-{row_id[:8]}.safetensors"


def write_finetuned(out: Path, slug: str, row: dict[str, Any]) -> None:
    """Store the row of a fine-tuned entry, whole or not at all."""
    names = {column.name for column in FINETUNED_COLUMNS}
    own = {name: value for name, value in row.items() if name in names}
    write_row_file(finetuned_path(out, slug), own, FINETUNED_COLUMNS)


def read_finetuned_row(out: Path, slug: str) -> dict[str, Any] | None:
    """Read the row of a fine-tuned entry; None if it is missing or unreadable."""
    try:
        return read_row_file(finetuned_path(out, slug), FINETUNED_COLUMNS, ALWAYS_THERE)
    except (ValueError, OSError, pa.ArrowException):
        return None


def read_finetuned(out: str | Path) -> pd.DataFrame:
    """Read the rows of all fine-tuned models of a run.

    Parameters
    ----------
    out : str or Path
        The run's directory.

    Returns
    -------
    pandas.DataFrame
        One row per fine-tuned entry whose weights and images are those of its row in the run, sorted by model and image
        size, with the columns of ``FINETUNED_COLUMNS``; no rows if none was fine-tuned.

    Raises
    ------
    InputError
        When the folder is not a run.
    """
    out = Path(out)
    slugs = {entry.slug for entry in read_run(out).entries}
    rows = [row for slug in sorted(slugs) if (row := read_finetuned_row(out, slug)) is not None]
    frame = pd.DataFrame(rows, columns=[column.name for column in FINETUNED_COLUMNS])
    return frame.sort_values(["model", "img_size"], ignore_index=True)


@dataclass(frozen=True)
class PendingFolds:
    """Predictions of finished trainings, on disk until the row is written: a process that dies costs one training."""

    out: Path
    slug: str
    row_id: str

    def write(self, fold: int, predictions: np.ndarray, facts: dict[str, float]) -> None:
        """Store the predicted classes of the held-out rows, int64 [k], and numbers about the training."""
        content = {"row_id": self.row_id, "predictions": predictions.tolist(), "facts": facts}
        write_json(self._path(fold), content)

    def read(self, fold: int, rows: int) -> tuple[np.ndarray, dict[str, float]] | None:
        """Read the predictions of a training for this many rows; None if it has not finished."""
        try:
            content = json.loads(self._path(fold).read_text(encoding="utf-8"))
            predictions = np.array(content["predictions"], dtype=np.int64)
            facts = {str(name): float(value) for name, value in content["facts"].items()}
            if content["row_id"] != self.row_id or predictions.shape != (rows,):
                return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return predictions, facts

    def discard(self) -> None:
        """Delete all pending predictions of the entry."""
        for path in (self.out / "attempts").glob(f"{escape(self.slug)}.finetune-*.json"):
            path.unlink(missing_ok=True)

    def _path(self, fold: int) -> Path:
        return self.out / "attempts" / f"{self.slug}.finetune-{fold}.json"
