"""The shared subset and its views: the same images and the same pixels for every model."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.forkserver import process_pool
from dsmi_zoo.data_catalog.datasets.base import ImageArray, split_numbers
from dsmi_zoo.data_catalog.datasets.libraries import DEBIAN, digits_split, fashion_split
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.data_catalog.models.registry import load_models, trained_models
from dsmi_zoo.jobs.runs.downloads import log_images
from dsmi_zoo.jobs.runs.search import stages_of
from dsmi_zoo.pipeline.config.compute import MODELS
from dsmi_zoo.pipeline.config.run import RunConfig, SubsetSettings
from dsmi_zoo.pipeline.embedding.views import (
    drop_oldest_views,
    input_vector,
    make_view,
    open_stored,
    open_view,
    timm_crop,
    view_path,
    view_vectors,
)
from dsmi_zoo.pipeline.plan.plan import make_plan


def photographs(count: int = 3) -> ImageArray:
    """Return images with structure at every scale and an unusual aspect ratio."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (7, 5), dtype=np.uint8))
    pixels = np.stack(
        [
            np.asarray(noise.rotate(90 * k).resize((61, 97), Image.Resampling.BICUBIC))
            for k in range(count)
        ]
    )
    return ImageArray(
        "photographs/all", tuple(f"p{k}" for k in range(count)), np.arange(count) % 2, pixels
    )


def subset_of(images: ImageArray, numbers: list[int], repeats: int = 1, seed: int = 0) -> Subset:
    return Subset(images.take(np.array(numbers)), repeats, seed, "digest")


@pytest.mark.parametrize("name", ["digits", "digits:7"])
def test_the_three_parts_of_the_digits_are_disjoint_and_stratified(name: str) -> None:
    parts = [open_dataset(name, part=part) for part in ("train", "test", "validation")]
    assert [len(part.names) for part in parts] == [900, 450, 447]
    assert len({name for part in parts for name in part.names}) == 1797
    for part in parts:
        counts = np.bincount(part.labels)
        assert counts.max() - counts.min() <= 0.06 * len(part.names)


def test_the_digits_are_scikit_learns_and_the_stored_split_is_its_own() -> None:
    pixels, labels = load_digits(return_X_y=True)
    for part in ("train", "test", "validation"):
        images, theirs, numbers = digits_split(part)
        expected = split_numbers(labels, part, train=900, test=450, seed=0)
        np.testing.assert_array_equal(numbers, expected)
        np.testing.assert_array_equal(theirs, labels[expected])
        shades = pixels[expected].reshape(-1, 8, 8) * (255 / 16)
        np.testing.assert_array_equal(images, np.rint(shades).astype(np.uint8))


def test_another_seed_of_the_digits_is_another_split_with_recipes_that_train_on_it() -> None:
    splits = [set(open_dataset(name).names) for name in ("digits", "digits:7", "digits:8")]
    assert splits[0] != splits[1] != splits[2]
    assert {(e.recipe.dataset, e.recipe.seed) for e in trained_models("digits", 7) if e.recipe} == {
        ("digits:7", 7)
    }
    assert trained_models("digits") == load_models("digits")


def test_a_split_of_which_the_models_have_seen_images_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"digits:7 is another split of the images that .* is trained on; use .* digits$",
    ):
        make_plan(RunConfig(subset=SubsetSettings(dataset="digits:7")))


needs_fashion = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


@needs_fashion
def test_fashion_is_split_into_three_parts_of_the_images_that_torchvision_reads(
    tmp_path: Path,
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in DEBIAN.glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    for part, size in {"train": 900, "test": 2000, "validation": 500}.items():
        ours, from_root = fashion_split(part, 3), fashion_split(part, 3, tmp_path)
        theirs = FashionMNIST(str(tmp_path), train=part == "train")
        assert len(ours[1]) == size
        assert np.ptp(np.bincount(ours[1])) <= 0.02 * size
        np.testing.assert_array_equal(ours[0], theirs.data.numpy()[ours[2]])
        np.testing.assert_array_equal(ours[1], theirs.targets.numpy()[ours[2]])
        assert all((mine == other).all() for mine, other in zip(ours, from_root, strict=True))
        assert tuple(theirs.classes) == open_dataset("fashion", part=part).classes
    of_test, of_validation = (
        set(open_dataset("fashion", part=part).names) for part in ("test", "validation")
    )
    assert of_test.isdisjoint(of_validation)


def test_missing_or_damaged_fashion_is_reported_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"the data set fashion is not in .*; install Debian's package"
    ):
        open_dataset("fashion", tmp_path)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"short")
    with pytest.raises(
        InputError, match=r"t10k-images-idx3-ubyte: is not Fashion-MNIST's file .* by its size"
    ):
        open_dataset("fashion", tmp_path)


def test_a_trained_zoo_is_measured_on_the_images_of_its_recipes_by_default() -> None:
    assert RunConfig(catalog="fashion:3").subset.dataset == "fashion:3"
    assert (
        RunConfig(catalog="fashion", subset=SubsetSettings(images_per_class=9)).subset.dataset
        == "fashion"
    )
    assert (
        RunConfig.model_validate({"catalog": "fashion", "subset": {"seed": 1}}).subset.dataset
        == "fashion"
    )
    assert (
        RunConfig(catalog="fashion", subset=SubsetSettings(dataset="digits")).subset.dataset
        == "digits"
    )
    assert RunConfig(catalog="digits:3").folder.name == "digits-3"


def test_an_unknown_data_set_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="unknown data set 'svhn'; there are: digits, fashion"):
        open_dataset("svhn")


@pytest.mark.parametrize("name", ["digits:0", "digits:01", "fashion:0", "digits:"])
def test_a_split_has_one_name_alone(name: str) -> None:
    """Seed 0 is plain ``digits``: under two names, the same images would count as two splits."""
    with pytest.raises(InputError, match=f"unknown data set '{name}'"):
        open_dataset(name)


def test_the_whole_part_is_the_default_subset_sorted_by_label() -> None:
    images = open_dataset("digits")
    subset = select_subset(images)
    assert len(subset.labels) == 447
    assert subset.n_classes == 10
    assert (np.diff(subset.labels) >= 0).all()
    of = dict(zip(images.names, images.labels, strict=True))
    assert [of[name] for name in subset.images.names] == subset.labels.tolist()


def test_images_per_class_are_equal_and_their_choice_follows_the_seed() -> None:
    images = open_dataset("digits")
    first, again, other = (
        select_subset(images, images_per_class=7, seed=seed) for seed in (1, 1, 2)
    )
    assert np.bincount(first.labels).tolist() == [7] * 10
    assert len(set(first.images.names)) == 70
    assert first.images.names == again.images.names
    assert first.digest == again.digest
    assert first.images.names != other.images.names
    assert first.digest != other.digest


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_a_data_set_lists_its_images_does_not_matter(random: object) -> None:
    images = open_dataset("digits")
    order = list(range(len(images.names)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = ImageArray(
        images.name,
        tuple(images.names[i] for i in order),
        images.labels[order],
        images.pixels[order],
    )  # type: ignore[attr-defined]
    here, there = (select_subset(those, images_per_class=5) for those in (images, shuffled))
    assert here.images.names == there.images.names
    assert here.digest == there.digest


def test_one_changed_pixel_changes_the_digest() -> None:
    images = photographs(4)
    changed = ImageArray(images.name, images.names, images.labels, images.pixels.copy())
    changed.pixels[0, 0, 0] ^= 1
    assert select_subset(images).digest != select_subset(changed).digest


def test_more_images_than_the_poorest_class_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"class 0 of digits/validation has only 4\d images"):
        select_subset(open_dataset("digits"), images_per_class=46)


def test_a_single_class_is_refused() -> None:
    images = photographs(4)
    with pytest.raises(InputError, match="at least two"):
        select_subset(ImageArray(images.name, images.names, images.labels * 0, images.pixels))


def test_a_class_of_one_image_is_left_out_named_and_counted() -> None:
    images = photographs(6)
    stray = replace(images, labels=np.array([0, 1, 0, 1, 7, 1]), classes=tuple("abcdefgh"))
    subset = select_subset(stray)
    assert subset.images.names == ("p0", "p2", "p1", "p3", "p5")
    assert subset.digest == select_subset(stray.take(np.array([0, 1, 2, 3, 5]))).digest
    balance = "6 found = 5 images used + 1 left out: 1 alone in a class (p4 of class h)"
    assert subset.account.balance(5) == balance
    assert not subset.account.is_all_by_choice
    assert len(select_subset(stray, images_per_class=2).labels) == 4, "before images are drawn"
    assert select_subset(stray, classes=[0, 1]).account.is_all_by_choice


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 2, 3]])
def test_classes_of_one_image_are_kept_and_warned_about_where_no_two_others_are_left(
    labels: list[int], info_log: pytest.LogCaptureFixture
) -> None:
    subset = select_subset(replace(photographs(4), labels=np.array(labels)))
    assert len(subset.labels) == 4
    assert subset.account.left_out == ()
    log_images(subset)
    assert "classes have one image, so no accuracy can be computed" in info_log.text
    assert [stage.sample for stage in stages_of(subset)] == [None], (
        "and a search does not refuse them"
    )


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_a_view_has_the_pixels_of_timms_transform_before_normalisation(
    tmp_path: Path, crop_mode: str, interpolation: str, crop_pct: float
) -> None:
    images = photographs()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing.model_validate(
        {
            "crop_pct": crop_pct,
            "crop_mode": crop_mode,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
        }
    )
    subset = subset_of(images, [2, 0])
    view = open_view(make_view(tmp_path / "v" / "view.npy", subset, 40, preprocessing))[:]
    assert view.shape == (2, 40, 40, 3)
    assert view.dtype == np.uint8
    transform = create_transform(
        40,
        is_training=False,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    for row, number in enumerate((2, 0)):
        expected = transform(images.image(number)).numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(
            (view[row] / 255 - np.array(mean)) / np.array(std), expected, atol=1e-6
        )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_views_of_photographs_of_any_shape_are_timms_to_the_last_bit(interpolation: str) -> None:
    rng = np.random.default_rng(0)
    shapes = (
        (500, 375),
        (375, 500),
        (333, 333),
        (900, 91),
        (91, 163),
        (90, 170),
        (97, 1201),
        (30, 20),
    )
    for width, height in shapes:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for size, crop_pct in (
            (224, 0.875),
            (224, 0.95),
            (160, 1.0),
            (384, 0.9),
            (8, 0.5),
            (40, 1.2),
        ):
            transform = create_transform(
                size,
                is_training=False,
                use_prefetcher=True,
                interpolation=interpolation,
                crop_pct=crop_pct,
            )
            crop = timm_crop(
                size,
                Preprocessing(
                    crop_pct=crop_pct, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1)
                ),
            )
            expected = np.asarray(transform(image)).transpose(1, 2, 0)
            np.testing.assert_array_equal(crop(image, 0), expected)


def test_a_view_is_made_once_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    images = photographs()
    preprocessing = Preprocessing(crop_pct=1, mean=(0, 0, 0), std=(1, 1, 1))
    path = make_view(tmp_path / "view.npy", subset_of(images, [0]), 16, preprocessing)
    made = path.stat().st_mtime_ns
    assert make_view(path, subset_of(images, [0]), 16, preprocessing) == path
    assert path.stat().st_mtime_ns == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["view.npy", "view.npy.json"]


def test_models_share_a_view_when_only_mean_and_std_differ(tmp_path: Path) -> None:
    one = Preprocessing(crop_pct=0.9, mean=(0, 0, 0), std=(1, 1, 1))
    assert view_path(tmp_path, "s", 32, one) == view_path(
        tmp_path, "s", 32, one.model_copy(update={"mean": (1, 1, 1)})
    )
    others = {
        view_path(tmp_path, "s", 32, one),
        view_path(tmp_path, "r", 32, one),
        view_path(tmp_path, "s", 33, one),
        view_path(tmp_path, "s", 32, one.model_copy(update={"crop_pct": 0.8})),
        view_path(tmp_path, "s", 32, one.model_copy(update={"crop_mode": "squash"})),
        view_path(tmp_path, "s", 32, one.model_copy(update={"interpolation": "bilinear"})),
    }
    assert len(others) == 6


def test_inputs_become_vectors_between_0_and_1() -> None:
    vectors = input_vector(photographs().image(0))
    assert vectors.shape == (64 * 64 * 3,)
    assert vectors.dtype == np.float32
    assert vectors.min() >= 0
    assert 0.5 < vectors.max() <= 1


def paper() -> Preprocessing:
    return Preprocessing(crop_pct=1, crop_mode="paper", mean=(0, 0, 0), std=(1, 1, 1))


def test_random_crops_follow_image_seed_and_repeat_alone(tmp_path: Path) -> None:
    images = photographs()
    both = open_view(
        make_view(tmp_path / "a.npy", subset_of(images, [0, 1], repeats=3), 32, paper())
    )[:]
    alone = open_view(
        make_view(tmp_path / "b.npy", subset_of(images, [1], repeats=3), 32, paper())
    )[:]
    other = open_view(
        make_view(tmp_path / "c.npy", subset_of(images, [1], repeats=3, seed=1), 32, paper())
    )[:]
    assert both.shape == (6, 32, 32, 3)
    np.testing.assert_array_equal(both[3:], alone)
    assert (alone != other).any()
    assert (alone[0] != alone[1]).any()


def test_random_crops_are_those_of_the_papers_transform(tmp_path: Path) -> None:
    images = photographs()
    subset = subset_of(images, [2], repeats=2)
    view = open_view(make_view(tmp_path / "a.npy", subset, 32, paper()))[:]
    bicubic = transforms.InterpolationMode.BICUBIC
    for repeat in range(2):
        torch.manual_seed(subset.crop_seed(0, repeat))
        resized = transforms.Resize(32, interpolation=bicubic)(images.image(2))
        expected = transforms.RandomResizedCrop(32, scale=(0.6, 1.6), interpolation=bicubic)(
            resized
        )
        np.testing.assert_array_equal(view[repeat], np.asarray(expected))


def test_the_papers_inputs_are_the_normalised_crops_shrunk_to_the_nearest_pixel() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (4, 100, 100, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.from_numpy(view).permute(0, 3, 1, 2).float() / 255
    normalised = transforms.Normalize(mean, std)(pixels)
    expected = torch.nn.functional.interpolate(normalised, size=(64, 64), mode="nearest").flatten(1)
    np.testing.assert_allclose(view_vectors(view, mean, std), expected.numpy(), atol=1e-5)


def make_in_a_process(path: Path) -> int:
    images = photographs()
    made = make_view(
        path,
        subset_of(images, [0, 1, 2] * 40),
        224,
        Preprocessing(crop_pct=1, mean=(0,) * 3, std=(1,) * 3),
    )
    return made.stat().st_ino


def test_processes_that_want_a_view_at_the_same_moment_share_one(
    server: None, tmp_path: Path
) -> None:
    with process_pool(3, MODELS) as pool:
        inodes = set(pool.map(make_in_a_process, [tmp_path / "view.npy"] * 3))
    assert len(inodes) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["view.npy", "view.npy.json"]


def test_the_oldest_unneeded_views_make_room(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    paths = [tmp_path / "views" / f"{name}.npy" for name in "abcd"]
    for age, path in enumerate(paths):
        path.write_bytes(b"\0" * 1000)
        os.utime(path, (1000 + age, 1000 + age))
    assert drop_oldest_views(tmp_path, 2500e-9, {paths[0]}) == [paths[1], paths[2]]
    assert drop_oldest_views(tmp_path, 2500e-9, set()) == []


def test_rows_of_a_view_on_disk_are_read_as_an_array_gives_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "view.npy", pixels)
    view = open_stored(tmp_path / "view.npy")
    assert (len(view), view.shape) == (7, (7, 5, 5, 3))
    for rows in (
        slice(None),
        slice(2, 5),
        slice(5, 100),
        slice(7, 9),
        slice(-2, None),
        slice(0, 7, 3),
    ):
        np.testing.assert_array_equal(view[rows], pixels[rows])
