"""Decode image files to RGB; errors name the file.

Pillow recognises formats by content, not by name, and starts programs for some: an EPS file named ``.jpg`` would be run
by Ghostscript. So only the formats listed here are allowed. Each format is attack surface; these are used for
photographs, have a maintained decoder, and are recognised by their first bytes. TGA has no such signature: any file may
be TGA. Files in rare formats (PCX, SGI, DDS, ICO, PSD) are easily converted.
"""

import importlib.util
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.text import counted, shortened

from .deep_pixels import (
    DeepPixels,
    Invisible,
    UnknownWhite,
    deep_pixels,
    is_deep,
    on_white,
    upright,
)


def _with_heif(formats: tuple[str, ...]) -> tuple[str, ...]:
    if importlib.util.find_spec("pillow_heif") is None:
        return formats
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*formats, "HEIF")


# JPEG includes MPO: a JPEG followed by a second picture.
FORMATS = _with_heif(("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"))
# About where Pillow begins to warn (89.5 million); decoded, that is 360 MB.
MAX_PIXELS = 90_000_000
# The limit for a JPEG, which is decoded at half its size.
MAX_PIXELS_OF_JPEG = 250_000_000
# The decoder of a progressive JPEG keeps all coefficients, up to 6 bytes per pixel.
MAX_PIXELS_OF_PROGRESSIVE_JPEG = 135_000_000
# The limit of long side / short side. The short side becomes the model's input size; a longer image would fill memory.
MAX_ELONGATED = 200

OR_SKIP = "skip such images with --skip-bad-images"
HINT = f"repair it, or {OR_SKIP}"
SHRINK = "shrink it below 90 megapixels"

JPEG_MAGIC, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
ZEROS_AT_END = 16  # bytes
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
TIFF_MAGIC = (b"II*\0", b"MM\0*")

# Other formats found in files named as images, by their first bytes.
FOREIGN = {
    b"%!PS": "PostScript",
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"v/1\x01": "an OpenEXR image",
    b"SIMPLE  =": "a FITS image",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML, perhaps an SVG drawing",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a ZIP archive",
    b"version https://git-lfs": "a pointer of Git LFS, so `git lfs pull` gets the image",
}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def read_image(path: Path, white: float | None = None) -> Image.Image:
    """Return an image as RGB, upright (by its EXIF orientation), 8 bits a channel, transparency on white.

    The first of several frames is used. A JPEG of more than 90 megapixels is decoded at half its size. Colour profiles
    are ignored, as by torchvision and timm.

    Parameters
    ----------
    white
        The value of white in an image of more than 8 bits; larger values are white, too. By default the level that the
        file states, else 65535 for integers if a value is above 16383, and 1 for floats up to 1.

    Raises
    ------
    UnknownWhite
        When ``white`` is None and the level of white is ambiguous.
    InputError
        For a file that is missing, damaged, not an image, too large or too elongated, or has values out of range.
    """
    with _named(path), _open(path) as opened:
        if is_deep(opened):
            return deep_pixels(path, opened, lambda: _open(path)).as_rgb(white)
        return _as_rgb(path, upright(opened))


def read_deep(path: Path) -> DeepPixels | None:
    """Return the exact values of an image of more than 8 bits; None for others.

    Raises
    ------
    InputError
        As `read_image`.
    """
    with _named(path), _open(path) as opened:
        return deep_pixels(path, opened, lambda: _open(path)) if is_deep(opened) else None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Suppress Pillow's warnings, and raise every error as an InputError that names the file."""
    try:
        with _quiet:
            yield
    except UnknownWhite as error:
        raise UnknownWhite(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_unidentified(path)}") from None
    except Exception as error:  # decoders do not document what they raise for damaged files
        reason = shortened(str(error), 200) or type(error).__name__
        if isinstance(error, _Unfit | Invisible):
            raise InputError(f"{path}: {reason}, or {OR_SKIP}") from None
        raise InputError(f"{path}: the image cannot be read: {reason}; {HINT}") from None


class _Unfit(ValueError):
    """Raised for an intact image that is not supported; the message says what to do."""


def _open(path: Path) -> Image.Image:
    """Open an image without decoding it, a large JPEG at a smaller scale."""
    try:
        opened = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        if not _begins_as_jpeg(path):
            raise _Unfit(f"more than 178 megapixels are too many: {SHRINK}") from None
        opened = JpegImagePlugin.JpegImageFile(path)
    try:
        _shrink_jpeg(opened)
        _check_size(*opened.size)
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            _check_tiff(opened.tag_v2)
        if opened.format == "JPEG":
            _check_end(path)
    except BaseException:
        opened.close()
        raise
    return opened


def _shrink_jpeg(opened: Image.Image) -> None:
    """Have a JPEG of too many pixels decoded at half its size."""
    width, height = opened.size
    is_progressive = "progressive" in opened.info
    most = MAX_PIXELS_OF_PROGRESSIVE_JPEG if is_progressive else MAX_PIXELS_OF_JPEG
    if opened.format in ("JPEG", "MPO") and MAX_PIXELS < width * height <= most:
        opened.draft(None, (width // 2, height // 2))  # None keeps the mode


def begins_as_image(path: Path) -> bool:
    """Return whether a file begins as a supported image does."""
    try:
        with _quiet, Image.open(path, formats=FORMATS):
            return True
    except Exception:  # as in `_named`
        return False


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _Unfit(f"{width:,} x {height:,} pixels are too many: {SHRINK}")
    if max(width, height) > min(width, height) * MAX_ELONGATED:
        raise ValueError(
            f"of {width} x {height} pixels, one side is more than {MAX_ELONGATED} times the other"
        )


def _check_end(path: Path) -> None:
    """Raise ValueError for a JPEG that ends in zeros without an end marker: Pillow decodes the zeros as grey."""
    with path.open("rb") as file:
        file.seek(-min(ZEROS_AT_END, path.stat().st_size), os.SEEK_END)
        if any(file.read()):  # some cameras write no marker
            return
        file.seek(0)
        content = file.read()
    # Thumbnails before the pixels have an end marker, too, and programs write other data after the image's own.
    if JPEG_END not in content[_end_of_header(content) :]:
        raise ValueError("it ends in zeros, as an interrupted transfer leaves it")


def _end_of_header(content: bytes) -> int:
    """Return the offset where the segments of a JPEG end: at its pixels, or at bytes that are not a segment."""
    place = 2
    while re.match(rb"\xff[\xc0-\xcf\xdb-\xfe]", content[place : place + 2]):
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place


def _check_tiff(tags: Any) -> None:
    """Raise `_Unfit` for a TIFF that Pillow would read wrongly."""
    bands = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    is_cmyk = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 5
    if bands > (5 if is_cmyk else 4):
        raise _Unfit(f"it has {bands} bands: keep one (grey) or three (RGB)")
    is_planar = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    if is_planar and bands > 1 and max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8:
        raise _Unfit("its 16-bit channels lie in separate planes: save it with interleaved ones")


def _as_rgb(path: Path, image: Image.Image) -> Image.Image:
    if _is_signed(image) and image.getextrema()[1] > 127:  # type: ignore[operator]
        raise ValueError("it has negative values")
    _mend(path, image)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        return on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _is_signed(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return image.mode == "L" and tags.get(TiffImagePlugin.SAMPLEFORMAT) == (2,)


def _mend(path: Path, image: Image.Image) -> None:
    """Correct what Pillow reads wrongly in images of up to 8 bits: see `needs_mending`."""
    if not needs_mending(path, image):
        return
    if image.format == "PNG":
        step = 255 // (2 ** _head(path)[24] - 1)
        image.info["transparency"] *= step
    else:
        colours = image.tag_v2[TiffImagePlugin.COLORMAP]  # type: ignore[attr-defined]
        image.putpalette(bytes(colours), "RGB;L")


def needs_mending(path: Path, opened: Image.Image) -> bool:
    """Return whether Pillow reads an image of up to 8 bits wrongly.

    In a PNG of 2 or 4 bits it scales the grey values, but not the transparent one. From a TIFF's palette it takes the
    upper 8 of 16 bits, so that a palette written with 8 bits becomes black.
    """
    if opened.format == "PNG":
        is_keyed = opened.mode == "L" and isinstance(opened.info.get("transparency"), int)
        return is_keyed and _head(path)[24] < 8
    if opened.format == "TIFF" and opened.mode == "P":
        return max(opened.tag_v2[TiffImagePlugin.COLORMAP]) < 256  # type: ignore[attr-defined]
    return False


class Look(NamedTuple):
    """Facts from an image's header: more than 8 bits, needs mending, more than one page or frame."""

    is_deep: bool = False
    is_mended: bool = False
    has_frames: bool = False


def is_jpeg(path: str) -> bool:
    """Return whether a file is a JPEG by name and content; a JPEG has 8 bits and one frame."""
    return path.lower().endswith(JPEG_SUFFIXES) and _begins_as_jpeg(path)


def _begins_as_jpeg(path: str | Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY)  # a third of the time of a file object
    except OSError:
        return False
    try:
        return os.read(file, len(JPEG_MAGIC)) == JPEG_MAGIC
    finally:
        os.close(file)


def look(path: Path) -> Look:
    """Read an image's header; return the defaults for an image that cannot be read."""
    try:
        head = _head(path)
        # The first bytes of a PNG are enough, in a tenth of the time.
        if head.startswith(b"\x89PNG") and (head[24] >= 8 or head[25] != 0):
            return Look(is_deep=head[24] == 16)
        with _named(path), _open(path) as opened:
            return Look(is_deep(opened), needs_mending(path, opened), _has_frames(opened))
    except (InputError, OSError, IndexError):
        return Look()


def _has_frames(opened: Image.Image) -> bool:
    """Return whether an image is animated, or is a TIFF whose second page is neither a smaller copy nor a mask.

    Two kinds do not count: an animated PNG names its still picture, and an MPO's second picture shows the same scene.
    """
    if opened.format in ("GIF", "WEBP", "AVIF"):
        return bool(getattr(opened, "is_animated", False))
    if not isinstance(opened, TiffImagePlugin.TiffImageFile) or not opened.tag_v2.next:
        return False
    opened.seek(1)
    return not int(opened.tag_v2.get(TiffImagePlugin.OSUBFILETYPE - 1, 0)) & 0b101


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _unidentified(path: Path) -> str:
    """Return why Pillow does not recognise a file."""
    head, size = _head(path), path.stat().st_size
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return f"is a HEIC image: convert it, or install pillow-heif; or {OR_SKIP}"
    layout = _tiff_layout(path) if head[:4] in TIFF_MAGIC else ""
    if layout:
        return f"not a supported image: a TIFF of {layout}; save it as grey or RGB of 8 or 16 bits, or {OR_SKIP}"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for magic, kind in FOREIGN.items():
        if start.startswith(magic.lower()):
            return f"not a supported image but {kind}; {HINT}"
    return f"not a supported image ({size} bytes); {HINT}"


def _tiff_layout(path: Path) -> str:
    """Return the bands and bits of a TIFF, or "" if its directory is damaged."""
    try:
        with path.open("rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        bands = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        kind = {2: "signed ", 3: "float ", 6: "complex "}.get(
            tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], ""
        )
        return f"{counted(bands, 'band')} of {bits} {kind}bits"
    except Exception:  # as in `_named`
        return ""


class _Quiet:
    """A context that suppresses Pillow's warnings and refuses truncated images while any thread decodes one.

    Warning filters are global, and so is Pillow's switch that accepts truncated images, which users' code may turn on:
    the first thread sets both, and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()
        self._loads_truncated = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._loads_truncated = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)
                ImageFile.LOAD_TRUNCATED_IMAGES = self._loads_truncated


_quiet = _Quiet()
