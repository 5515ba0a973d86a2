"""Decode image files to RGB; errors name the file.

Pillow recognises formats by content, not by name, and starts programs for some: an EPS file named ``.jpg`` would be run
by Ghostscript. So only the formats listed here are allowed.
"""

import threading
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import shortened

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# About where Pillow begins to warn (89.5 million); decoded, they fill 360 MB.
MOST_PIXELS = 90_000_000
# The short side becomes the model's input size; a longer one would fill the memory.
MOST_ELONGATED = 200

HINT = "repair it, or skip such images with --skip-bad-images"


def read_image(path: Path) -> Image.Image:
    """Return an image as RGB, upright (by its EXIF orientation), 8 bits a channel, transparency on white.

    Of several frames it is the first. Values of 16 or 32 bits are scaled by `scale_of`; without a value above 255 they
    are read as 8 bits.

    Raises
    ------
    InputError
        Names a file that is missing, damaged, not an image, too large or too elongated, or has values out of range.
    """
    try:
        with _quiet, Image.open(path, formats=FORMATS) as opened:
            _check_size(*opened.size)
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            return _as_rgb(opened)
    except UnidentifiedImageError:
        raise InputError(
            f"{path}: not a supported image ({path.stat().st_size} bytes); {HINT}"
        ) from None
    except Exception as error:  # decoders do not document what they raise for damaged files
        reason = shortened(str(error), 200) or type(error).__name__
        raise InputError(f"{path}: the image cannot be read: {reason}; {HINT}") from None


def begins_as_image(path: Path) -> bool:
    """Return whether the beginning of a file is that of a supported image."""
    try:
        with _quiet, Image.open(path, formats=FORMATS):
            return True
    except Exception:  # as above
        return False


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are too many to decode")
    if max(width, height) > min(width, height) * MOST_ELONGATED:
        raise ValueError(
            f"of {width} x {height} pixels, one side is more than {MOST_ELONGATED} times the other"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip the values, not scale them
        values = np.array(image, dtype=np.float32)
        values *= 255 / scale_of(values, is_float=image.mode.startswith("F"))
        return Image.fromarray(np.rint(values, out=values).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def scale_of(values: NDArray[np.float32], is_float: bool) -> int:
    """Return the value of white: 1 for floats up to 1, else 255 if no value is larger, else 65535.

    Raises
    ------
    ValueError
        For negative, NaN, infinite or larger values.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= 65535):
        raise ValueError(
            f"its values, {low:g} to {high:g}, are not shades from 0 to 1, 255 or 65535"
        )
    if is_float and high <= 1:
        return 1
    return 255 if high <= 255 else 65535


class _Quiet:
    """Suppress Pillow's warnings while any thread decodes an image; real faults raise anyway.

    Warning filters are global: the first thread sets them, and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_quiet = _Quiet()
