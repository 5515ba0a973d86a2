"""Folders of images and tables of labels of anybody's making: listed right, or refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_input import ODD_TEXT, answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmi_zoo._util.text import is_printable
from dsmi_zoo.data_catalog.datasets.folders import list_class_folders
from dsmi_zoo.data_catalog.datasets.image_files import Listing
from dsmi_zoo.data_catalog.datasets.imagenet import KAGGLE_TABLE, open_imagenet, synsets
from dsmi_zoo.data_catalog.datasets.labels_file import list_labels_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, without a table."""
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
        ("image,label\na.png,1\nb.png,2\n".encode("utf-16"), "labels.csv: cannot be read as labels of images, a table"),
        ("image,label\na.png,1\n./a.png,2\n", "line 3: './a.png' is already in line 2"),
        ("image,label\na.png,caf\xe9\n".encode("latin-1"), "labels.csv: "),
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
    ids=range(18),
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


def test_labels_of_equal_value_have_the_same_order_in_every_process(folder: Path) -> None:
    for number in range(6):
        Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    labelled(
        folder, "image,label\n" + "".join(f"{number}.png,{'0' * number}1\n" for number in range(6))
    )
    code = (
        "from pathlib import Path; from dsmi_zoo.data_catalog.datasets.labels_file import list_labels_file; "
        f"print(list_labels_file(Path({str(folder)!r})).class_names)"
    )
    said = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1


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
