"""Image folders: their classes are found, images are decoded correctly, and bad files are named."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.folders import ImageFiles, read_image, unreadable
from dsmi_zoo.data_catalog.datasets.imagenet import IMAGENETTE, IMAGEWOOF, PRESETS, synsets
from dsmi_zoo.data_catalog.datasets.registry import dataset_in, open_dataset
from dsmi_zoo.data_catalog.datasets.subset import Subset, select_subset
from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.config.run import SubsetSettings, resolve_config
from dsmi_zoo.pipeline.embedding.views import make_view
from dsmi_zoo.pipeline.plan.subset import CHECKED, class_numbers, open_subset


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for label, name in enumerate(["cat", "dog", "owl"]):
        for number in range(3 + label):
            picture(tmp_path / "set" / name / f"{number}.png", 10 * label + number)
    return tmp_path / "set"


def synset_folder(root: Path, classes: tuple[int, ...] = (217, 0), training: bool = False) -> Path:
    for label in classes:
        for number in range(2):
            name = (
                f"{synsets()[label]}_{number}.png"
                if training
                else f"ILSVRC2012_val_{label}{number}.png"
            )
            picture(root / synsets()[label] / name, 2 * label + number)
    return root


def test_the_data_set_in_a_folder_is_recognised(folders: Path, tmp_path: Path) -> None:
    assert dataset_in(folders) == "imagefolder"
    (folders / "labels.csv").write_text("image,label\ncat/0.png,1\n")
    assert dataset_in(folders) == "csv"
    assert dataset_in(synset_folder(tmp_path / "some")) == "imagenet"
    assert dataset_in(synset_folder(tmp_path / "whole" / "val").parent) == "imagenet"
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    assert dataset_in(tmp_path / "kaggle") == "imagenet"
    (tmp_path / "published" / "MNIST" / "raw").mkdir(parents=True)
    assert dataset_in(tmp_path / "published") == "mnist"


def test_an_unknown_kind_of_folder_is_refused_with_the_known_ones(
    folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        dataset_in(tmp_path / "nowhere")
    with pytest.raises(
        InputError, match=r"neither a folder of images for each class nor a labels.csv .*--dataset"
    ):
        dataset_in(folders / "cat")
    for split in ("train", "val"):
        (tmp_path / "splits" / split / "cat").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"train, val look like splits, not classes; pass one, as .*splits/val"
    ):
        dataset_in(tmp_path / "splits")


def test_the_users_images_take_precedence_over_the_default_digits(
    folders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dsmi_zoo")
    mine = {"catalog": "imagenet-2025", "subset": {"data_root": str(folders)}}
    assert resolve_config(mine).subset.dataset == "imagefolder"
    assert f"reading {folders} as the data set imagefolder (detected)" in caplog.text
    given = {"catalog": "digits", "subset": {"data_root": str(folders)}}
    assert resolve_config(given).subset.dataset == "imagefolder"
    with pytest.raises(InputError, match="--data-root does not apply to the data set digits"):
        resolve_config({"subset": {"data_root": str(folders), "dataset": "digits"}})
    fashion = resolve_config({"catalog": "fashion", "subset": {"data_root": str(folders)}})
    assert fashion.subset.dataset == "fashion"


def test_own_images_without_a_catalogue_are_refused_with_the_search_that_is_meant(
    folders: Path, tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    search = "dsmi-zoo run --catalog imagenet-2025 --data-root set --out runs/set --budget 1h"
    for more in ("", " --dataset imagefolder", " --budget 1h --plan"):
        line = refused(f"run --data-root set{more}", tmp_path)
        assert "--data-root set needs --catalog, the models to compare" in line
        assert search in line
        assert line.count("\n") == 1
    with pytest.raises(InputError) as found:
        dsmi_zoo.run(data_root=folders, out=tmp_path / "out")
    assert f"dsmi_zoo.run(\"imagenet-2025\", data_root='{folders}'" in str(found.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    (tmp_path / "run.toml").write_text('catalog = "digits"\n[subset]\ndata_root = "set"\n')
    assert resolve_config({}, tmp_path / "run.toml").catalog == "digits"


def test_class_folders_are_classes_in_the_order_of_their_names(folders: Path) -> None:
    images = open_dataset("imagefolder", folders)
    assert images.names[:4] == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png")
    assert np.bincount(images.labels).tolist() == [3, 4, 5]
    assert images.class_names == {0: "cat", 1: "dog", 2: "owl"}
    assert images.image(0).size == (20, 30)


@pytest.mark.parametrize(
    "layout", ["root with val", "synset folders", "kaggle flat", "kaggle whole"]
)
def test_imagenet_is_read_in_each_layout_with_class_indices_as_labels(
    tmp_path: Path, layout: str
) -> None:
    root = tmp_path / "imagenet"
    if layout == "root with val":
        synset_folder(root / "val")
    elif layout == "synset folders":
        synset_folder(root)
    else:
        folder = (
            root / "val"
            if layout == "kaggle flat"
            else root / "ILSVRC" / "Data" / "CLS-LOC" / "val"
        )
        with (root.mkdir(), (root / "LOC_val_solution.csv").open("w", newline=""))[1] as file:
            table = csv.writer(file)
            table.writerow(["ImageId", "PredictionString"])
            for number, label in enumerate([217, 0, 217, 0]):
                name = f"ILSVRC2012_val_{number:08d}"
                picture(folder / f"{name}.JPEG", number)
                table.writerow([name, f"{synsets()[label]} 1 2 3 4 {synsets()[label]} 5 6 7 8"])
    images = open_dataset("imagenet", root)
    assert sorted(images.labels.tolist()) == [0, 0, 217, 217]
    assert images.classifier_width == 1000
    assert images.class_names == {0: "n01440764", 217: "n02102040"}
    assert images.image(0).mode == "RGB"


def test_imagenet_training_images_are_refused_with_counts_unless_they_are_allowed(
    tmp_path: Path,
) -> None:
    root = synset_folder(tmp_path / "in", training=True)
    with pytest.raises(
        InputError, match=r"4 of 4 files are ImageNet training images.*n0\d+_0\.png"
    ):
        open_dataset("imagenet", root)
    assert "training" in open_dataset("imagenet", root, allow_train_images=True).name


def test_a_folder_that_is_not_a_synset_is_named(folders: Path) -> None:
    with pytest.raises(InputError, match=r"'cat' is not an ImageNet synset.*--dataset imagefolder"):
        open_dataset("imagenet", folders)


def test_a_table_of_labels_gives_classes_to_a_flat_folder(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.jpg", number)
    (tmp_path / "labels.csv").write_text("image,label\n0.jpg,10\n1.jpg,9\n2.jpg,10\n3.jpg,9\n")
    images = open_dataset("csv", tmp_path)
    assert images.class_names == {0: "9", 1: "10"}
    assert images.labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\n0.jpg,1\n", "image,label"),
        ("image,label\n0.jpg,\n", "line 2: an image or its label is missing"),
        ("image,label\n0.jpg,1\ngone.jpg,1\n", "line 3: 'gone.jpg' is not a file"),
        ("image,label\n0.jpg,1\n0.jpg,2\n", "line 3: '0.jpg' is already in line 2"),
        ("image,label\n../0.jpg,1\n", "line 2: '../0.jpg' lies outside"),
    ],
)
def test_a_wrong_table_of_labels_is_refused_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    folder = picture(tmp_path / "set" / "0.jpg").parent
    picture(tmp_path / "0.jpg")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        open_dataset("csv", folder)


def test_a_missing_folder_class_or_table_is_named(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(InputError, match="imagefolder needs --data-root"):
        open_dataset("imagefolder")
    with pytest.raises(InputError, match="gone is not a folder"):
        open_dataset("imagefolder", tmp_path / "gone")
    (folders / "newt").mkdir()
    with pytest.raises(InputError, match="1 of 4 class folders hold no image: newt"):
        open_dataset("imagefolder", folders)
    with pytest.raises(InputError, match=r"holds no labels\.csv"):
        open_dataset("csv", folders)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGBA"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    image = read_image(path)
    assert image.mode == "RGB"
    with Image.open(path) as opened:
        difference = np.asarray(image).astype(int) - np.asarray(opened.convert("RGB"))
    assert abs(difference).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png"))[..., 0].ravel().tolist() == list(range(256))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[255] * 3] * 4] * 4


def test_an_image_that_exif_calls_rotated_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (20, 10)


def damaged(folders: Path) -> list[Path]:
    whole = (folders / "dog" / "0.png").read_bytes()
    (folders / "dog" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folders / "dog" / "1.png").write_bytes(b"")
    (folders / "owl" / "2.png").write_text("no image")
    return [folders / "dog" / "0.png", folders / "dog" / "1.png", folders / "owl" / "2.png"]


def test_truncated_empty_and_foreign_files_are_named(folders: Path) -> None:
    paths = damaged(folders)
    assert set(unreadable([*paths, folders / "cat" / "0.png"])) == {0, 1, 2}
    for path in paths:
        with pytest.raises(InputError) as caught:
            read_image(path)
        assert str(path) in str(caught.value)


def prepare_first_view(subset: Subset, folder: Path) -> Path:
    preprocessing = Preprocessing(crop_pct=1, mean=(0, 0, 0), std=(1, 1, 1))
    return make_view(folder / "view.npy", subset, 16, preprocessing, threads=2)


def test_a_bad_image_stops_the_run_before_it_starts_or_is_skipped(
    folders: Path, tmp_path: Path
) -> None:
    damaged(folders)
    settings = SubsetSettings(dataset="imagefolder", data_root=folders)
    with pytest.raises(InputError, match=r"dog/0\.png: .*--skip-bad-images"):
        prepare_first_view(open_subset(settings, 1, tmp_path), tmp_path)
    subset = open_subset(settings.model_copy(update={"skip_bad_images": True}), 1, tmp_path)
    assert np.bincount(subset.labels).tolist() == [3, 2, 4]
    with pytest.raises(InputError, match=r"class dog .* has only 2 images, not 3"):
        open_subset(
            settings.model_copy(update={"skip_bad_images": True, "images_per_class": 3}),
            1,
            tmp_path,
        )


def test_a_subset_without_bad_images_is_not_decoded_again(folders: Path, tmp_path: Path) -> None:
    settings = SubsetSettings(dataset="imagefolder", data_root=folders, skip_bad_images=True)
    subset = open_subset(settings, 1, tmp_path)
    assert (tmp_path / CHECKED / subset.digest).exists()
    assert open_subset(settings, 1, tmp_path).digest == subset.digest


def test_classes_are_chosen_by_name_number_or_preset(folders: Path, tmp_path: Path) -> None:
    settings = SubsetSettings(dataset="imagefolder", data_root=folders)
    chosen = open_subset(settings.model_copy(update={"classes": "owl, 0"}), 1, tmp_path)
    assert np.unique(chosen.labels).tolist() == [0, 2]
    with pytest.raises(InputError, match="has no class 'newt'"):
        open_subset(settings.model_copy(update={"classes": "cat,newt"}), 1, tmp_path)
    with pytest.raises(InputError, match="names ImageNet classes"):
        open_subset(settings.model_copy(update={"classes": "imagenette"}), 1, tmp_path)
    root = synset_folder(tmp_path / "in", classes=(*IMAGENETTE, 1, 2))
    nette = SubsetSettings(dataset="imagenet", data_root=root, classes="imagenette")
    assert np.unique(open_subset(nette, 1, tmp_path).labels).tolist() == sorted(IMAGENETTE)
    with pytest.raises(InputError, match="no image of class 155"):
        open_subset(nette.model_copy(update={"classes": "imagenette+imagewoof"}), 1, tmp_path)
    assert len(set(PRESETS["imagenette+imagewoof"])) == 20
    assert not set(IMAGENETTE) & set(IMAGEWOOF)


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        ("1", ["1"]),  # the class named 1, not the second class
        ("dog, brown", ["dog, brown"]),
        ('"dog, brown",owl', ["dog, brown", "owl"]),
        ('"all",1', ["all", "1"]),
        ("0", "has no class '0'"),
        ("brown", "has no class 'brown'"),
        ("dog, brown,owl", r"no class 'dog': did you mean 'dog, brown'\? \(names with a comma need quotes\)"),
        ("all", "all is a class of imagefolder and a choice of several: write"),
        ("red, blue", "'red, blue' is one class and 2 classes: write"),
        ("Owl", r"has no class 'Owl': did you mean 'owl'\?"),
        ('"owl', "a quote is not closed"),
    ],
)  # fmt: skip
def test_classes_are_taken_in_the_one_way_that_they_can_be_read(
    tmp_path: Path, classes: str, chosen: list[str] | str
) -> None:
    for name in ("1", "2", "dog, brown", "owl", "all", "red", "blue", "red, blue"):
        picture(tmp_path / "set" / name / "a.png", 1)
    images = open_dataset("imagefolder", tmp_path / "set")
    if isinstance(chosen, str):
        with pytest.raises(InputError, match=chosen):
            class_numbers(classes, images)
    else:
        labels = class_numbers(classes, images) or ()
        assert [images.class_names[label] for label in labels] == chosen


def test_the_same_files_in_another_folder_are_the_same_subset(
    folders: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    here = select_subset(open_dataset("imagefolder", folders), images_per_class=2)
    folders.rename(moved)
    there = select_subset(ImageFiles("imagefolder", moved, *_listing(moved)), images_per_class=2)
    assert here.digest == there.digest


def _listing(root: Path) -> tuple[tuple[str, ...], np.ndarray, dict[int, str]]:
    images = open_dataset("imagefolder", root)
    order = np.arange(len(images.names))[::-1]
    return tuple(images.names[i] for i in order), images.labels[order], images.class_names
