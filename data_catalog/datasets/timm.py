"""Data sets that timm opens: torchvision's, Hugging Face's, WebDatasets, archives."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened


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
        place = int(self.places[number])
        try:
            image: Image.Image = _opened(self.source, self.root)[place][0].convert("RGB")
        except Exception as error:  # as below
            reason = shortened(str(error), 300) or type(error).__name__
            raise InputError(
                f"{self.name}: image {place} in {self.root} cannot be read: {reason}; mend it"
            ) from None
        return image

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
    except Exception as error:  # what timm and its readers raise is no part of what they promise
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset timm:{source}: timm cannot open it in {root}: {reason}"
        ) from None
    return TimmImages(f"timm:{source}", source, root, np.arange(count), labels)


def _opened(source: str, root: Path) -> Any:
    key = (source, root)
    if key not in _OPEN:
        from PIL import EpsImagePlugin
        from timm.data import create_dataset

        EpsImagePlugin.gs_binary = (
            False  # timm asks Pillow for any format, and Pillow would start Ghostscript for one
        )
        _OPEN[key] = create_dataset(
            source, root=str(root), split="validation", is_training=False, download=False
        )
    return _OPEN[key]


_OPEN: dict[tuple[str, Path], Any] = {}
