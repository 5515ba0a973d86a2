"""Decode image files to RGB; an error names the file that is damaged or of no supported format.

Pillow is asked for these formats only. It tells formats apart by their content, and for some of the others it starts
programs: an EPS file named like a JPEG would be run by Ghostscript.
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
MOST_PIXELS = (
    90_000_000  # about where Pillow begins to warn (89.5 million); decoded, they fill 360 MB
)
MOST_ELONGATED = (
    200  # the short side becomes the model's input size: the long one would fill the memory
)

HINT = "repair it, or skip such images with --skip-bad-images"


def read_image(path: Path) -> Image.Image:
    """An image as RGB, upright (by its EXIF orientation), 8 bits a channel, transparency on white.

    Of several frames it is the first. Values that are no bytes are scaled by `scale_of`, that is by the greatest value
    of the image: one of 16 bits without a value above 255 is read as one of 8 bits.

    Raises
    ------
    InputError
        Names a file that is missing, empty, damaged, no image, too large or too elongated, or has values out of range.
    """
    try:
        with _quiet, Image.open(path, formats=FORMATS) as opened:
            _check_size(*opened.size)
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            return _as_rgb(opened)
    except UnidentifiedImageError:
        raise InputError(f"{path}: no image that can be read ({_size(path)}); {HINT}") from None
    # Decoders raise anything for damaged files; none of it is documented.
    except Exception as error:
        reason = shortened(str(error), 200) or type(error).__name__
        raise InputError(f"{path}: the image cannot be read: {reason}; {HINT}") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are too many to decode")
    if max(width, height) > min(width, height) * MOST_ELONGATED:
        raise ValueError(
            f"of {width} x {height} pixels, one side is more than {MOST_ELONGATED} times the other"
        )


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size} bytes"
    except OSError:
        return "it is gone"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion would clip, not scale
        values = np.array(image, dtype=np.float32)
        values *= 255 / scale_of(values, is_float=image.mode.startswith("F"))
        return Image.fromarray(np.rint(values, out=values).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def scale_of(values: NDArray[np.float32], is_float: bool) -> int:
    """The value that means white: 1 for floats of at most 1; else 255 if nothing exceeds it; else 65535.

    Raises
    ------
    ValueError
        For what is negative, NaN, infinite or larger.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= 65535):
        raise ValueError(
            f"its values, {low:g} to {high:g}, are no shades from 0 to 1, 255 or 65535"
        )
    if is_float and high <= 1:
        return 1
    return 255 if high <= 255 else 65535


class _Quiet:
    """Suppress Pillow's warnings while any thread decodes an image; a real fault raises anyway.

    Python's filters belong to the process; so the first thread that comes sets them, and the last one puts them back.
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
