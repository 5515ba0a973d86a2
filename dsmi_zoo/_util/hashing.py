"""Hashes that identify settings and arrays."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def content_hash(*parts: Any) -> str:
    """Hash JSON-able values to 16 hexadecimal digits, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_sha256(array: np.ndarray) -> str:
    """Hash an array's type, shape and values."""
    import numpy as np

    content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
