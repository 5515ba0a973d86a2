"""The files of a run directory: whole or absent, and never mistaken for something else."""

import errno
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256, sweep_temporary, write_atomically, write_text
from dsmi_zoo.jobs.runs.state import make_writable
from dsmi_zoo.pipeline.store.embedding_file import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.run_folder import (
    read_results,
    row_path,
    scan_results,
    write_row,
    write_run,
)
from dsmi_zoo.pipeline.store.schema import COLUMNS


def row(model: str, **values: Any) -> dict[str, Any]:
    filled: dict[str, Any] = {
        "model": model,
        "img_size": 32,
        "status": "ok",
        "row_id": f"id-{model}",
        "own_measures": "",
    }
    return filled | {"finished_at": datetime(2026, 1, 2, tzinfo=UTC)} | values


def run_of(out: Path, *models: str) -> None:
    entries = [EntryRecord(model=m, img_size=32, slug=m, row_id=f"id-{m}") for m in models]
    write_run(out, record_of(*entries))


def test_a_row_comes_back_with_its_values_and_types(tmp_path: Path) -> None:
    run_of(tmp_path, "a", "b")
    write_row(tmp_path, "b", row("b", top1=71.5, saturated=False, n_samples=447, gmacs=1.5))
    write_row(tmp_path, "a", row("a", status="failed", error_type="ValueError"))
    frame = read_results(tmp_path)
    assert frame["model"].tolist() == ["a", "b"]
    assert sorted(frame.columns) == sorted([*(c.name for c in COLUMNS), "gmacs", "embedding_file"])
    frame["mine"] = 1.0  # must not warn of many blocks
    assert frame["n_samples"].dtype == "Int64"
    assert frame["saturated"].dtype == "boolean"
    assert frame["top1"].dtype == "float64"
    assert pd.isna(frame["saturated"][0])
    assert frame.loc[1, ["top1", "saturated", "n_samples", "gmacs"]].tolist() == [
        71.5,
        False,
        447,
        1.5,
    ]
    assert frame["finished_at"][0] == datetime(2026, 1, 2, tzinfo=UTC)


def test_an_empty_run_has_a_frame_with_all_columns(tmp_path: Path) -> None:
    run_of(tmp_path)
    frame = read_results(tmp_path)
    assert len(frame) == 0
    assert sorted(frame.columns) == sorted([*(c.name for c in COLUMNS), "embedding_file"])


def test_a_row_of_a_version_with_fewer_columns_is_read_and_the_others_are_null(
    tmp_path: Path,
) -> None:
    run_of(tmp_path, "old")
    write_row(tmp_path, "old", row("old", dse_z=2.5, embedding_sha256="abc"))
    table = pq.read_table(row_path(tmp_path, "old"), partitioning=None)
    of_old = table.drop_columns(
        ["logme", "dsmi_z_y_scale_free", "probe_hits"]
    ).replace_schema_metadata(None)
    pq.write_table(of_old, row_path(tmp_path, "old"))
    frame = read_results(tmp_path)
    assert sorted(frame.columns) == sorted([*(c.name for c in COLUMNS), "embedding_file"])
    assert frame.loc[0, ["dse_z", "embedding_sha256"]].tolist() == [2.5, "abc"]
    assert frame[["logme", "dsmi_z_y_scale_free", "probe_hits"]].isna().all(axis=None)


def test_truncated_and_foreign_files_are_named_and_never_half_read(tmp_path: Path) -> None:
    run_of(tmp_path, "good", "cut")
    write_row(tmp_path, "good", row("good"))
    write_row(tmp_path, "cut", row("cut"))
    whole = row_path(tmp_path, "cut").read_bytes()
    row_path(tmp_path, "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "results" / "notes.txt").write_text("mine")
    pd.DataFrame({"x": [1]}).to_parquet(row_path(tmp_path, "other"))
    pd.concat([pd.read_parquet(row_path(tmp_path, "good"))] * 2).to_parquet(
        row_path(tmp_path, "twice")
    )
    row_path(tmp_path, "empty").touch()
    row_path(tmp_path, "folder").mkdir()
    rows, unreadable = scan_results(tmp_path)
    assert list(rows) == ["good"]
    assert sorted(p.path.name for p in unreadable) == [
        "cut.parquet", "empty.parquet", "folder.parquet", "notes.txt", "other.parquet", "twice.parquet",
    ]  # fmt: skip
    assert all("\n" not in str(problem) for problem in unreadable)
    with pytest.warns(UserWarning, match="left out") as caught:
        assert read_results(tmp_path)["model"].tolist() == ["good"]
    assert len(caught) == 6


def test_a_row_of_another_identity_is_not_mistaken_for_this_runs(tmp_path: Path) -> None:
    run_of(tmp_path, "a")
    write_row(tmp_path, "a", row("a", row_id="other"))
    with pytest.warns(UserWarning, match=r"a\.parquet: a row of other settings"):
        assert read_results(tmp_path).empty


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: Any) -> None:
        file.write(b"half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_only_old_temporary_files_are_swept_away(tmp_path: Path) -> None:
    for name in (".old.tmp", ".new.tmp", "kept.parquet"):
        (tmp_path / name).touch()
    an_hour_ago = time.time() - 4000
    os.utime(tmp_path / ".old.tmp", (an_hour_ago, an_hour_ago))
    os.utime(tmp_path / "kept.parquet", (an_hour_ago, an_hour_ago))
    sweep_temporary(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".new.tmp", "kept.parquet"]


def test_shares_that_begin_at_once_do_not_mistake_each_others_trial_files(
    tmp_path: Path,
) -> None:
    def begin(_: int) -> None:
        for _ in range(300):
            make_writable(tmp_path)
            write_atomically(tmp_path / "results" / "row.parquet", lambda file: file.write(b"row"))

    with ThreadPoolExecutor(4) as shares:
        list(shares.map(begin, range(4)))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["row.parquet"]


def test_a_kept_embedding_is_checked_against_its_hash(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = embedding_path(tmp_path, "a")
    path.parent.mkdir()
    np.save(path, values)
    np.testing.assert_array_equal(read_embedding(path, array_sha256(values)), values)
    with pytest.raises(InputError, match="is not the one"):
        read_embedding(path, array_sha256(values + 1))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="cannot be read"):
        read_embedding(path, array_sha256(values))
    with pytest.raises(InputError, match=r"gone\.npy"):
        read_embedding(tmp_path / "gone.npy", "")


def test_a_pickled_embedding_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_embedding(tmp_path / "a.npy", "")


def test_hashes_of_arrays_see_type_shape_and_values() -> None:
    base = np.zeros((2, 3), np.float32)
    others = [base.reshape(3, 2), base.astype(np.float64), base + 1, base.astype(np.int32)]
    assert len({array_sha256(a) for a in (base, *others)}) == 5
    assert array_sha256(np.asfortranarray(base)) == array_sha256(base)


def test_a_folder_that_cannot_be_flushed_is_no_error_but_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, number = os.fsync, errno.EINVAL

    def fsync(opened: int) -> None:
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(number, os.strerror(number))
        real(opened)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "new" / "folder" / "file", "text")
    assert (tmp_path / "new" / "folder" / "file").read_text() == "text"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "file", "text")
