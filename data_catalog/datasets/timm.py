"""Data sets that timm opens: torchvision's, Hugging Face's, WebDatasets, archives."""

import hashlib
import io
import uuid
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

from .account import WHOLE, Account
from .deep_pixels import is_deep


@dataclass(frozen=True)
class TimmImages:
    """A map-style data set of timm's; an image's name is its place in it.

    Each process opens it once for each ``opening``, because places change when its owner adds images.
    """

    name: str
    source: str
    root: Path
    opening: str
    places: np.ndarray
    labels: np.ndarray
    classifier_width: int | None = None
    account: Account = WHOLE

    @property
    def names(self) -> tuple[str, ...]:
        """The places as text."""
        return tuple(f"{place:08d}" for place in self.places)

    @property
    def class_names(self) -> dict[int, str]:
        """The labels themselves."""
        return {int(label): str(label) for label in np.unique(self.labels)}

    def image(self, number: int) -> Image.Image:
        """Return an image as RGB."""
        place = int(self.places[number])
        try:
            image: Image.Image = _opened(self.source, self.root, self.opening)[place][0]
            if is_deep(image):
                raise ValueError(
                    "it has more than 8 bits, which only --dataset imagefolder and csv read"
                )
            return image.convert("RGB")
        except Exception as error:  # timm does not document what its readers raise
            reason = shortened(str(error), 300) or type(error).__name__
            raise InputError(
                f"{self.name}: image {place} in {self.root} cannot be read: {reason}; repair it"
            ) from None

    def fingerprint(self, number: int) -> str:
        """Return the SHA-256 of the decoded pixels."""
        pixels = io.BytesIO()
        self.image(number).save(pixels, "bmp")
        return hashlib.sha256(pixels.getvalue()).hexdigest()

    def take(self, numbers: np.ndarray) -> Self:
        """Return only these images, in this order."""
        return replace(self, places=self.places[numbers], labels=self.labels[numbers])


def open_timm_dataset(source: str, root: Path) -> TimmImages:
    """Open the validation part of ``timm.data.create_dataset(source, root)``.

    Raises
    ------
    InputError
        When timm cannot open it, or can only stream it.
    """
    opening = uuid.uuid4().hex
    try:
        opened = _opened(source, root, opening)
        count = len(opened)
        labels = np.array([int(opened[i][1]) for i in range(count)], dtype=np.int64)
    except Exception as error:  # as above
        reason = shortened(str(error), 300) or type(error).__name__
        raise InputError(
            f"--dataset timm:{source}: timm cannot open it in {root}: {reason}"
        ) from None
    return TimmImages(f"timm:{source}", source, root, opening, np.arange(count), labels)


@lru_cache(maxsize=2)
def _opened(source: str, root: Path, opening: str) -> Any:
    from PIL import EpsImagePlugin
    from timm.data import create_dataset

    # timm lets Pillow read any format, and for EPS it would start Ghostscript.
    EpsImagePlugin.gs_binary = False
    # Converted here: timm would clip values of 16 bits, and take the next image in place of a damaged one.
    return create_dataset(
        source,
        root=str(root),
        split="validation",
        is_training=False,
        download=False,
        input_img_mode="",
    )
