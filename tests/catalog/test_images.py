"""Arbitrary image files: read as 8-bit RGB or refused in one line, and nothing in them is executed."""

import gc
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hostile_input import answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageFile

from dsmi_zoo.data_catalog.datasets.decoding import look, read_image
from dsmi_zoo.data_catalog.datasets.libraries import open_timm_dataset

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(hello) print
%%EOF
"""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def floats(path: Path, values: list[float], dtype: type = np.float32) -> Path:
    Image.fromarray(np.array([values], dtype=dtype)).save(path, "TIFF")
    return path


def assert_picture(image: Image.Image | None) -> None:
    if image is not None:
        assert image.mode == "RGB"
        assert min(image.size) > 0
        assert np.asarray(image).dtype == np.uint8


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a file that a fake ``gs`` writes when it is started."""
    folder, trace = tmp_path / "programs", tmp_path / "was-started"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> '{trace}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return trace


def test_postscript_with_the_suffix_of_a_photo_is_refused_and_not_run(
    tmp_path: Path, ghostscript: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(EPS)
    assert "not a supported image" in refusal(lambda: read_image(path), path)
    assert not ghostscript.exists()


# timm leaves the file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_postscript_in_a_timm_data_set_is_not_run(tmp_path: Path, ghostscript: Path) -> None:
    root = tmp_path / "set"
    (root / "validation" / "a").mkdir(parents=True)
    (root / "validation" / "a" / "photo.jpg").write_bytes(EPS)
    images = open_timm_dataset("folder", root)
    assert "cannot be read" in refusal(lambda: images.image(0), root)
    gc.collect()  # else a later test gets the warning of the open file
    assert not ghostscript.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_images_of_16_bits_in_a_timm_data_set_are_refused_and_not_clipped(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "validation" / "a"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(png_of(np.full((4, 4, 1), 4095)))
    (folder / "1.png").write_bytes(png_of(np.full((4, 4, 3), 4095)))
    (folder / "2.png").write_bytes(saved(photo(), "PNG"))
    images = open_timm_dataset("folder", tmp_path / "set")
    for number in (0, 1):
        assert "more than 8 bits" in refusal(lambda n=number: images.image(n), tmp_path / "set")
    assert (np.asarray(images.image(2)) == np.asarray(photo())).all()
    gc.collect()


@pytest.mark.parametrize("kind", ["ICNS", "ICO", "PCX", "TGA", "SGI", "DDS"])
def test_other_formats_are_refused_whatever_their_suffix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    try:
        path.write_bytes(saved(photo("RGBA" if kind == "DDS" else "RGB").resize((16, 16)), kind))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    assert "not a supported image" in refusal(lambda: read_image(path), path)


@pytest.mark.parametrize("values", [[0, 0.25, 1], [0, 1e-6, 0.5], [0, 0, 0]])
def test_floats_up_to_1_are_read_with_white_at_1(tmp_path: Path, values: list[float]) -> None:
    image = read_image(floats(tmp_path / "a.tif", values))
    assert np.asarray(image)[0, :, 0].tolist() == [round(255 * value) for value in values]


@pytest.mark.parametrize(
    ("values", "question"),
    [
        ([0, 1.01], "it has values up to 1.01: say what white is, --white 1 or --white 255"),
        ([0, 1.5, 200], "it has values up to 200: say what white is, --white 1 or --white 255"),
        ([0, 4000], "it has values up to 4,000: say what white is, --white 4095 or --white 65535"),
        ([0, 65535], "it has values up to 65,535: say what white is, --white 65535"),
    ],
)
def test_floats_above_1_are_read_only_with_a_given_white(
    tmp_path: Path, values: list[float], question: str
) -> None:
    path = floats(tmp_path / "a.tif", values)
    assert refusal(lambda: read_image(path), path) == f"{path}: {question}"
    assert np.asarray(read_image(path, white=max(values))).max() == 255
    assert np.asarray(read_image(path, white=2 * max(values))).max() == 128


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize(("greatest", "level"), [(200, 255), (256, 1023), (4095, 4095), (16383, 16383)])  # fmt: skip
def test_whole_numbers_that_fit_fewer_bits_are_read_only_with_a_given_white(
    tmp_path: Path, dtype: type, greatest: int, level: int
) -> None:
    path = floats(tmp_path / "a.tif", [0, greatest], dtype)
    question = f"it reaches only {greatest:,} of 65,535: say what white is, --white {level} or --white 65535"
    assert refusal(lambda: read_image(path), path) == f"{path}: {question}"
    assert np.asarray(read_image(path, white=greatest))[0, :, 0].tolist() == [0, 255]
    floats(path, [0, 0], dtype)
    assert np.asarray(read_image(path)).max() == 0
    floats(path, [0, 16384], dtype)
    assert np.asarray(read_image(path)).max() == 64


@pytest.mark.parametrize(
    "values", [[-0.1, 1], [0, np.nan], [0, np.inf], [0, -np.inf], [0, 65536], [0, 1e30]], ids=str
)
def test_floats_out_of_range_are_refused_in_one_line(tmp_path: Path, values: list[float]) -> None:
    path = floats(tmp_path / "a.tif", values)
    assert "are not shades from 0 to 1, 255 or 65535" in refusal(lambda: read_image(path), path)


def test_whole_numbers_of_32_bits_are_16_bits_or_refused(tmp_path: Path) -> None:
    path = floats(tmp_path / "a.tif", [0, 257, 65535], np.int32)
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 1, 255]
    for values in ([0, 65536], [-1, 5]):
        floats(path, values, np.int32)
        assert "are not shades" in refusal(lambda: read_image(path), path)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(
    width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 2, extra: bytes = b""
) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png_of(values: np.ndarray, extra: bytes = b"") -> bytes:
    """Return a 16-bit PNG of values [h, w, channels]."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, rows, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], extra)


def tiff_of(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def pgm_of(values: np.ndarray, maxval: int) -> bytes:
    return b"P5 %d %d %d\n" % (*values.shape[::-1], maxval) + values.astype(">u2").tobytes()


def shades(values: np.ndarray, white: float) -> np.ndarray:
    """Return the 8-bit shades, in closed form, of values [h, w] or [h, w, 3]."""
    wanted = np.floor(np.minimum(values / white, 1) * 255 + 0.5)
    return wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, axis=-1)


TIFF_WAYS = [
    {}, {"byteorder": ">"}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True},
    {"compression": "zlib", "byteorder": ">"}, {"tile": (16, 16)},
]  # fmt: skip


@bounded(80)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint16, np.int16, np.int32, np.float32]),
    st.sampled_from([1, 255, 256, 1023, 4095, 16383, 16384, 32767, 65535]),
    st.sampled_from(["minisblack", "miniswhite", "rgb"]),
    st.sampled_from(TIFF_WAYS),
    st.sampled_from([None, 1, 255, 4095, 65535]),
)
def test_deep_tiffs_have_the_shades_of_the_closed_form_or_ask_for_white(
    tmp_path: Path, seed: int, dtype: type, most: int, photometric: str, way: dict, white: int
) -> None:
    if dtype == np.int16:
        most = min(most, 32767)
        photometric = "minisblack"
    is_float = dtype == np.float32
    if photometric == "rgb":
        dtype = np.uint16
        is_float = False
    shape = (20, 17, 3) if photometric == "rgb" else (20, 17)
    values = np.random.default_rng(seed).integers(0, most, shape, endpoint=True).astype(dtype)
    values.flat[0] = most
    if is_float:
        way = {name: value for name, value in way.items() if name != "predictor"}
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(values, photometric=photometric, **way))
    image, line = answer_or_refusal(lambda: read_image(path, white), path)
    if image is None:
        not_pillows = "not a supported image: a TIFF of 1 band of"
        is_asked = white is None and (most > 1 if is_float else most <= 16383)
        assert not_pillows in line or (is_asked and "say what white is, --white" in line), line
        return
    own = 1 if is_float else 32767 if dtype == np.int16 else 65535
    level = white or own
    wanted = shades(values.astype(float), level)
    if photometric == "miniswhite":
        wanted = shades(level - np.minimum(values.astype(float), level), level)
    assert np.abs(np.asarray(image) - wanted).max() <= (1 if is_float else 0)


@bounded(40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.sampled_from([4095, 16384, 65535]),
    st.sampled_from([None, 4095, 65535]),
)
def test_deep_pngs_have_the_shades_of_the_closed_form_or_ask_for_white(
    tmp_path: Path, seed: int, channels: int, most: int, white: int | None
) -> None:
    values = np.random.default_rng(seed).integers(0, most, (6, 5, channels), endpoint=True)
    values[0, 0] = most
    path = tmp_path / "a.png"
    path.write_bytes(png_of(values))
    image, line = answer_or_refusal(lambda: read_image(path, white), path)
    if image is None and "nothing of it is visible" in line:
        assert channels in (2, 4)
        assert (shades(values[..., :-1], white or 65535) == 255).all()
        return
    if image is None:
        assert white is None
        assert most == 4095
        assert "--white 4095 or --white 65535" in line
        return
    level = white or 65535
    colours = values[..., : 3 if channels > 2 else 1]
    wanted = shades(colours, level) if channels > 2 else shades(colours[..., 0], level)
    if channels in (2, 4):
        full = level if most <= level else 65535
        opacity = np.minimum(values[..., -1:] / full, 1)
        wanted = wanted * opacity + 255 * (1 - opacity)
    assert np.abs(np.asarray(image) - wanted).max() <= (2 if channels in (2, 4) else 0)


RAMP = np.arange(0, 4096, 15).reshape(2, -1)
SAYS_4095 = {
    "PGM": lambda: pgm_of(RAMP, 4095),
    "TIFF": lambda: tiff_of(RAMP.astype("u2"), extratags=[(281, "H", 1, 4095, True)]),
    "TIFF, other tag": lambda: tiff_of(RAMP.astype("u2"), extratags=[(341, "H", 1, 4095, True)]),
    "PNG": lambda: png_of(RAMP[..., None], chunk(b"sBIT", b"\x0c")),
    "PNG of the specification": lambda: png_of(
        (RAMP[..., None] << 4) | (RAMP[..., None] >> 8), chunk(b"sBIT", b"\x0c")
    ),
}


@pytest.mark.parametrize("what", SAYS_4095)
def test_white_is_what_the_file_says_and_an_option_overrides_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(SAYS_4095[what]())
    assert (np.asarray(read_image(path)) == shades(RAMP, 4095)).all()
    level = 65535 if "specification" in what else 4095
    assert np.asarray(read_image(path, white=2 * level)).max() == 128


@pytest.mark.parametrize("level", [1000, 65535, 2047])
def test_a_tag_that_is_no_depth_or_does_not_hold_is_not_white(tmp_path: Path, level: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(RAMP.astype("u2"), extratags=[(281, "H", 1, level, True)]))
    assert "say what white is" in refusal(lambda: read_image(path), path)


def packed(values: list[int], bits: int) -> bytes:
    number = 0
    for value in values:
        number = (number << bits) | value
    return number.to_bytes(len(values) * bits // 8, "big")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_of_few_bits_has_white_where_the_file_has_it(
    tmp_path: Path, bits: int, photometric: str
) -> None:
    values = [number % 2**bits for number in (0, 1, 2, 3, 4, 15, 128, 255)]
    photo = 1 if photometric == "minisblack" else 0
    entries = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, photo), (273, 8 + 2 + 9 * 12 + 4),
               (277, 1), (278, 1), (279, bits)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    path = tmp_path / "a.tif"
    path.write_bytes(
        b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + directory + b"\0" * 4 + packed(values, bits)
    )
    wanted = [value * 255 // (2**bits - 1) for value in values]
    if photometric == "miniswhite":
        wanted = [255 - value for value in wanted]
    assert np.asarray(read_image(path))[0, :, 0].tolist() == wanted


def test_a_bitmap_of_16_bits_a_pixel_has_its_colours(tmp_path: Path) -> None:
    head = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    path = tmp_path / "a.bmp"
    path.write_bytes(head + struct.pack("<2H", 0b111110000000000, 0b000001111100000))
    assert np.asarray(read_image(path)).tolist() == [[[255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_transparent_grey_of_a_png_is_paper_at_any_depth(tmp_path: Path, bits: int) -> None:
    values = [0, 1, 2, 3] * 2
    row = b"\0" + packed(values, bits)
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 1, row, bits, 0, chunk(b"tRNS", struct.pack(">H", 1))))
    step = 255 // (2**bits - 1)
    wanted = [255 if value == 1 else value * step for value in values]
    assert np.asarray(read_image(path))[0, :, 0].tolist() == wanted
    assert look(path).is_mended == (bits < 8)


@pytest.mark.parametrize("key", [(1000,), (1000, 2000, 3000)])
def test_a_transparent_colour_of_16_bits_is_paper(tmp_path: Path, key: tuple[int, ...]) -> None:
    values = np.array([[key, [60000] * len(key), [value + 1 for value in key]]])
    path = tmp_path / "a.png"
    path.write_bytes(png_of(values, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))))
    pixels = np.asarray(read_image(path))
    assert pixels[0, 0].tolist() == [255] * 3
    assert (pixels[0, 1:] == shades(np.resize(values, (1, 3, len(key))), 65535)[0, 1:]).all()


def test_premultiplied_colours_are_laid_on_white(tmp_path: Path) -> None:
    for depth, dtype in ((8, "u1"), (16, "u2")):
        full = 2**depth - 1
        values = np.array(
            [[[full // 2, 0, full // 4, full // 2], [full, 0, 0, full], [0, 0, 0, 0]]], dtype
        )
        path = tmp_path / f"{depth}.tif"
        path.write_bytes(tiff_of(values, photometric="rgb", extrasamples=["assocalpha"]))
        opacity = values[..., 3:] / full
        wanted = values[..., :3] / full * 255 + 255 * (1 - opacity)
        assert np.abs(np.asarray(read_image(path)) - wanted).max() <= 2
    grey = np.array([[[100, 128], [200, 255]]], "u1")
    path.write_bytes(
        tiff_of(grey, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    )
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [227, 200]


@pytest.mark.parametrize("factor", [1, 257])
def test_a_palette_written_with_8_or_16_bits_has_the_same_colours(
    tmp_path: Path, factor: int
) -> None:
    palette = np.array([np.arange(256), np.arange(256)[::-1], np.full(256, 7)], "u2") * factor
    numbers = np.array([[0, 1, 128, 255]], "u1")
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(numbers, photometric="palette", colormap=palette))
    assert np.asarray(read_image(path)).tolist() == [[[n, 255 - n, 7] for n in (0, 1, 128, 255)]]
    assert look(path).is_mended == (factor == 1)


def test_cmyk_of_16_bits_is_that_of_8_bits(tmp_path: Path) -> None:
    inks = np.random.default_rng(0).integers(0, 256, (5, 4, 4))
    for name, values in (("8", inks.astype("u1")), ("16", (inks * 257).astype("u2"))):
        (tmp_path / name).write_bytes(tiff_of(values, photometric="separated"))
    assert (np.asarray(read_image(tmp_path / "8")) == np.asarray(read_image(tmp_path / "16"))).all()


UNREADABLE_TIFFS = {
    "5 bands of 16 bits": tiff_of(np.zeros((8, 8, 5), "u2"), photometric="minisblack", planarconfig="contig"),
    "1 band of 64 float bits": tiff_of(np.zeros((8, 8), "f8")),
    "1 band of 128 complex bits": tiff_of(np.zeros((8, 8), "c16")),
    "it has 6 bands": tiff_of(
        np.zeros((8, 8, 6), "u1"), photometric="rgb", extrasamples=["unspecified"] * 3
    ),
    "16-bit channels lie in separate planes": tiff_of(
        np.zeros((3, 8, 8), "u2"), photometric="rgb", planarconfig="separate"
    ),
    "it has negative values": tiff_of(np.array([[-1, 5]], "i1")),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE_TIFFS)
def test_a_tiff_that_is_no_picture_is_refused_by_its_layout(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(UNREADABLE_TIFFS[what])
    assert what in refusal(lambda: read_image(path), path)


def test_an_image_of_16_bits_is_set_upright(tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3)[..., None].repeat(3, axis=-1) * 13000
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    path.write_bytes(png_of(values, chunk(b"eXIf", exif.tobytes()[6:])))
    assert (np.asarray(read_image(path)) == shades(np.rot90(values, -1), 65535)).all()


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "a word": b"GIF89a",
    "gigapixels claimed": png(2**31 - 1, 2**31 - 1),
    "a hundred megapixels claimed": png(10_000, 10_000),
    "eighty megapixels claimed": png(8_000, 10_000),
    "no width": png(0, 10),
    "a ribbon": png(40_000, 1, b"\0" + b"\0" * 120_000),
    "a bomb of text": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 200_000_000, 9)) + chunk(b"IDAT", b""),
    "truncated": saved(photo(), "JPEG")[:300],
    "a huge BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "a TIFF whose directory follows itself": b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8),
    "a TIFF of a trillion strips": b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHIIHHII", 3, 256, 4, 1, 9, 257, 4, 1, 9,
                                                                      273, 4, 2**32 - 1, 8) + b"\0" * 4,
    "a PPM that claims more": b"P6 9000 9000 255\n\0\0\0",
    "a PPM of letters": b"P3 2 2 255\nabc",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_image_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(BROKEN[what])
    assert "--skip-bad-images" in refusal(lambda: read_image(path), path)


def test_a_missing_file_or_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path, tmp_path / ("x" * 5000)):
        refusal(lambda path=path: read_image(path), path)


def animated(kind: str) -> bytes:
    frames = [photo("P" if kind == "GIF" else "RGB", seed) for seed in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


ODD: dict[str, Callable[[], bytes]] = {
    "1 bit": lambda: saved(photo("1"), "PNG"),
    "1 bit TIFF": lambda: saved(photo("1"), "TIFF"),
    "palette": lambda: saved(photo("P"), "PNG", transparency=3),
    "palette with alpha": lambda: saved(photo("P"), "PNG", transparency=bytes(range(256))),
    "grey with alpha": lambda: saved(photo("LA"), "PNG"),
    "CMYK": lambda: saved(photo("CMYK"), "JPEG"),
    "Lab": lambda: saved(photo("LAB"), "TIFF"),
    "YCbCr": lambda: saved(photo("YCbCr"), "TIFF"),
    "HSV": lambda: saved(photo().convert("HSV").convert("RGB"), "BMP"),
    "16 bits": lambda: saved(
        Image.fromarray(np.arange(108, dtype=np.uint16).reshape(12, 9) * 600), "PNG"
    ),
    "16 bits TIFF": lambda: saved(
        Image.fromarray(np.arange(108, dtype=np.uint16).reshape(12, 9) * 600), "TIFF"
    ),
    "PFM": lambda: b"Pf 2 1 -1.0\n" + struct.pack("<2f", 0.5, 1.0),
    "16 bits PPM": lambda: b"P6 1 1 65535\n" + b"\xff\xff\0\0\x80\0",
    "animated GIF": lambda: animated("GIF"),
    "animated WebP": lambda: animated("WEBP"),
    "animated PNG": lambda: animated("PNG"),
    "several pages": lambda: animated("TIFF"),
    "AVIF": lambda: saved(photo(), "AVIF"),
    "JPEG 2000": lambda: saved(photo(), "JPEG2000"),
    "several pictures": lambda: saved(photo(), "MPO", save_all=True, append_images=[photo(seed=1)]),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_but_whole_image_becomes_rgb_of_8_bits(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(ODD[what]())
    assert_picture(read_image(path))


HIDDEN = {
    "colours under a transparent channel": lambda: saved(seen(photo("RGBA"), 0), "PNG"),
    "in 16 bits": lambda: png_of(
        np.stack([np.arange(20000, 65000, 5000)[None], np.zeros((1, 9))], -1)
    ),
    "in WebP": lambda: saved(seen(photo("RGBA"), 0), "WEBP", lossless=True, exact=True),
    "white on transparent": lambda: saved(seen(Image.new("LA", (9, 9), "white"), 7), "PNG"),
    "black transparent, else white": lambda: saved(photo("1"), "PNG", transparency=0),
}


def seen(image: Image.Image, alpha: int) -> Image.Image:
    image.putalpha(alpha)
    if alpha:
        image.putpixel((0, 0), (255, 255))
    return image


@pytest.mark.parametrize("what", HIDDEN)
def test_an_image_of_which_white_hides_all_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HIDDEN[what]())
    line = refusal(lambda: read_image(path), path)
    assert "nothing of it is visible on white: save it without transparency, or skip" in line


@pytest.mark.parametrize("colour", [(255, 255, 255, 0), (255, 255, 255, 255), (9, 9, 9, 0)])
def test_an_empty_image_is_white(tmp_path: Path, colour: tuple[int, ...]) -> None:
    Image.new("RGBA", (4, 4), colour).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getextrema() == ((255, 255),) * 3


@bounded(40)
@given(st.floats(0.1, 0.99), st.booleans(), st.booleans())
def test_a_jpeg_that_breaks_off_is_refused_whatever_follows_and_is_switched_on(
    tmp_path: Path, part: float, has_zeros: bool, is_switched_on: bool
) -> None:
    whole = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), "u1")), "JPEG"
    )
    cut = int(len(whole) * part)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:cut] + bytes(len(whole) - cut) * has_zeros)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_switched_on)
        assert "a.jpg: " in refusal(lambda: read_image(path), path)
        assert is_switched_on == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("behind", [b"", b"\0" * 100, b"trailer\xff\xda\0\0", b"\xff\xff"])
@pytest.mark.parametrize("before", [b"", b"\xff\xe5\0\6\xff\xd9\xff\xda", b"\xff\xff"])
def test_data_around_the_pixels_of_a_jpeg_is_ignored(
    tmp_path: Path, before: bytes, behind: bytes
) -> None:
    whole = saved(photo(), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + before + whole[2:] + behind)
    assert_picture(read_image(path))


def test_pillows_warnings_are_suppressed_and_other_filters_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(ODD["palette with alpha"]())
    before = warnings.filters.copy()
    threads = [threading.Thread(target=read_image, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


WHOLE = {
    "PNG": saved(photo("P"), "PNG", transparency=3), "JPEG": saved(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0"
    + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 0)), "GIF": animated("GIF"), "BMP": saved(photo("P"), "BMP"),
    "WEBP": saved(photo("RGBA"), "WEBP"), "TIFF": saved(photo("CMYK"), "TIFF", compression="tiff_lzw"),
    "floats": saved(Image.fromarray(np.eye(5, dtype=np.float32)), "TIFF"), "PPM": saved(photo(), "PPM"),
    "pages": animated("TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
@bounded(60)
@given(
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, 1500),
    st.booleans(),
)
def test_a_damaged_image_is_a_picture_or_refused_in_one_line(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]], cut: int, is_cut: bool
) -> None:
    content = bytearray(WHOLE[kind])
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path / "any.jpg"
    path.write_bytes(content[: cut % len(content)] if is_cut else content)
    image, _ = answer_or_refusal(lambda: read_image(path), path)
    assert_picture(image)


@bounded(100)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"P6 ", b"RIFF"]),
    st.binary(max_size=200),
)
def test_any_bytes_are_a_picture_or_refused_in_one_line(
    tmp_path: Path, magic: bytes, rest: bytes
) -> None:
    path = tmp_path / "any.jpg"
    path.write_bytes(magic + rest)
    image, _ = answer_or_refusal(lambda: read_image(path), path)
    assert_picture(image)


LARGE = Image.new("L", (12_000, 9_000), 90)


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_photo_of_108_megapixels_is_decoded_at_half_its_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "phone.jpg"
    LARGE.save(path, kind, **({"save_all": True} if kind == "MPO" else {}))
    image = read_image(path)
    assert image.size == (6_000, 4_500)
    assert image.getextrema() == ((90, 90),) * 3


def test_a_photo_of_200_megapixels_is_decoded_although_pillow_takes_it_for_a_bomb(
    tmp_path: Path,
) -> None:
    path = tmp_path / "phone.jpg"
    Image.new("L", (16_320, 12_240)).save(path)
    assert read_image(path).size == (8_160, 6_120)


def test_other_images_of_too_many_pixels_are_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(12_000, 9_000))
    said = "12,000 x 9,000 pixels are too many: shrink it below 90 megapixels"
    assert said in refusal(lambda: read_image(path), path)
    path.write_bytes(png(15_000, 15_000))
    assert "too many: shrink it below 90 megapixels" in refusal(lambda: read_image(path), path)
    claimed = bytearray(saved(photo(), "JPEG"))
    size = claimed.index(b"\xff\xc0") + 5
    claimed[size : size + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(claimed)
    said = "65,535 x 65,535 pixels are too many: shrink it below 90 megapixels"
    assert said in refusal(lambda: read_image(path), path)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "PNG", "JPEG2000"])
def test_an_image_named_jpg_is_read_by_its_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "web.jpg"
    path.write_bytes(saved(photo().resize((64, 64)), kind))
    with Image.open(path) as opened:
        assert (np.asarray(read_image(path)) == np.asarray(opened.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC image: convert it, or install pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is a HEIC image: convert it, or install pillow-heif"),
        (b"\r\n<!DOCTYPE html><title>404", "not a supported image but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, so `git lfs pull`"),
        (b"%PDF-1.7\n", "not a supported image but a PDF document"),
        (b"no image", "not a supported image (8 bytes)"),
    ],
)  # fmt: skip
def test_what_people_find_under_the_name_of_a_photo_is_named(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert said in refusal(lambda: read_image(path), path)
