"""The white level of images with more than 8 bits: set by --white, the files or the only fit, else an error asks."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hostile_input import bounded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.subset import Subset
from dsmi_zoo.pipeline.config.run import RunConfig, SubsetSettings
from dsmi_zoo.pipeline.plan import subset
from dsmi_zoo.pipeline.plan.subset import DeepImage, open_subset, white_of

RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))


def grey(most: float, dtype: str = "u2") -> np.ndarray:
    return (RAMP * most).astype(dtype)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def fill(photos: Path, *images: np.ndarray, suffix: str = ".png") -> Path:
    for number, pixels in enumerate(images):
        save(photos / "ab"[number % 2] / f"{number}{suffix}", pixels)
    return photos


def opened(photos: Path, **settings: object) -> Subset:
    chosen = SubsetSettings(dataset="imagefolder", data_root=photos, keep_copies=True, **settings)
    return open_subset(chosen, 1, photos.parent / "cache")


def brightest(subset: Subset) -> list[int]:
    return [int(np.asarray(subset.images.image(i)).max()) for i in range(len(subset.labels))]


def test_16_bits_have_one_white_if_one_image_needs_all_of_them(photos: Path) -> None:
    subset = opened(fill(photos, grey(65535), grey(256), grey(4095), grey(255)))
    assert brightest(subset) == [255, 16, 1, 1]
    [reading] = subset.account.readings
    assert (
        str(reading)
        == "16-bit images are read with white at 65,535, not at another level; --white decides"
    )


@pytest.mark.parametrize(
    ("most", "levels"),
    [
        (200, "--white 255"),
        (1000, "--white 1023"),
        (4095, "--white 4095"),
        (16383, "--white 16383"),
    ],
)
def test_16_bits_that_fewer_would_hold_are_refused_before_anything_is_computed(
    photos: Path, most: int, levels: str
) -> None:
    fill(photos, *[grey(most)] * 3, grey(most // 2))
    with pytest.raises(InputError) as refused:
        opened(photos)
    assert str(refused.value) == (
        f"4 images of 16 bits in photos reach only {most:,} of 65,535 (a/0.png): "
        f"say what white is, {levels} or --white 65535"
    )
    assert max(brightest(opened(photos, white=most))) == 255


def test_floats_have_white_at_1_and_above_it_a_question(photos: Path) -> None:
    fill(photos, grey(1, "f4"), grey(0.1, "f4"), suffix=".tif")
    assert brightest(opened(photos)) == [255, 26]
    save(photos / "b" / "x.tif", grey(1.01, "f4"))
    with pytest.raises(
        InputError, match=r"3 images of floats in photos have values up to 1\.01 \(b/x\.tif\): say"
    ):
        opened(photos)
    assert brightest(opened(photos, white=1)) == [255, 26, 255]


def test_values_above_the_given_white_are_counted_in_the_log(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(photos, grey(4095), grey(100))
    with caplog.at_level(logging.WARNING):
        subset = opened(photos, white=255)
    assert brightest(subset) == [255, 100]
    assert subset.account.readings == ()
    assert caplog.messages == [
        "values above --white 255 are read as white: 1 of 2 images of more than 8 bits, up to 4,095 in a/0.png"
    ]


def test_the_identity_of_images_of_8_bits_does_not_know_white(photos: Path) -> None:
    fill(photos, grey(255, "u1"), grey(100, "u1"))
    assert opened(photos).digest == opened(photos, white=4095).digest
    assert opened(photos).images.white is None
    save(photos / "a" / "deep.png", grey(65535))
    digests = {opened(photos, white=level).digest for level in (4095, 65535, None)}
    assert len(digests) == 2


def test_white_is_no_setting_of_a_runs_identity() -> None:
    config = RunConfig(subset=SubsetSettings(white=4095))
    assert config.identity() == RunConfig().identity()


def test_integers_and_floats_cannot_share_a_white(photos: Path) -> None:
    fill(photos, grey(65535))
    save(photos / "b" / "x.tif", grey(1, "f4"))
    with pytest.raises(
        InputError, match=r"a/0\.png has integers of more than 8 bits, b/x\.tif floats: convert"
    ):
        opened(photos)


def tagged(path: Path, most: int, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, grey(most), extratags=[(281, "H", 1, level, True)])


def test_tags_that_agree_decide_and_others_are_a_question(photos: Path) -> None:
    tagged(photos / "a" / "0.tif", 4000, 4095)
    tagged(photos / "b" / "1.tif", 2000, 4095)
    assert brightest(opened(photos)) == [249, 125]
    tagged(photos / "b" / "2.tif", 1023, 1023)
    with pytest.raises(
        InputError, match=r"tags of its files differ \(4,095 in a/0\.tif, 1,023 in b/2\.tif\)"
    ):
        opened(photos)
    tagged(photos / "b" / "2.tif", 65535, 65535)
    with pytest.raises(
        InputError, match=r"some files say what white is \(4,095 in a/0\.tif\), 1 of 3 do not"
    ):
        opened(photos)


def test_pages_behind_the_first_are_mentioned(photos: Path) -> None:
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        tifffile.imwrite(
            photos / name / "0.tif", np.zeros((3, 8, 8), "u1"), photometric="minisblack"
        )
    fill(photos, grey(255, "u1"), suffix=".tif")
    tifffile.imwrite(photos / "b" / "1.tif", np.zeros((8, 8), "u1"))
    [reading] = opened(photos).account.readings
    assert reading.taken == "of several pages or frames in 1 image (b/0.tif), the first is read"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF"])
def test_frames_behind_the_first_are_mentioned(photos: Path, kind: str) -> None:
    fill(photos, grey(255, "u1"), grey(100, "u1"), grey(50, "u1"))
    frames = [Image.fromarray(grey(level, "u1")) for level in (0, 200)]
    frames[0].save(photos / "a" / "moves.jpg", kind, save_all=True, append_images=frames[1:])
    frames[1].save(photos / "a" / f"still.{kind.lower()}")
    [reading] = opened(photos).account.readings
    assert reading.taken == "of several pages or frames in 1 image (a/moves.jpg), the first is read"


def test_deep_images_with_the_suffix_of_a_jpeg_have_the_white_of_the_others(photos: Path) -> None:
    fill(photos, grey(65535), grey(65535))
    (photos / "a" / "2.jpg").write_bytes((photos / "a" / "0.png").read_bytes())
    subset = opened(photos, white=131070.0)
    assert brightest(subset) == [128, 128, 128]


def test_a_white_that_no_image_needs_is_mentioned(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(fill(photos, grey(255, "u1"), grey(9, "u1"), suffix=".jpg"), white=4095.0)
    assert "--white 4095 changes nothing: no image has more than 8 bits" in caplog.text
    open_subset(SubsetSettings(dataset="digits", white=1.0), 1, photos)
    assert "--white 1 changes nothing: digits/validation has 8 bits" in caplog.text


def test_deep_images_are_decoded_once_for_their_values(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos, grey(65535), grey(300), grey(255, "u1"))
    decoded: list[str] = []
    read = subset.read_deep
    monkeypatch.setattr(
        subset, "read_deep", lambda path: [decoded.append(path.name), read(path)][1]
    )
    first = opened(photos)
    assert decoded == ["0.png", "1.png"]
    assert opened(photos).digest == first.digest
    assert len(decoded) == 2
    for note in (photos.parent / "cache" / "white").iterdir():
        note.write_text("{")
    assert opened(photos).digest == first.digest
    assert len(decoded) == 4


def test_jpegs_are_not_looked_at(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(photos, grey(255, "u1"), grey(100, "u1"), suffix=".jpg")
    monkeypatch.delattr(subset, "look")
    opened(photos)
    assert not (photos.parent / "cache" / "white").exists()


def test_an_unknown_white_does_not_make_an_image_bad(photos: Path) -> None:
    fill(photos, grey(4095), grey(4000), grey(255, "u1"), grey(255, "u1"))
    (photos / "a" / "bad.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="2 images of 16 bits in photos reach only 4,095"):
        opened(photos, skip_bad_images=True)
    assert len(opened(photos, skip_bad_images=True, white=4095).labels) == 4


DEEP = st.builds(
    DeepImage,
    name=st.sampled_from(["a.png", "b.tif", "c.tif"]),
    greatest=st.sampled_from([0, 0.5, 1, 1.01, 255, 4095, 16383, 16384, 65535]),
    white=st.just(65535),
    is_float=st.booleans(),
    stated=st.sampled_from([None, None, 1023, 4095, 65535]),
    is_tag=st.booleans(),
)


@bounded(300)
@given(st.lists(DEEP, min_size=1, max_size=6), st.sampled_from([None, None, 1, 4095]))
def test_a_level_that_is_not_asked_for_fits_every_image(
    images: list[DeepImage], option: float | None
) -> None:
    images = [
        image.model_copy(update={"white": 1 if image.is_float else 65535}) for image in images
    ]
    try:
        level = white_of(images, option, "photos")
    except InputError as error:
        line = str(error)
        assert option is None and ("--white" in line or "convert them" in line)  # noqa: PT018
        return
    if option is not None:
        assert level == option
        return
    silent = [image for image in images if image.stated is None]
    if level is None:
        assert not silent
    for image in silent:
        assert image.greatest <= level
    if silent and not silent[0].is_float:
        top = max(image.greatest for image in silent)
        assert level == 65535
        assert top == 0 or top > 16383
