"""Folders that are classes, and folders that only look like them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.layout import _split_of
from dsmi_zoo.data_catalog.datasets.registry import dataset_in
from dsmi_zoo.pipeline.config.run import SubsetSettings
from dsmi_zoo.pipeline.plan.subset import open_subset


def tree(root: Path, *folders: str) -> Path:
    """Make folders with two images each."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            Image.new("RGB", (4, 4), (len(folder), number, 0)).save(root / folder / f"{number}.png")
    return root


def each(outer: str, inner: str) -> list[str]:
    return [f"{a}/{b}" for a in outer.split() for b in inner.split()]


@pytest.mark.parametrize(
    ("outer", "inner", "said"),
    [
        (
            "Train Test",
            "cat dog",
            "Test, Train look like splits, not classes; pass one, as .*/Test",
        ),
        ("seg_train seg_test", "cat dog", "splits, not classes; pass one, as .*/seg_test"),
        ("train dev", "cat dog", "dev, train look like splits"),
        ("train test extra", "cat dog", "test, train look like splits, not classes"),
        ("train_images validation_images", "cat dog", "splits.* as .*/validation_images"),
        ("train2017 val2017", "cat dog", "splits.* as .*/val2017"),
        ("Training Testing", "glioma tumor", "splits"),
        ("trainA trainB testA testB", "x y", "splits"),
        ("train_1 train_2", "cat dog", "splits"),
        ("train hold-out", "cat dog", "splits.* as .*/hold-out"),
        ("labeled_train unlabeled_train", "cat dog", "groups of the same|splits"),
        ("2019 2020", "cat dog", r"groups of the same classes \(cat, dog\), not .* as .*/2020"),
        ("fold1 fold2 fold3", "a b c", "groups of the same classes"),
        ("left right", "0 1 2", "groups of the same classes"),
        ("chair table", "test train", "folders of the splits test, train, not classes"),
        ("photos", "cat dog", "photos looks like a folder around the classes.*pass .*/photos"),
        ("train", "cat dog", "pass .*/train"),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_the_one_to_pass(
    tmp_path: Path, outer: str, inner: str, said: str
) -> None:
    with pytest.raises(InputError, match=f"{said}.*; --dataset imagefolder takes") as refused:
        dataset_in(tree(tmp_path, *each(outer, inner)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("train test1", "test1, train look like splits"),
        ("photos/photos/cat photos/photos/dog", "pass .*/photos/photos;"),
        ("train/cat train/dog extra", "train looks like a split, not a class"),
        ("images labels", "put the images into one folder for each class"),
        ("images/train images/val labels/train", "put the images into one folder"),
        ("images/cat images/dog annotations", "images and their marks.*pass .*/images;"),
        ("JPEGImages Annotations", "images and their marks"),
        (
            "sick/images sick/masks well/images well/masks",
            "sick, well look like folders of images and their marks",
        ),
    ],
)
def test_other_layouts_are_refused_in_one_line(tmp_path: Path, folders: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        dataset_in(tree(tmp_path, *folders.split()))


@pytest.mark.parametrize(
    "folders",
    [
        "train bus car",
        "test control",
        "valid invalid",
        "bullet_train train_station bus",
        "test_tube train_station",
        "positive_test negative_test",
        "cat/2019 cat/2020 dog/2021 dog/2022",
        "cat/indoor cat/outdoor dog owl newt",
        "train/steam train/diesel car/sedan car/suv",
        "images other",
        "labels newspapers",
        "contest latest",
    ],
)
def test_classes_that_are_called_like_splits_are_classes(tmp_path: Path, folders: str) -> None:
    assert dataset_in(tree(tmp_path, *folders.split())) == "imagefolder"


def test_a_flat_folder_of_images_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds images, but neither a folder of images for each"):
        dataset_in(tree(tmp_path, "."))


def test_outer_folders_that_are_named_as_classes_are_said_to_be(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", *each("2019 2020", "cat dog"))
    settings = SubsetSettings(dataset="imagefolder", data_root=root, keep_copies=True)
    subset = open_subset(settings, 1, tmp_path)
    assert list(subset.images.class_names.values()) == ["2019", "2020"]
    assert [str(reading) for reading in subset.account.readings] == [
        "2019, 2020 taken as classes, not as groups of the same classes (cat, dog); --data-root decides"
    ]


def readings(root: Path, cache: Path) -> list[str]:
    settings = SubsetSettings(dataset="imagefolder", data_root=root, keep_copies=True)
    return [str(reading) for reading in open_subset(settings, 1, cache).account.readings]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("a/bar a/bath b/cafe b/dam", "a, b taken as classes, not the 4 folders inside (a/bar, a/bath, b/cafe, b/dam)"),
        ("cat dog/pug dog/poodle", "dog taken as a class, not the 2 folders inside (dog/poodle, dog/pug)"),
        ("cat cat/old dog", "cat taken as a class, not the 1 folder inside (cat/old)"),
    ],
)  # fmt: skip
def test_folders_inside_the_classes_are_said_not_to_be_classes(
    tmp_path: Path, folders: str, said: str
) -> None:
    assert readings(tree(tmp_path / "set", *folders.split()), tmp_path) == [
        f"{said}; labels.csv decides"
    ]


def test_one_folder_in_each_class_says_nothing(tmp_path: Path) -> None:
    assert readings(tree(tmp_path / "set", "cat/images", "dog/images", "owl"), tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["0_mask", "0_Mask_1", "0-segmentation", "0 gt", "0.copy", "0_flip", "0_aug3", "0_thumb"],
)
def test_masks_and_edited_copies_of_another_image_are_named(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "set", "sick", "well")
    Image.new("L", (4, 4)).save(root / "sick" / f"{name}.png")
    [reading] = readings(root, tmp_path)
    assert reading == (
        f"1 image named as the mask or a copy of another (sick/{name}.png) used as images, not left out; "
        "moving them decides"
    )


@pytest.mark.parametrize("name", ["9_mask", "mask", "0_cat", "0mask", "well_mask"])
def test_other_names_are_those_of_images(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "set", "sick", "well")
    Image.new("L", (4, 4)).save(root / "sick" / f"{name}.png")
    assert readings(root, tmp_path) == []


def test_a_table_of_another_name_is_pointed_to(tmp_path: Path) -> None:
    root = tree(tmp_path, ".")
    (root / "metadata.csv").write_text("file_name,label\n")
    with pytest.raises(InputError, match=r"name 'metadata\.csv' so, if it is that table"):
        dataset_in(root)


SPLIT = st.sampled_from(
    ["train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing", "holdout"]
)
AFFIX = st.sampled_from(
    ["{}", "seg_{}", "{}_images", "my-{}", "{}_1", "{}2017", "{} set", "{}data"]
)
CASE = st.sampled_from([str.lower, str.upper, str.title])


@given(SPLIT, SPLIT, AFFIX, CASE)
def test_any_two_splits_of_one_form_are_seen_as_splits(
    one: str, other: str, affix: str, case: Callable[[str], str]
) -> None:
    first, second = (_split_of(case(affix.format(split))) for split in (one, other))
    assert first is not None
    assert second is not None
    assert first[1] == second[1]
