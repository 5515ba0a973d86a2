"""Rows and the run record: damage is reported, counted as missing and recomputed; no wrong value is read."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import IMAGES_PER_CLASS, SMALL_ZOO, Command
from hostile_input import bounded, flipped
from hypothesis import given
from hypothesis import strategies as st

from dsmi_zoo._util.errors import DamagedFile, InputError
from dsmi_zoo._util.parquet import write_parquet
from dsmi_zoo.pipeline.store.record import LostRecord
from dsmi_zoo.pipeline.store.run_folder import (
    DIGEST,
    read_results,
    read_row_file,
    read_run,
    row_path,
    scan_results,
    write_row_file,
)
from dsmi_zoo.pipeline.store.schema import COLUMNS
from dsmi_zoo.pipeline.store.subset_file import read_subset, write_subset

pytestmark = pytest.mark.long

VALUES: dict[str, Any] = {"text": "a text", "integer": 447, "number": 1.25, "flag": True}
ROW = {column.name: VALUES.get(column.kind) for column in COLUMNS} | {
    "status": "ok",
    "own_measures": "mine",
    "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
    "mine": 0.5,
}
UNREADABLE = (ValueError, OSError, pa.ArrowException)


def read_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return read_row_file(path)
    except UNREADABLE:
        return None


def test_no_flipped_bit_of_a_row_reads_back_as_another_value(tmp_path: Path) -> None:
    path = tmp_path / "row.parquet"
    write_row_file(path, ROW)
    right, content = read_row_file(path), path.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8 * len(content), 500)
    refused = 0
    for bit in bits:
        path.write_bytes(flipped(content, int(bit)))
        row = read_or_none(path)
        assert row is None or row == right, f"bit {bit}"
        refused += row is None
    assert refused > 150


@given(st.binary(max_size=300), st.integers(0, 20_000))
@bounded(200)
def test_bytes_of_others_in_a_row_are_refused_or_make_no_difference(
    tmp_path: Path, other: bytes, at: int
) -> None:
    path = tmp_path / "row.parquet"
    write_row_file(path, ROW)
    right, content = read_row_file(path), path.read_bytes()
    path.write_bytes(content[:at] + other + content[at + len(other) :])
    assert read_or_none(path) in (None, right)


def test_a_value_changed_by_hand_is_noticed_but_not_in_rows_of_the_first_versions(
    tmp_path: Path,
) -> None:
    path = tmp_path / "row.parquet"
    write_row_file(path, ROW)
    table = pq.read_table(path)
    better = table.set_column(table.column_names.index("dse_z"), "dse_z", pa.array([9.0]))
    pq.write_table(better, path)
    with pytest.raises(ValueError, match="damaged: its values are not those that were written"):
        read_row_file(path)
    pq.write_table(better.replace_schema_metadata(None), path)
    assert read_row_file(path)["dse_z"] == 9.0


def test_odd_but_right_values_survive(tmp_path: Path) -> None:
    path = tmp_path / "row.parquet"
    odd = ROW | {
        "dse_z": float("nan"),
        "dsmi_z_y": float("-inf"),
        "mine": 5e-324,
        "model": "\u2028=é'\"\x1b",
        "n_samples": 2**62,
    }
    write_row_file(path, odd)
    row = read_row_file(path)
    assert np.isnan(row["dse_z"])
    assert {name: row[name] for name in ("dsmi_z_y", "mine", "model", "n_samples")} == {
        name: odd[name] for name in ("dsmi_z_y", "mine", "model", "n_samples")
    }
    assert pq.read_schema(path).metadata.keys() == {DIGEST}


def test_no_flipped_bit_of_a_subset_reads_back_as_another_value(tmp_path: Path) -> None:
    numbers = np.arange(60)
    right = pd.DataFrame(
        {"image": [f"i-{n}" for n in numbers], "label": numbers % 3, "number": numbers, "repeat": 0}
    )
    right["input_cluster"] = numbers % 4
    write_subset(tmp_path, right)
    path = tmp_path / "subset.parquet"
    content = path.read_bytes()
    in_the_pages = 8 * (len(content) - int.from_bytes(content[-8:-4], "little") - 8)
    for bit in np.random.default_rng(0).integers(0, in_the_pages, 300):
        path.write_bytes(flipped(content, int(bit)))
        with suppress(DamagedFile):
            assert read_subset(tmp_path).equals(right), f"bit {bit}"


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_a_damaged_row_is_named_counted_as_missing_and_computed_again(
    run_copy: Path, small_run: Path, cli: Command
) -> None:
    entry = read_run(run_copy).entries[0]
    path = row_path(run_copy, entry.slug)
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * content.index(entry.model.encode())))
    _, unreadable = scan_results(run_copy)
    assert [problem.path for problem in unreadable] == [path]
    assert f"missing: {entry}: " in cli("status", "--out", run_copy).stdout
    said = cli("run", "--models", *SMALL_ZOO, "--out", run_copy).stdout
    assert f"not a row: {path}: " in said
    assert "5 of 6 models are done already" in said
    measured = ["model", "dse_z", "dsmi_z_y", "embedding_sha256", "row_id"]
    pd.testing.assert_frame_equal(
        read_results(run_copy)[measured], read_results(small_run)[measured]
    )


@pytest.mark.parametrize("harm", ["lost", "emptied", "cut", "without a key", "of zeros"])
def test_a_lost_or_damaged_record_is_written_anew_from_the_rows(
    run_copy: Path, cli: Command, harm: str
) -> None:
    record = run_copy / "run.json"
    before = read_run(run_copy)
    content = record.read_bytes()
    finished = {path: path.stat().st_mtime_ns for path in (run_copy / "results").iterdir()}
    harmed = {"lost": None, "emptied": b"", "cut": content[:300], "of zeros": bytes(len(content))}
    harmed["without a key"] = json.dumps(
        {k: v for k, v in json.loads(content).items() if k != "subset"}
    ).encode()
    if harmed[harm] is None:
        record.unlink()
    else:
        record.write_bytes(harmed[harm] or b"")
    said = cli("status", "--out", run_copy, code=2).stderr
    assert len(said.splitlines()) == 1
    assert "the same command as before rewrites it from its rows" in said
    again = cli("run", "--models", *SMALL_ZOO, "--out", run_copy).stdout
    assert "6 rows of this configuration: run.json will be rewritten" in again
    assert "6 of 6 models are done already" in again
    assert read_run(run_copy).entries == before.entries
    assert {path: path.stat().st_mtime_ns for path in (run_copy / "results").iterdir()} == finished
    kept = run_copy / "run.json.damaged"
    assert kept.exists() == (harm != "lost")
    assert harm == "lost" or kept.read_bytes() == harmed[harm]


def test_a_lost_record_is_not_written_anew_by_a_run_of_other_settings(
    run_copy: Path, tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    (run_copy / "run.json").unlink()
    said = refused(f"run --models test_vit.* --sigma 3 --out {run_copy}", tmp_path)
    assert "its rows are of other settings than these, so choose another --out" in said
    assert not (run_copy / "run.json").exists()


def test_remeasured_rows_survive_the_loss_of_their_record_too(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    remeasure = ("remeasure", "--out", small_run, "--sigma", 3, "--into", tmp_path / "out")
    cli(*remeasure)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    (tmp_path / "out" / "run.json").write_text("{")
    again = cli(*remeasure).stdout
    assert "6 rows of this configuration" in again
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()
    } == finished


def test_a_run_does_not_take_over_rows_that_were_remeasured_and_lost_their_record(
    small_run: Path, tmp_path: Path, cli: Command, refused: Callable[[str, Path], str]
) -> None:
    cli("remeasure", "--out", small_run, "--sigma", 3, "--into", tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    said = refused(
        f"run --models {' '.join(SMALL_ZOO)} --sigma 3 --images-per-class {IMAGES_PER_CLASS} "
        f"--out {tmp_path / 'out'}",
        tmp_path,
    )
    assert (
        "has rows but neither run.json nor embeddings: repeat the `dsmi-zoo remeasure` that made it"
        in said
    )


def test_a_record_of_a_newer_version_is_neither_lost_nor_replaced(
    run_copy: Path, tmp_path: Path, refused: Callable[[str, Path], str]
) -> None:
    record = run_copy / "run.json"
    newer = json.dumps(json.loads(record.read_bytes()) | {"format": 2})
    record.write_text(newer)
    said = refused(f"run --models test_vit.* --out {run_copy}", tmp_path)
    assert "a newer version wrote the file" in said
    assert record.read_text() == newer


def test_a_folder_without_rows_and_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LostRecord, match=r"is not a run: it has no run\.json; start one"):
        read_run(tmp_path)


def test_a_pipe_or_a_folder_in_place_of_a_row_or_a_subset_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    os.mkfifo(tmp_path / "results" / "pipe.parquet")
    (tmp_path / "results" / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "subset.parquet")
    rows, unreadable = scan_results(tmp_path)
    assert rows == {}
    assert [problem.reason for problem in unreadable] == ["not a file", "not a file"]
    with pytest.raises(DamagedFile, match="not a file"):
        read_subset(tmp_path)
    with pytest.raises(
        InputError, match=r"folder\.parquet is a folder where a file belongs; move it away"
    ):
        write_row_file(tmp_path / "results" / "folder.parquet", ROW)


def test_one_row_is_stored_without_dictionaries_and_statistics_which_many_rows_have(
    tmp_path: Path,
) -> None:
    write_row_file(tmp_path / "one.parquet", ROW)
    one = pq.ParquetFile(tmp_path / "one.parquet").metadata.row_group(0)
    columns = [one.column(place) for place in range(one.num_columns)]
    assert not any(column.has_dictionary_page or column.is_stats_set for column in columns)
    write_parquet(tmp_path / "many.parquet", pa.table({"names": ["a", "a", "b"]}))
    names = pq.ParquetFile(tmp_path / "many.parquet").metadata.row_group(0).column(0)
    assert names.has_dictionary_page
    assert names.is_stats_set
