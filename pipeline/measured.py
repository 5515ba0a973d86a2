"""All measures of an embedding, on the GPU where there is one."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .measures.context import MeasureContext
from .measures.definition import Value
from .measures.registry import OF_A_ROW
from .measures.settings import MeasureSettings
from .measures.together import values_of

NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""There where a GPU is: a process that has not loaded torch need not do so to find out."""


def measured(
    embedding: np.ndarray,
    labels: np.ndarray,
    images: np.ndarray,
    clusters: np.ndarray | None,
    settings: MeasureSettings,
) -> dict[str, Value]:
    """Every measure that a row has, of an embedding, float32 [n, d]; on the CPU too if the GPU's memory runs out."""

    def values(Z: Any) -> dict[str, Value]:
        return values_of(OF_A_ROW, MeasureContext(Z, labels, images, clusters, settings))

    if has_gpu():
        import torch

        try:
            with suppress(torch.OutOfMemoryError):
                return values(torch.from_numpy(embedding).cuda())
        finally:
            torch.cuda.empty_cache()  # other processes share the GPU
    return values(embedding)


def has_gpu() -> bool:
    """Whether there is a GPU on which torch has float64."""
    if "torch" not in sys.modules and not NVIDIA_DRIVER.exists():
        return False
    import torch

    return torch.cuda.is_available()
