"""Data sets that timm opens: torchvision's, Hugging Face's, WebDatasets, archives."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from .errors import InputError


@dataclass(frozen=True)
class TimmImages:
    """A map-style data set of timm's, images in its own order; a name says an image's place in it."""

    name: str
    source: str
    root: Path
    places: np.ndarray
    labels: np.ndarray
    classifier_width: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names by place."""
        return tuple(f"{place:08d}" for place in self.places)

    @property
    def class_names(self) -> dict[int, str]:
        """The labels themselves."""
        return {int(label): str(label) for label in np.unique(self.labels)}

    def image(self, number: int) -> Image.Image:
        """The image as RGB."""
        return _opened(self.source, self.root)[int(self.places[number])][0].convert("RGB")

    def fingerprint(self, number: int) -> str:
        """SHA-256 of the decoded pixels."""
        pixels = io.BytesIO()
        self.image(number).save(pixels, "bmp")
        return hashlib.sha256(pixels.getvalue()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Only these images, in this order."""
        return replace(self, places=self.places[numbers], labels=self.labels[numbers])


def open_timm_dataset(source: str, root: Path) -> TimmImages:
    """The validation part of what ``timm.data.create_dataset(source, root)`` opens.

    Raises
    ------
    InputError
        When timm cannot open it, or it can only be streamed.
    """
    try:
        opened = _opened(source, root)
        count = len(opened)
        labels = np.array([int(opened[i][1]) for i in range(count)], dtype=np.int64)
    except (ValueError, TypeError, RuntimeError, OSError, AssertionError, ImportError, KeyError) as error:
        raise InputError(f"--dataset timm:{source}: timm cannot open it in {root}: {error}") from None
    return TimmImages(f"timm:{source}", source, root, np.arange(count), labels)


def _opened(source: str, root: Path) -> Any:
    key = (source, root)
    if key not in _OPEN:
        from timm.data import create_dataset

        _OPEN[key] = create_dataset(source, root=str(root), split="validation", is_training=False, download=False)
    return _OPEN[key]


_OPEN: dict[tuple[str, Path], Any] = {}
