"""Image files of anybody's making: an RGB picture of 8 bits, or one line; and nothing in them is executed."""

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
from hostile_input import answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from dsmi_zoo.data_catalog.datasets.decoding import read_image
from dsmi_zoo.data_catalog.datasets.timm import open_timm_dataset

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
    """A file that the program ``gs`` leaves when it is started."""
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


# Timm leaves the file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_postscript_in_a_timm_data_set_is_not_run(tmp_path: Path, ghostscript: Path) -> None:
    root = tmp_path / "set"
    (root / "validation" / "a").mkdir(parents=True)
    (root / "validation" / "a" / "photo.jpg").write_bytes(EPS)
    assert "timm cannot open it" in refusal(lambda: open_timm_dataset("folder", root), root)
    gc.collect()  # so that no later test is message of the file
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", ["ICNS", "PCX", "TGA", "SGI", "DDS"])
def test_other_formats_are_refused_whatever_their_suffix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    try:
        path.write_bytes(saved(photo("RGBA" if kind == "DDS" else "RGB").resize((16, 16)), kind))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    assert "not a supported image" in refusal(lambda: read_image(path), path)


@pytest.mark.parametrize(
    ("values", "white"),
    [([0, 0.25, 1], 1), ([0, 1e-6, 0.5], 1), ([0, 100, 255], 255), ([0, 1.5, 200], 255), ([0, 1000, 65535], 65535)],
)  # fmt: skip
def test_floats_are_scaled_by_their_white_value(
    tmp_path: Path, values: list[float], white: float
) -> None:
    image = read_image(floats(tmp_path / "a.tif", values))
    wanted = [[[round(value * 255 / white)] * 3 for value in values]]
    assert np.abs(np.asarray(image).astype(int) - wanted).max() <= 1


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


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


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
    "several pictures": lambda: saved(photo(), "MPO", save_all=True, append_images=[photo(seed=1)]),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_but_whole_image_becomes_rgb_of_8_bits(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(ODD[what]())
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
