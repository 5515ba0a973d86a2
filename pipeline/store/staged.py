"""An embedding between its forward passes and its row: on disk, so that a death in the measures costs no passes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from dsmi_zoo._util.files import write_json
from dsmi_zoo._util.hashing import array_sha256

from .run_folder import embedding_path, read_embedding, write_array


class StagedEmbedding:
    """Where the embedding of one entry of OUT waits for its row, and the row's fields that are known with it."""

    def __init__(self, out: Path, slug: str, embedding_id: str) -> None:
        self._array = out / "attempts" / f"{slug}.npy"
        self._fields = self._array.with_suffix(".json")
        self._kept = embedding_path(out, slug)
        self._embedding_id = embedding_id

    def write(self, values: np.ndarray, fields: dict[str, Any]) -> None:
        """Put an embedding aside, float32 [n, d]; ``fields`` are numbers and text."""
        write_array(self._array, values)
        content = {
            "embedding_id": self._embedding_id,
            "fields": fields | {"embedding_sha256": array_sha256(values)},
        }
        write_json(self._fields, content)

    def read(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """What was put aside; None when there is nothing, or it is another embedding's or damaged."""
        try:
            content = json.loads(self._fields.read_text(encoding="utf-8"))
            if content["embedding_id"] != self._embedding_id:
                return None
            fields = dict(content["fields"])
            return read_embedding(self._array, fields["embedding_sha256"]), fields
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def keep(self) -> None:
        """Put it where the run's embeddings stand."""
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        self._array.replace(self._kept)
        self._fields.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it; nobody will go on from it."""
        self._array.unlink(missing_ok=True)
        self._fields.unlink(missing_ok=True)
