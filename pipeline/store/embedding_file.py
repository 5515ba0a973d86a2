"""Files of embeddings: OUT/embeddings/<slug>.npy in NumPy's format, checked against the hash in the entry's row."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256, make_folder, move, write_atomically, write_text
from dsmi_zoo._util.text import shortened


def embedding_path(out: Path, slug: str) -> Path:
    """Return the path of an entry's embedding."""
    return out / "embeddings" / f"{slug}.npy"


def read_embedding(path: Path, sha256: str) -> np.ndarray:
    """Read a kept embedding, and check it against the hash in its row.

    Raises
    ------
    InputError
        When the file is missing, unreadable, or does not match the hash.
    """
    try:
        embedding = read_npy(path)
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({shortened(str(error))})"
        raise InputError(f"{path}: the kept embedding {reason}; rerun this model") from None
    if array_sha256(embedding) != sha256:
        reason = "is not the one that its row was computed from"
        raise InputError(f"{path}: the kept embedding {reason}; rerun this model")
    return embedding


def read_npy(path: Path) -> np.ndarray:
    """Read an array of NumPy's format.

    Raises
    ------
    OSError, ValueError
        When the file is missing, damaged or not an array, or its header claims more than it holds.
    """
    if not path.is_file():
        raise OSError("there is no such file")
    try:
        # Mapping takes no memory, and refuses a header that claims more bytes than there are.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise
    except MemoryError:
        raise ValueError("its header claims to be longer than the file") from None
    except Exception as error:  # NumPy does not document what odd headers raise
        raise ValueError(shortened(str(error)) or type(error).__name__) from None
    if not isinstance(mapped, np.ndarray):
        raise ValueError("an archive of arrays")
    del mapped
    array: np.ndarray = np.load(path, allow_pickle=False)
    return array


def array_bytes(array: np.ndarray) -> memoryview:
    """Return an array as bytes of a .npy file: when NumPy writes to the file itself, errors lose their reason."""
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    return content.getbuffer()


class PendingEmbedding:
    """An embedding on disk between its forward pass and its row, with the fields of the row known by then.

    If a process dies during the measures, the forward pass need not be repeated.
    """

    def __init__(self, out: Path, slug: str) -> None:
        self._array = out / "attempts" / f"{slug}.npy"
        self._fields = self._array.with_suffix(".json")
        self._kept = embedding_path(out, slug)

    def write(self, embedding_id: str, values: np.ndarray, fields: dict[str, Any]) -> None:
        """Store an embedding, float32 [n, d]; ``fields`` are numbers and text."""
        write_atomically(self._array, lambda file: file.write(array_bytes(values)))
        fields = fields | {"embedding_sha256": array_sha256(values)}
        write_text(self._fields, json.dumps({"embedding_id": embedding_id, "fields": fields}))

    def read(self, embedding_id: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Read the embedding of that identity and its fields; None if it is missing or damaged."""
        try:
            content = json.loads(self._fields.read_text(encoding="utf-8"))
            if content["embedding_id"] != embedding_id:
                return None
            fields = dict(content["fields"])
            return read_embedding(self._array, fields["embedding_sha256"]), fields
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def keep(self) -> None:
        """Move the embedding into the run's kept embeddings."""
        make_folder(self._kept.parent)
        move(self._array, self._kept)
        self._fields.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the embedding and its fields."""
        self._array.unlink(missing_ok=True)
        self._fields.unlink(missing_ok=True)
