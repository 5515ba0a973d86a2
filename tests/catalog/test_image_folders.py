"""Arbitrary image folders and tables of labels: listed correctly or refused in one line."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_input import ODD_TEXT, answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmi_zoo._util.text import is_printable
from dsmi_zoo.data_catalog.datasets.folders import Listing, list_class_folders
from dsmi_zoo.data_catalog.datasets.imagenet import KAGGLE_TABLE, open_imagenet, synsets
from dsmi_zoo.data_catalog.datasets.labels_file import list_labels_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two images without a table of labels."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def labelled(folder: Path, content: str | bytes) -> Path:
    table = folder / "labels.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    return table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.png,1\n./a.png,2\n", "line 3: './a.png' is already in line 2"),
        ("image,label\na.png,caf\xe9\n".encode("latin-1"), "a table in UTF-8: other bytes are in it"),
        ("image,label\na.png,1\nb\0.png,2\n", "line 3: 'image' = 'b\\x00.png' holds a control character"),
        ("image,label\na.png,\x1b[31mred\n", "line 2: 'label' = '\\x1b[31mred' holds a control character"),
        ("image,label\na.png," + "x" * 100_000, "line 2: 'label' has 100,000 characters"),
        ("image,label\na.png," + "x" * 200_000, "after line 1: cannot be read as labels of images"),
        ("image,label\na.png,1\nb.png\n", "line 3: an image or its label is missing"),
        ("image,label\na.png,cat, black\n", "line 2: has 3 cells, and the header 2; put quotes around text"),
        ("image,label,label\na.png,1,2\n", "line 1: 2 columns are named 'label'"),
        ("image,label\n" + "x" * 5000 + ",1\n", "line 2: 'xxx"),
        ("image,label\nloop.png,1\n", "line 2: 'loop.png' "),
        ("image,label\n.,1\n", "line 2: '.' is not a file"),
        ("image,label\n/dev/zero,1\n", "line 2: '/dev/zero' is not a file"),
        ("image,label\n../../x,1\n", "line 2: '../../x' is not a file"),
        ('image,label\n"a.png,1\n', "cannot be read as labels of images"),
        ("", "needs the columns image,label"),
        (b"\0" * 300_000, "cannot be read as labels of images"),
    ],
    ids=range(17),
)  # fmt: skip
def test_a_wrong_table_is_refused_with_its_line(
    folder: Path, content: str | bytes, message: str
) -> None:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    table = labelled(folder, content)
    assert message in refusal(lambda: list_labels_file(folder), table)


def test_a_byte_order_mark_is_skipped(folder: Path) -> None:
    labelled(folder, b"\xef\xbb\xbfimage,label\r\na.png,caf\xc3\xa9\r\nb.png,x\r\n")
    names, labels, classes = list_labels_file(folder)
    assert (names, labels.tolist(), classes) == (("a.png", "b.png"), [0, 1], ["café", "x"])


def test_labels_of_thousands_of_digits_are_sorted_by_their_value(folder: Path) -> None:
    small, large = "9" * 5000, "1" + "0" * 5000
    labelled(folder, f"image,label\na.png,{large}\nb.png,{small}\n")
    assert list_labels_file(folder).class_names == [small, large]


SPELLINGS = st.fixed_dictionaries(
    {
        "separator": st.sampled_from([",", ";", "\t"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        "header": st.sampled_from(["image,label", "Image,Label", "IMAGE,LABEL,note"]),
        "line_end": st.sampled_from(["\n", "\r\n"]),
        "backslashes": st.booleans(),
        "suffixes": st.booleans(),
        "absolute": st.booleans(),
    }
)


@given(SPELLINGS)
def test_a_table_is_read_alike_however_it_is_spelled(
    tmp_path_factory: pytest.TempPathFactory, spelling: dict[str, Any]
) -> None:
    root = tmp_path_factory.mktemp("labelled")
    labels = {"images/a 1.png": "cat", "images/b;2.png": "dog", "c.png": "cat"}
    lines = [spelling["header"].replace(",", spelling["separator"])]
    for name, label in labels.items():
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
        cell = str(root / name) if spelling["absolute"] else name
        cell = cell if spelling["suffixes"] else cell.removesuffix(".png")
        cell = cell.replace("/", "\\") if spelling["backslashes"] else cell
        lines.append(f'"{cell}"{spelling["separator"]}{label}')
    text = spelling["line_end"].join(lines)
    if spelling["absolute"] and (spelling["backslashes"] or not spelling["suffixes"]):
        return  # such absolute paths belong to another machine
    (root / "labels.csv").write_bytes(text.encode(spelling["encoding"]))
    names, numbers, classes = list_labels_file(root)
    assert (names, numbers.tolist(), classes) == (tuple(labels), [0, 1, 0], ["cat", "dog"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("filename,label\na.png,1\n", "it has filename,label: rename 'filename' to image"),
        ("image,class\na.png,1\n", "it has image,class: rename 'class' to label"),
        ("a.png,1\nb.png,2\n", "it has a.png,1: put the line image,label first"),
        ("image label\na.png 1\n", "it has image label: separate its cells with commas"),
        ("# my labels\nimage,label\na.png,1\n", "needs the columns image,label in its first line; it has # my labels"),
        ("image,label\n7,1\n", "line 2: '7' is not a file: did you mean '007.png'?"),
        ("image,label\nA.PNG,1\n", "line 2: 'A.PNG' is not a file: did you mean 'a.png'?"),
        ("image,label\nphotos/a.png,1\n", "line 2: 'photos/a.png' is not a file: did you mean 'a.png'? Paths begin"),
        ("image,label\nc,1\n", "line 2: 'c' may be 'c.jpg' and 'c.png': add the suffix"),
        ("image,label\na.png,1\nx/../a.png,2\n", "line 3: 'x/../a.png' is already in line 2"),
        ("image,label\na.png,nan\nb.png,2\n", "line 2: the label 'nan' stands for a missing value"),
        ("image,label\na.png,01\nb.png,1.0\n", "the labels '01' and '1.0' are one number"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_table_that_needs_a_change_is_refused_with_that_change(
    folder: Path, content: str, message: str
) -> None:
    (folder / "x").mkdir()
    for name in ("c.png", "c.jpg", "007.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    assert message in refusal(lambda: list_labels_file(folder), labelled(folder, content))


def test_classes_that_look_alike_and_rows_of_several_splits_are_named(folder: Path) -> None:
    labelled(folder, "image,label,split\na.png,cat,train\nb.png,Cat,test\n")
    listing = list_labels_file(folder)
    assert listing.class_names == ["Cat", "cat"]
    assert [str(reading) for reading in listing.account.readings] == [
        "all rows of labels.csv are used, whatever their 'split' ('test', 'train'), not those of one value; "
        "removing the others from the table decides",
        "'Cat', 'cat' are 2 classes, not one whose name is written in several ways; renaming them decides",
    ]


JOINED = "taken as another class, not as each of them; one label per image decides"
MISSING = "is a class, not a missing value; removing its rows or renaming it decides"


@bounded(60)
@given(
    st.lists(st.sampled_from(["cat", "dog", "owl"]), min_size=2, max_size=3, unique=True),
    st.sampled_from(["|", ";", " ", ", ", "/", " + ", "&"]),
    st.sampled_from(["{}", "[{}]", "'{}'"]),
)
def test_a_label_of_several_classes_is_said_to_be_one_more(
    tmp_path: Path, parts: list[str], between: str, around: str
) -> None:
    joined = around.format(between.join(parts))
    rows = [f'{number}.png,"{label}"' for number, label in enumerate([joined, "cat", "dog", "owl"])]
    for number in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    labelled(tmp_path, "\n".join(["image,label", *rows]))
    [reading] = list_labels_file(tmp_path).account.readings
    assert str(reading) == f"1 label of several classes ({joined!r}) {JOINED}"


@pytest.mark.parametrize("label", ["polar bear", "cat-like", "cat_dog", "U.S.A."])
def test_a_label_of_several_words_is_one_class(folder: Path, label: str) -> None:
    labelled(folder, f"image,label\na.png,{label}\nb.png,cat\n")
    assert list_labels_file(folder).account.readings == ()


@pytest.mark.parametrize("label", ["NA", "None", "null", "?"])
def test_a_label_that_may_mean_a_missing_value_is_named(folder: Path, label: str) -> None:
    labelled(folder, f"image,label\na.png,{label}\nb.png,cat\n")
    [reading] = list_labels_file(folder).account.readings
    assert str(reading) == f"the label {label!r} {MISSING}"


@pytest.mark.parametrize(
    ("labels", "is_named"), [("0.13 2", True), ("0.0 1.0", False), ("v1.5 2", False)]
)
def test_labels_that_are_measured_values_are_said_to_be_classes(
    folder: Path, labels: str, is_named: bool
) -> None:
    rows = [
        f"{name},{label}" for name, label in zip(("a.png", "b.png"), labels.split(), strict=True)
    ]
    labelled(folder, "\n".join(["image,label", *rows]))
    said = [str(reading) for reading in list_labels_file(folder).account.readings]
    value = "2 numbers (0.13, 2, ...) taken as classes, not as values to predict; writing labels as words decides"
    assert said == [value] * is_named


def test_labels_that_contradict_the_folders_are_named(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    labelled(tmp_path, "image,label\ncat/a.png,dog\ndog/b.png,cat\n")
    [reading] = list_labels_file(tmp_path).account.readings
    assert str(reading) == (
        "the classes are the labels in labels.csv, not the names of the folders, which differ for 2 images, such as "
        "'cat/a.png'; --dataset (csv or imagefolder) decides"
    )
    labelled(tmp_path, "image,label\ncat/a.png,cat\ndog/b.png,dog\n")
    assert list_labels_file(tmp_path).account.readings == ()


ODD_NAMES = [b"caf\xe9", b"a\x1b[31mb", b"a\nb", "a\u202eb".encode(), b"\x7f"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
@pytest.mark.parametrize("of", ["class", "image"])
def test_an_unprintable_name_is_refused_and_shown_escaped(
    tmp_path: Path, of: str, name: bytes
) -> None:
    root = tmp_path / "set"
    odd = os.fsdecode(name)
    for place in (("good", "a.png"), (odd, "a.png") if of == "class" else ("good", f"{odd}.png")):
        (root / place[0]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / place[0] / place[1])
    line = refusal(lambda: list_class_folders(root), root)
    assert "rename it" in line
    assert ascii(odd)[1:-1] in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ImageId,PredictionString\na,\0\n", "line 2: 'PredictionString' = '\\x00' holds a control"),
        ("ImageId,PredictionString\na,\n", "line 2: '' is not an ImageNet synset"),
        ("ImageId\na\n", "needs the columns ImageId,PredictionString"),
        ("ImageId,PredictionString\na," + "n0" * 9000 + "\n", "line 2: 'PredictionString' has 18,000 characters"),
        ("\xff", "needs the columns"),
    ],
    ids=range(5),
)  # fmt: skip
def test_a_wrong_kaggle_table_is_refused_with_its_line(
    folder: Path, content: str, message: str
) -> None:
    table = folder / KAGGLE_TABLE
    table.write_text(content, encoding="utf-8")
    assert message in refusal(lambda: open_imagenet(folder), table)


def test_an_image_listed_twice_in_kaggles_table_counts_once(folder: Path) -> None:
    rows = [
        f"{image},{synsets()[label]} 1 2 3 4" for image, label in (("a", 0), ("b", 1), ("a", 1))
    ]
    (folder / KAGGLE_TABLE).write_text("\n".join(["ImageId,PredictionString", *rows]))
    assert open_imagenet(folder).names == ("a.png", "b.png")


CELLS = (
    st.sampled_from(["a.png", "b.png", "./a.png", "x/../a.png"]) | ODD_TEXT | st.text(max_size=8)
)
TABLES = st.lists(st.lists(CELLS, min_size=1, max_size=3).map(",".join), max_size=4).map("\n".join).map(
    lambda rows: f"image,label\n{rows}".encode("utf-8", "replace")
)  # fmt: skip


@bounded(250)
@given(TABLES | st.binary(max_size=200))
def test_any_table_of_labels_is_listed_or_refused_in_one_line(folder: Path, content: bytes) -> None:
    labelled(folder, content)
    listing, _ = answer_or_refusal(lambda: list_labels_file(folder), folder)
    if listing is not None:
        assert_listed(listing, folder)


def assert_listed(listing: Listing, folder: Path) -> None:
    names, labels, classes = listing
    assert len(names) == len(labels) == len(set(names))
    assert all((folder / name).is_file() for name in names)
    assert labels.dtype == np.int64
    assert sorted(set(labels.tolist())) == list(range(len(classes)))
    assert all(is_printable(name) and name for name in (*names, *classes))
