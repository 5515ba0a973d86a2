"""The kept embedding of one model of a run, with the labels and names of its images."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shown

from .embedding_file import embedding_path, read_embedding
from .record import EntryRecord, RunRecord
from .release import is_release, rows_and_record
from .run_folder import NOT_THIS_RUN, read_row, read_run
from .subset_file import read_subset


class KeptEmbedding(NamedTuple):
    """An embedding ``Z``, float32 [n, d], with the ``labels``, int64 [n], and names of its images, ``files`` [n]."""

    Z: np.ndarray
    labels: np.ndarray
    files: np.ndarray


def embedding(out: str | Path, model: str) -> KeptEmbedding:
    """Read the embedding that a run has kept of a model.

    Parameters
    ----------
    out : str or Path
        The run's directory, or a folder published with embeddings.
    model : str
        ``model@size``; the model's name alone if the run has it at one size.

    Returns
    -------
    KeptEmbedding
        A named tuple ``Z, labels, files``: float32 [n, d], int64 [n], and the images' names [n], relative to
        ``data_root`` for images in a folder.

    Raises
    ------
    InputError
        A ValueError with a one-line message, for a folder that is not a run, a model that it does not have or has not
        finished, or an embedding that was dropped or is not the one that the row was computed from.
    """
    out = Path(out)
    record = read_run(out)
    entry = entry_named(record, model, out)
    digest, origin = _digest_and_origin(out, record, entry)
    path = embedding_path(origin, entry.slug)
    if not path.is_file():
        if is_release(out):
            raise InputError(f"{out} was published without embeddings; read those of its run")
        raise InputError(
            f"{path} is missing: the run dropped its embeddings; `dsmi-zoo rerun {entry} --out {origin}` "
            "without --drop-embeddings makes it"
        )
    Z = read_embedding(path, digest)
    subset = read_subset(out)
    if len(subset) != len(Z):
        raise InputError(f"{path} has {len(Z)} rows, but {out} is of {len(subset)} images")
    return KeptEmbedding(Z, subset["label"].to_numpy(), subset["image"].to_numpy())


def entry_named(record: RunRecord, model: str, out: Path) -> EntryRecord:
    """Return the entry of a run that ``model@size`` names, or ``model`` if it has one size; else raise InputError."""
    named = [entry for entry in record.entries if str(entry) == model]
    named = named or [entry for entry in record.entries if entry.model == model]
    if len(named) == 1:
        return named[0]
    if named:
        sizes = ", ".join(map(str, named))
        raise InputError(f"{out} has {shown(model)} at {len(named)} sizes; choose one: {sizes}")
    names = [name for entry in record.entries for name in (str(entry), entry.model)]
    near = get_close_matches(str(model), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {_some(record.entries)}"
    raise InputError(f"{out} has no model {shown(str(model))}; {hint}")


def _some(entries: Sequence[EntryRecord], most: int = 3) -> str:
    names = [str(entry) for entry in entries[:most]]
    more = len(entries) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "") or "none"


def _digest_and_origin(out: Path, record: RunRecord, entry: EntryRecord) -> tuple[str, Path]:
    """Return the hash of the entry's embedding, and the folder that keeps it; raise InputError without a row."""
    row: Mapping[Any, Any] | None
    if is_release(out):
        rows, _ = rows_and_record(out)
        of_entry = rows[rows["row_id"] == entry.row_id].to_dict("records")
        row = of_entry[0] if of_entry else None
    else:
        row = read_row(out, entry.slug)
    if row is None:
        raise InputError(f"{out} has no row of {entry}; the same `dsmi-zoo run` computes it")
    if row["row_id"] != entry.row_id:
        raise InputError(f"{out}: the row of {entry} is {NOT_THIS_RUN}")
    if row["status"] != "ok":
        reason = f"{row['error_type']}: {row['error_message']}"
        raise InputError(f"{entry} failed in {out}, so it has no embedding ({reason})")
    return str(row["embedding_sha256"]), record.embeddings_from or out
