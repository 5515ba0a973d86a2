"""Catalogue numbers in other units or notations: read if unambiguous, else refused in one line."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.csv_catalog import accuracy_problem, pixel_statistics
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import load_models


def read(folder: Path, header: str, *rows: str) -> list[ModelEntry]:
    path = folder / "mine.csv"
    path.write_text("\n".join([f"model,{header}", *rows]), encoding="utf-8")
    return load_models(path)


def refused(folder: Path, header: str, *rows: str) -> str:
    with pytest.raises(InputError) as refusal:
        read(folder, header, *rows)
    line = str(refusal.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("mean", "123.675 116.28 103.53", "line 2: mean = .*outside 0 to 1.*divide by 255"),
        ("std", "58.395 57.12 57.375", "line 2: std = .*outside 0 to 1.*divide by 255"),
        ("mean", "-0.5 0.5 0.5", "line 2: mean = .*outside 0 to 1"),
        ("crop_pct", "87.5", "line 2: crop_pct = 87.5 .*divide by 100: 0.875"),
    ],
)
def test_preprocessing_in_another_unit_is_refused_with_the_remedy(tmp_path, column, cell, words):
    cells = {"crop_pct": "0.9", "mean": "0.5 0.5 0.5", "std": "0.5 0.5 0.5"} | {column: cell}
    line = refused(tmp_path, ",".join(cells), ",".join(["a", *cells.values()]))
    assert re.search(words, line)


@pytest.mark.parametrize("column", ["top1", "top5", "real_top1"])
def test_accuracies_that_look_like_fractions_are_refused(tmp_path, column):
    line = refused(tmp_path, column, "a,0.801", "b,0.71", "c,")
    assert f"{column}: all 2 values are at most 1: accuracies are percent" in line
    assert "its one value, 0.9925, is at most 1" in refused(tmp_path, column, "a,0.9925")


def test_a_percent_sign_and_a_larger_value_decide_that_accuracies_are_percent(tmp_path):
    assert [entry.top1 for entry in read(tmp_path, "top1", "a,0.8%", "b,0.1")] == [0.8, 0.1]
    assert [entry.top1 for entry in read(tmp_path, "top1", "a,0.8", "b,10")] == [0.8, 10]
    assert [entry.top1 for entry in read(tmp_path, "top1", "a,1", "b,0")] == [1, 0]


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("top1", "76.1%", 76.1),
        ("top1", "76.1 %", 76.1),
        ("top1", '"76,1"', 76.1),
        ("top1", '"76,125"', 76.125),
        ("params_m", '"1,002.5"', 1002.5),
        ("params_m", '"11,7"', 11.7),
        ("img_size", "224.0", 224),
        ("img_size", "224x224", 224),
        ("img_size", '"3,224,224"', 224),
        ("img_size", '"(3, 224, 224)"', 224),
    ],
)
def test_a_notation_with_one_reading_is_read(tmp_path, column, cell, value):
    (entry,) = read(tmp_path, column, f"a,{cell}")
    assert getattr(entry, column) == value


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("params_m", "11689512", "too large for millions of parameters; divide by 1,000,000"),
        ("params_m", '"1,234"', "may be 1234 or 1.234; write one of them"),
        ("top1", "-3", "outside 0 to 100 percent"),
        ("top1", "101", "outside 0 to 100 percent"),
        ("gmacs", "-1", "gmacs = -1 is negative"),
        (
            "gmacs",
            "1814000000",
            "too large for billions of multiplications; divide by 1,000,000,000",
        ),
        (
            "top1,top5",
            "30.2,10.9",
            "top1 = 30.2 is above top5 = 10.9: swap them, or write 100 minus",
        ),
        ("throughput", "0", "throughput = 0 is not above 0"),
        ("img_size", "224x288", "img_size = '224x288' is not square"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused_with_its_line(tmp_path, column, cell, words):
    line = refused(tmp_path, column, f"a,{cell}")
    assert "line 2: " in line
    assert words in line


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("BICUBIC", "bicubic"), ("2", "bilinear"), ("InterpolationMode.LANCZOS", "lanczos")],
)
def test_interpolations_and_crop_modes_are_read_in_other_notations(tmp_path, given_name, name):
    header, cells = "crop_pct,interpolation,crop_mode,mean,std", "0 0 0,1 1 1"
    (entry,) = read(tmp_path, header, f"a,87.5%,{given_name},Squash,{cells}")
    assert entry.preprocessing is not None
    assert (entry.preprocessing.interpolation, entry.preprocessing.crop_mode) == (name, "squash")
    assert entry.preprocessing.crop_pct == 0.875
    assert "crop_mode" in refused(tmp_path, header, f"a,0.9,{given_name},letterbox,{cells}")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1.01, 100), min_size=1, max_size=9))
def test_percent_pass_and_the_same_as_fractions_do_not(percent):
    assert accuracy_problem("top1", [repr(value) for value in percent]) == ""
    fractions = [repr(value / 100) for value in percent]
    if not all(float(value) in (0, 1) for value in fractions):
        assert "multiply by 100" in accuracy_problem("top1", fractions)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_statistics_of_pixels_to_1_pass_and_those_to_255_do_not(values):
    assert pixel_statistics(" ".join(map(repr, values)), "std") == [*map(repr, values)]
    with pytest.raises(ValueError, match="divide by 255"):
        pixel_statistics(" ".join(repr(255 * value) for value in values), "std")


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("imgsize", "img_size"), ("Top1", "top1"), ("top_5", "top5"), ("IMG_SIZE", "img_size"), ("GMACs", "gmacs"),
        ("image_size", "img_size"), ("Resolution", "img_size"), ("acc1", "top1"), ("arch", "architecture"),
    ],
)  # fmt: skip
def test_a_column_that_only_looks_like_a_known_one_is_refused(tmp_path, column, name):
    line = refused(tmp_path, column, "a,64")
    assert f"did you mean {name}?" in line
    assert f"rename the column '{column}' to {name}" in line
    if name == "architecture":
        return
    assert read(tmp_path, f"{column},{name}", "a,1,64")[0].extras[column] == 1
