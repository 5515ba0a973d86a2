"""Images of more than 8 bits: their exact values, and their 8-bit shades once the level of white is known.

Pillow keeps grey values of 16 and 32 bits, but only the upper 8 bits of 16-bit colours, so those are decoded twice,
once for each byte. Values are not stretched to the range of their image, or two frames of one scene would differ.
"""

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dsmi_zoo._util.errors import InputError

WHITE_16 = 65535
# Greater values must have 16 bits; up to this one, they may have 8, 10, 12 or 14 bits, or show a dim scene.
SURELY_16 = 16383
# Levels of white accepted from a TIFF's tag; 65535 is not, because programs write it without knowing.
LEVELS = tuple(2**bits - 1 for bits in range(8, 16))
LIKELY_LEVELS = (255, 1023, 4095, 16383)

PHOTOMETRIC, MAX_SAMPLE, S_MAX_SAMPLE = 262, 281, 341  # tags of TIFF
ROWS_AT_ONCE = 256  # rows converted to floats at a time
# Layouts of 16 bits per channel; BGR;16 of a BMP has 16 bits per pixel.
LAYOUTS = {"LA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK"}
# libtiff decompresses to the machine's byte order, but Pillow assumes the file's for these layouts.
NATIVE = {"F;32BF": "F;32NF", "F;32F": "F;32NF", "I;16BS": "I;16NS", "I;16S": "I;16NS",
          "I;32BS": "I;32NS", "I;32S": "I;32NS"}  # fmt: skip


class UnknownWhite(InputError):
    """Raised for an intact image whose level of white neither the file nor the user states."""


class Invisible(ValueError):
    """Raised for an image that is blank on a white background; the message says what to do."""


def on_white(image: Image.Image) -> Image.Image:
    """Composite an RGBA image onto white and return it as RGB.

    Raises
    ------
    Invisible
        When nothing stays visible: white drawings on a transparent background, or only transparent colours.
    """
    paper = Image.new("RGBA", image.size, "white")
    laid = Image.alpha_composite(paper, image).convert("RGB")
    is_blank = laid.getextrema() == ((255, 255),) * 3
    if is_blank and any(band.getextrema()[0] != band.getextrema()[1] for band in image.split()):
        raise Invisible("nothing of it is visible on white: save it without transparency")
    return laid


@dataclass(frozen=True)
class DeepPixels:
    """Values of more than 8 bits, as the file stores them.

    Attributes
    ----------
    values
        uint16, int32 or float32, [h, w] or [h, w, channels] without alpha.
    mode
        The 8-bit mode with these channels: L, RGB or CMYK.
    white
        The greatest value that the type of the file can hold; 1 for floats.
    stated
        The level of white that the file states; None if it states none.
    is_tag
        Whether it is stated by a tag that some programs fill with the greatest value of the image.
    is_inverted
        Whether 0 is white.
    alpha
        uint16 [h, w], or None; ``is_premultiplied`` if the values are multiplied by it.
    """

    values: NDArray[Any]
    mode: str
    white: int
    stated: float | None = None
    is_tag: bool = False
    is_inverted: bool = False
    alpha: NDArray[np.uint16] | None = None
    is_premultiplied: bool = False

    @property
    def is_float(self) -> bool:
        """Whether the values are floats."""
        return self.values.dtype.kind == "f"

    @property
    def greatest(self) -> float:
        """The greatest value."""
        return float(self.values.max(initial=0))

    def own_white(self) -> float:
        """Return the level of white that follows from the image alone.

        Raises
        ------
        UnknownWhite
            When several levels fit.
        """
        greatest = self.greatest
        if greatest > WHITE_16:
            raise ValueError(self._out_of_range())
        if self.stated is not None:
            return self.stated
        if is_ambiguous(greatest, self.is_float):
            reach = f"it reaches only {greatest:,.0f} of {self.white:,}"
            values = f"it has values up to {greatest:,.6g}" if self.is_float else reach
            raise UnknownWhite(
                f"{values}: {white_level_request(greatest, self.white, self.is_float)}"
            )
        return self.white

    def as_rgb(self, white: float | None) -> Image.Image:
        """Return the image as 8-bit RGB on white; values above ``white`` are white."""
        if not (self.values.min(initial=0) >= 0 and np.isfinite(self.greatest)):
            raise ValueError(self._out_of_range())
        level = self.own_white() if white is None else white
        shades = _shades(self.values, level)
        if self.is_inverted:
            shades = 255 - shades
        image = Image.fromarray(shades, self.mode).convert("RGB")
        if self.alpha is None:
            return image
        # Where 12 bits are stored in 16, alpha also has 12.
        opacity = _shades(self.alpha, level if self.alpha.max(initial=0) <= level else WHITE_16)
        if self.is_premultiplied:
            paper = 255 - opacity[..., None].astype(np.int16)
            return Image.fromarray(np.minimum(np.asarray(image) + paper, 255).astype(np.uint8))
        image.putalpha(Image.fromarray(opacity))
        return on_white(image)

    def _out_of_range(self) -> str:
        low, high = float(self.values.min(initial=0)), self.greatest
        return f"its values, {low:g} to {high:g}, are not shades from 0 to 1, 255 or 65535"


def is_ambiguous(greatest: float, is_float: bool) -> bool:
    """Return whether several levels of white fit values up to ``greatest``."""
    return greatest > 1 if is_float else 0 < greatest <= SURELY_16


def white_level_request(greatest: float, white: int, is_float: bool) -> str:
    """Return the request to state the level of white, with the levels that fit such values best."""
    levels = [next((level for level in LIKELY_LEVELS if level >= greatest), WHITE_16)]
    other = (1 if greatest <= LIKELY_LEVELS[0] else WHITE_16) if is_float else white
    options = " or ".join(f"--white {level}" for level in sorted({*levels, other}))
    return f"say what white is, {options}"


def _shades(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Return values as 8-bit shades; ``white`` and above become 255."""
    if values.dtype == np.uint16:
        table = _shades(np.arange(2**16, dtype=np.float32), white)
        return table[values]
    shades = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        scaled = values[rows].astype(np.float32) * np.float32(255 / white)
        shades[rows] = np.rint(np.minimum(scaled, 255))
    return shades


def is_deep(opened: Image.Image) -> bool:
    """Return whether an image that is opened, but not loaded, has more than 8 bits."""
    layout, has_16_bits, _ = _raw_mode(opened).partition(";16")
    return opened.mode.startswith(("I", "F")) or (bool(has_16_bits) and layout in LAYOUTS)


def deep_pixels(path: Path, opened: Image.Image, again: Callable[[], Image.Image]) -> DeepPixels:
    """Read an image for which `is_deep` holds; ``again`` opens it a second time."""
    tags: dict[int, Any] = dict(getattr(opened, "tag_v2", {}))
    raw_mode, is_grey = _raw_mode(opened), opened.mode.startswith(("I", "F"))
    if is_grey:
        values, white, stated = _grey(opened, raw_mode)
        mode, alpha = "L", None
    else:
        mode, values, alpha = _sixteen_bits(opened, again)
        white, stated = WHITE_16, None
    if alpha is None:
        alpha = _keyed_out(values, opened.info.get("transparency"))
    if opened.format == "PNG":
        stated = _stated_by_png(path, values)
    tagged = _stated_by_tags(tags, values) if stated is None else None
    return DeepPixels(
        values=values,
        mode=mode,
        white=white,
        stated=tagged if stated is None else stated,
        is_tag=tagged is not None,
        is_inverted=mode == "L" and tags.get(PHOTOMETRIC) == 0,
        alpha=alpha,
        is_premultiplied=raw_mode.startswith("RGBa"),
    )


def _grey(opened: Image.Image, raw_mode: str) -> tuple[NDArray[Any], int, float | None]:
    """Return a grey image's values, the greatest value of their type, and the level of white that the format states."""
    is_float, maxval = opened.mode == "F", _maxval(opened)
    is_decompressed = any(tile.codec_name == "libtiff" for tile in getattr(opened, "tile", ()))
    layout = NATIVE.get(raw_mode, raw_mode) if is_decompressed else raw_mode
    decoded = upright(opened) if layout == raw_mode else _decoded(opened, layout)
    values: NDArray[Any] = np.asarray(decoded)
    if values.dtype.kind == "u":
        values = values.astype(np.uint16)  # in the machine's byte order
    if is_float:
        return values, 1, None
    if maxval is not None:  # Pillow has scaled them to 65535
        return np.rint(values * (maxval / WHITE_16)).astype(np.uint16), WHITE_16, maxval
    is_signed = raw_mode in ("I;16S", "I;16BS")
    return values, 32767 if is_signed else WHITE_16, 4095 if raw_mode == "I;12" else None


def upright(image: Image.Image) -> Image.Image:
    """Load the image, and rotate it by its EXIF orientation."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _raw_mode(opened: Image.Image) -> str:
    """Return the layout of the pixels in the file, such as ``RGB;16B``."""
    for tile in getattr(opened, "tile", ()):
        args = tile.args
        return str(args[0] if isinstance(args, tuple) and args else args)
    return ""


def _maxval(opened: Image.Image) -> int | None:
    """Return the level of white that a PGM states; None for other formats, and for 65535, which states nothing."""
    if opened.format != "PPM" or opened.mode != "I":
        return None
    args: Any = opened.tile[0].args  # type: ignore[attr-defined]
    return args[1] if args[0] == "L" and args[1] < WHITE_16 else None


def _sixteen_bits(
    opened: Image.Image, again: Callable[[], Image.Image]
) -> tuple[str, NDArray[Any], NDArray[Any] | None]:
    """Return the mode, channels and alpha of colours, or grey with alpha, of 16 bits."""
    layout, _, order = _raw_mode(opened).partition(";16")
    if layout == "LA":  # four bytes a pixel
        pairs = np.array(_decoded(opened, "RGBA"), dtype=np.uint16)
        return "L", pairs[..., 0] * 256 + pairs[..., 1], pairs[..., 2] * 256 + pairs[..., 3]
    order = order.replace("N", "L" if sys.byteorder == "little" else "B")
    layout = layout.replace("RGBa", "RGBA")
    upper = np.array(_decoded(opened, f"{layout};16{order}"), dtype=np.uint16)
    with again() as second:
        lower = _decoded(second, f"{layout};16{'B' if order == 'L' else 'L'}")
        upper *= 256
        upper += np.asarray(lower)
    if layout == "CMYK":
        return layout, upper, None
    return "RGB", upper[..., :3], upper[..., 3] if layout == "RGBA" else None


def _decoded(opened: Any, raw_mode: str) -> Image.Image:
    """Decode an opened image as if its pixels had this layout."""
    opened.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in opened.tile
    ]
    return upright(opened)


def _keyed_out(values: NDArray[Any], key: Any) -> NDArray[np.uint16] | None:
    """Return the alpha of an image with one transparent colour, or None."""
    if key is None or values.dtype != np.uint16:
        return None
    is_key = values == np.array(key, dtype=np.uint16)
    if values.ndim == 3:
        is_key = is_key.all(axis=-1)
    return np.where(is_key, 0, WHITE_16).astype(np.uint16)


def _stated_by_tags(tags: dict[int, Any], values: NDArray[Any]) -> float | None:
    """Return the level of white in a TIFF's tags, if one of ``LEVELS`` (or 1 for floats) and not below any value."""
    given = tags.get(MAX_SAMPLE, tags.get(S_MAX_SAMPLE))
    level = max(given) if isinstance(given, tuple) and given else given
    if not isinstance(level, int | float):
        return None
    allowed = (1, *LEVELS) if values.dtype.kind == "f" else LEVELS
    return float(level) if level in allowed and level >= values.max(initial=0) else None


def _stated_by_png(path: Path, values: NDArray[Any]) -> float | None:
    """Return the level of white that follows from a PNG's significant bits (sBIT).

    By the specification, values are scaled to 16 bits whatever the camera's bits: the lower bits are then zero, or
    repeat the upper ones. Some programs write sBIT without scaling.
    """
    channels = 1 if values.ndim == 2 else 3
    bits = max(png_chunk(path, b"sBIT")[:channels], default=0)
    if not 8 <= bits < 16:
        return None
    top = values >> (16 - bits)
    repeated = (top << (16 - bits)) | (top >> (2 * bits - 16))
    is_scaled = (values == top << (16 - bits)) | (values == repeated)
    if is_scaled.all():
        return WHITE_16
    level = 2**bits - 1
    return float(level) if values.max(initial=0) <= level else None


def png_chunk(path: Path, wanted: bytes) -> bytes:
    """Return the content of a short chunk before the pixels of a PNG; empty if it has none."""
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(100):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IDAT":
                break
            size = struct.unpack(">I", head[:4])[0]
            if head[4:] == wanted:
                return file.read(min(size, 16))
            file.seek(size + 4, 1)
    return b""
