"""Arbitrary catalogues: read correctly, or refused in one line with the line number; nothing else."""

import csv
import datetime
import io
import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_input import ODD_TEXT, answer_or_refusal, bounded, refusal
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo._util.files import content_hash
from dsmi_zoo._util.text import is_printable
from dsmi_zoo.data_catalog.models.csv_catalog import PREPROCESSING_COLUMNS, TEXT_COLUMNS
from dsmi_zoo.data_catalog.models.entry import MAX_IMG_SIZE, ModelEntry
from dsmi_zoo.data_catalog.models.registry import load_models

COLUMNS = (
    *TEXT_COLUMNS,
    *PREPROCESSING_COLUMNS,
    "img_size",
    "top1",
    "params_m",
    "gmacs",
    "extra_data",
    "mine",
    "a b",
)


def refused(folder: Path, content: str | bytes, name: str = "mine.csv") -> str:
    path = folder / name
    path.write_bytes(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )
    return refusal(lambda: load_models(path), path)


def refused_cell(folder: Path, column: str, text: str) -> str:
    written = io.StringIO()
    csv.writer(written).writerows([["model", column], ["good", ""], ["bad", text]])
    return refused(folder, written.getvalue())


def assert_in_bounds(entry: ModelEntry) -> None:
    """Assert that an entry holds no value that later steps of a run cannot handle."""
    assert entry.img_size is None or 1 <= entry.img_size <= MAX_IMG_SIZE
    for text in (
        entry.model,
        entry.architecture,
        entry.family,
        entry.layer,
        entry.license,
        entry.group,
    ):
        assert text is None or is_printable(text)
    for number in (entry.top1, entry.params_m, *entry.extras.values()):
        assert number is None or math.isfinite(number)
    if entry.preprocessing is not None:
        assert all(
            math.isfinite(value) for value in (*entry.preprocessing.mean, *entry.preprocessing.std)
        )
        assert min(entry.preprocessing.std) > 0
        assert 0.1 <= entry.preprocessing.crop_pct <= 10
    assert len(content_hash(entry.model_kwargs)) == 16
    json.dumps(entry.model_dump(mode="json"), allow_nan=False).encode()
    assert len(entry.slug.encode()) < 120


@pytest.mark.parametrize(
    "size", ["1e30", "1e300", "20000", "4097", "0", "-1", "0.5", "nan", "9" * 6000]
)
def test_an_impossible_image_size_is_refused_with_its_line(tmp_path: Path, size: str) -> None:
    assert "line 3: img_size" in refused_cell(tmp_path, "img_size", size)


@pytest.mark.parametrize(
    "size", ['"abc"', "1e30", "20000", "0", "224.5", "224.0", "null", "true", "[224, 224]", "{}"]
)
def test_an_image_size_in_model_kwargs_is_one_whole_number_within_bounds(
    tmp_path: Path, size: str
) -> None:
    line = refused_cell(tmp_path, "model_kwargs", f'{{"img_size": {size}}}')
    assert "line 3: model_kwargs: img_size must be one whole number, 1 to 4096" in line


def test_image_sizes_within_bounds_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        'model,img_size,model_kwargs\na,1,\nb,4096,"{""img_size"": 4096}"\nc,224.0,\n'
    )
    assert [entry.img_size for entry in load_models(tmp_path / "mine.csv")] == [1, 4096, 224]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": %s}' % ("9" * 6000), "is not plain JSON"),
        ('{"a": 1e999}', "is not plain JSON"),
        ('{"a": NaN}', "is not plain JSON"),
        ("[" * 5000, "is not plain JSON"),
        ('{"\\ud800": 1}', "is not plain JSON"),
        ("[1]", "must be a JSON object"),
        ("{'a': 1}", "is not plain JSON"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_model_kwargs_that_are_not_plain_json_are_refused_with_their_line(
    tmp_path: Path, text: str, message: str
) -> None:
    assert f"line 3: model_kwargs {message}" in refused_cell(tmp_path, "model_kwargs", text)


@pytest.mark.parametrize(
    "column", ["model", "architecture", "group", "license", "checkpoint", "layer"]
)
@pytest.mark.parametrize(
    "odd", ["a\0b", "a\x1b[31mb", "a\nb", "a\x85b", "a\u202eb", "a\u2028b"], ids=ascii
)
def test_control_characters_are_refused_with_their_line_and_shown_escaped(
    tmp_path: Path, column: str, odd: str
) -> None:
    lines = ["model,architecture,group,license,checkpoint,layer", "good,,,,,"]
    cells = dict.fromkeys(lines[0].split(","), "") | {"model": "bad", column: odd}
    written = io.StringIO()
    csv.writer(written).writerow(cells.values())
    line = refused(tmp_path, "\n".join([*lines, written.getvalue()]))
    assert (
        f"line {4 if odd == 'a' + chr(10) + 'b' else 3}: '{column}' = {odd!a} holds a control"
        in line
    )


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("checkpoint", "x" * 5000, "is not a file"),
        ("checkpoint", "loop", "is not a file"),
        ("model", "x" * 10_001, "'model' has 10,001 characters; at most 10,000 are read"),
        ("model", "x" * 200_000, "after line 2: .*field larger than field limit"),
        ("top1", "9" * 6000, "top1 = '9{50,}.* is not finite"),
        ("gmacs", "1e300", "gmacs = '1e300' is .* beyond 1e\\+30"),
        ("params_m", "inf", "params_m = 'inf' is not finite"),
    ],
)  # fmt: skip
def test_cells_that_are_too_long_or_too_large_are_refused_with_their_line(
    tmp_path: Path, column: str, text: str, message: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    written = io.StringIO()
    csv.writer(written).writerows(
        [["model", "x"], ["good", ""]] if column == "model" else [["model", column], ["g", ""]]
    )
    csv.writer(written).writerow([text, ""] if column == "model" else ["bad", text])
    line = refused(tmp_path, written.getvalue())
    assert re.search(message, line), line
    assert "line 3: " in line or "after line 2: " in line


@pytest.mark.parametrize(
    ("crop_pct", "mean", "std"),
    [
        ("0", "0 0 0", "1 1 1"), ("0.05", "0 0 0", "1 1 1"), ("11", "0 0 0", "1 1 1"), ("nan", "0 0 0", "1 1 1"),
        ("1", "0 0 nan", "1 1 1"), ("1", "0 0 inf", "1 1 1"), ("1", "0 0 1e308", "1 1 1"), ("1", "0 0", "1 1 1"),
        ("1", "0 0 0", "1 1 0"), ("1", "0 0 0", "1 1 -1"), ("1", "0 0 0", "1 1 nan"), ("1", "0 0 0", "1 1 1e-320"),
    ],
)  # fmt: skip
def test_preprocessing_that_would_give_nan_or_infinity_is_refused(
    tmp_path: Path, crop_pct: str, mean: str, std: str
) -> None:
    line = refused(tmp_path, f"model,crop_pct,mean,std\na,{crop_pct},{mean},{std}\n")
    assert "line 2: preprocessing." in line


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_catalogue_is_read_whatever_program_saved_it(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    table = "model,top1,mean,std,crop_pct\na,50,0 0 0,1 1 1,0.9\n".replace(",", separator)
    path = tmp_path / "mine.csv"
    path.write_bytes(table.encode(encoding))
    (entry,) = load_models(path)
    assert (entry.model, entry.top1) == ("a", 50)


@pytest.mark.parametrize(
    "header",
    ['model;top1;"x_top1"', "sep=;\nmodel;top1;x_top1", "sep=;\r\nmodel;top1;x_top1", '"model";"top1";x_top1'],
)  # fmt: skip
def test_semicolons_are_recognised_as_spreadsheets_write_them(tmp_path: Path, header: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{header}\na;76,1;80\n", newline="")
    (entry,) = load_models(path)
    assert (entry.model, entry.top1, entry.extras) == ("a", 76.1, {"x_top1": 80})
    line = header.count("\n") + 2
    assert f"line {line}: x_top1 = 800" in refused(tmp_path, f"{header}\na;76,1;800\n")


def test_a_header_with_more_semicolons_than_commas_is_separated_by_them(tmp_path: Path) -> None:
    line = refused(tmp_path, "model;top1;a,b\na;76,1;80\n")
    assert "the column 'a,b' needs a plain name" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,archi\na,resnet18\n", "archi (did you mean architecture?) = 'resnet18' is not a number"),
        ("name,top1\na,50\n", "did you mean model?"),
        ("model,top1\na,50,3\nb,60,4\n", "line 2: has 3 cells, and the header 2"),
        ("model,top1,top1\na,1,2\n", "line 1: 2 columns are named 'top1'"),
        ("model,top1,\na,1,\n", "line 1: the column '' needs a plain name"),
        ("model,a\x1bb\na,1\n", "line 1: the column 'a\\x1bb' needs a plain name"),
        ('model,top1\n"a,1\n', "unexpected end of data"),
        (b"model\nM\xfcller\n", "cannot be read as a catalogue, a table in UTF-8"),
        ("model\n\ud800\n", "cannot be read as a catalogue, a table in UTF-8"),
        (b"\0" * 4000, "the column"),
        ("model|top1\na|1\n", "no column 'model'; its columns are model|top1"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_file_that_is_not_a_table_in_utf_8_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    assert message in refused(tmp_path, content)


def test_a_byte_order_mark_and_foreign_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbfmodel,top1\r\na,1\r\n\r\nb,2")
    assert [(entry.model, entry.top1) for entry in load_models(tmp_path / "mine.csv")] == [
        ("a", 1),
        ("b", 2),
    ]


def test_an_impossible_file_name_is_an_unknown_catalogue(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b", "\x1b[2J", str(tmp_path)):
        assert "unknown catalogue" in refusal(lambda name=name: load_models(name), "")


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"model": ["a"], "x": [[1, 2]]}, "the column 'x' holds list<"),
        ({"model": ["a"], "x": [{"y": 1}]}, "the column 'x' holds struct<"),
        ({"model": [b"a"]}, "the column 'model' holds binary"),
        ({"model": ["a"], "top1": [datetime.date(2026, 1, 1)]}, "the column 'top1' holds date32"),
        ({"model": ["a"], "top1": [datetime.datetime(2026, 1, 1)]}, "the column 'top1' holds timestamp"),
        ({"model": ["a"], "top1": [math.inf]}, "line 2: top1 = 'inf' is not finite"),
        ({"model": ["a"], "img_size": [2**63 - 1]}, "line 2: img_size: "),
        ({"model": ["a", "b"], "gmacs": [None, Decimal("1e35")]}, "line 3: gmacs = '1000000"),
        ({"model": [None, None]}, "the catalogue is empty"),
        ({"model": pa.array([], pa.string())}, "the catalogue is empty"),
        ({"model": ["a", "b\0c"]}, "line 3: 'model' = 'b\\x00c' holds a control character"),
        ({"model": ["a", "x" * 200_000]}, "line 3: 'model' has 200,000 characters"),
        ({"top1": [1.0]}, "no column 'model'"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_parquet_column_that_is_neither_text_nor_number_is_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = parquet(tmp_path / "mine.parquet", **columns)
    assert message in refusal(lambda: load_models(path), path)


def test_two_parquet_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["model", "model"]), path
    )
    assert "2 columns are named 'model'" in refusal(lambda: load_models(path), path)


def test_a_parquet_catalogue_may_have_nulls_and_categories(tmp_path: Path) -> None:
    categories = pa.array(["MLP", None]).dictionary_encode()
    path = parquet(
        tmp_path / "mine.parquet",
        model=["a", "b"],
        top1=[math.nan, 2],
        mine=[None, None],
        kind=categories,
    )
    first, second = load_models(path)
    assert (first.top1, second.top1, first.extras, first.kind, second.kind) == (
        None,
        2,
        {"mine": None},
        "MLP",
        None,
    )


def test_a_small_parquet_file_of_billions_of_characters_is_refused_early(
    tmp_path: Path,
) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * 1_000_000])
    path = parquet(tmp_path / "mine.parquet", model=long)
    assert path.stat().st_size < 3_000_000
    assert "'model' has 1,000,000 characters" in refusal(lambda: load_models(path), path)


CELLS = ODD_TEXT | st.text(max_size=12) | st.floats().map(str) | st.integers().map(str)
TABLES = st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5).flatmap(
    lambda names: st.lists(
        st.lists(CELLS, min_size=len(names), max_size=len(names) + 1), max_size=4
    ).map(lambda rows: [["model", *names], *(["m", *row] for row in rows)])
)


@bounded(250)
@given(TABLES)
def test_any_table_is_read_within_bounds_or_refused_in_one_line(
    tmp_path: Path, rows: list[list[str]]
) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows(rows)
    entries, _ = answer_or_refusal(lambda: load_models(path), path)
    for entry in entries or ():
        assert_in_bounds(entry)


@bounded(150)
@given(st.binary(max_size=300) | st.text(alphabet='model,\n\r"\0 1aé', max_size=60).map(str.encode))
def test_any_bytes_are_read_within_bounds_or_refused_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    for name in ("any.csv", "any.parquet"):
        path = tmp_path / name
        path.write_bytes(content)
        entries, _ = answer_or_refusal(lambda path=path: load_models(path), path)
        for entry in entries or ():
            assert_in_bounds(entry)


WHOLE = pa.table(
    {"model": ["a", "b"], "top1": [1.0, None], "img_size": [224, 32], "group": ["x", "y"]}
)


@bounded(150)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 2000),
)
def test_a_damaged_parquet_file_is_read_within_bounds_or_refused_in_one_line(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    written = io.BytesIO()
    pq.write_table(WHOLE, written)
    content = bytearray(written.getvalue())
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path / "any.parquet"
    path.write_bytes(content if cut % 3 else content[: cut % len(content)])
    entries, _ = answer_or_refusal(lambda: load_models(path), path)
    for entry in entries or ():
        assert_in_bounds(entry)
