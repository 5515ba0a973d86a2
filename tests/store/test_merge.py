"""``merge``: runs joined into one, and runs that must not be joined."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import content_hash, link_or_copy
from dsmi_zoo.jobs.runs.driver_lock import driver_lock
from dsmi_zoo.jobs.runs.merge import merge
from dsmi_zoo.pipeline.plan.identity import MEASURES_VERSION, measures_identity
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.run_folder import read_results, read_row, read_run, row_path, write_row

Part = Callable[..., Path]


@pytest.fixture
def part(small_run: Path, tmp_path: Path) -> Part:
    """Return a function that copies the rows of ``small_run`` with a name prefix and changes them and the record."""

    def make(name: str, models: str = "", row: dict[str, Any] | None = None, **record: Any) -> Path:
        out = tmp_path / name
        shutil.copytree(small_run, out, ignore=shutil.ignore_patterns("report", "drivers"))
        stored = json.loads((out / "run.json").read_text())
        entries = [entry for entry in stored["entries"] if entry["model"].startswith(models)]
        for entry in stored["entries"]:
            slug = entry["slug"]
            if entry in entries:
                changed = (read_row(out, slug) or {}) | (row or {})
                write_row(out, slug, changed)
                entry["row_id"] = changed["row_id"]
            else:
                row_path(out, slug).unlink()
                embedding_path(out, slug).unlink()
        (out / "run.json").write_text(json.dumps(stored | {"entries": entries} | record))
        return out

    return make


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_halves_make_the_whole_and_stay_as_they_are(
    part: Part, small_run: Path, tmp_path: Path, cli: Command
) -> None:
    one, other = part("one", "test_vit"), part("other", "test_resnet")
    before = contents(one) | contents(other)
    said = cli("merge", one, other, "--out", tmp_path / "whole").stdout
    assert "6 models: 6 ok, 0 failed" in said
    assert contents(one) | contents(other) == before
    pd.testing.assert_frame_equal(read_results(tmp_path / "whole"), read_results(small_run))
    record = read_run(tmp_path / "whole")
    assert record.identity == read_run(small_run).identity
    for entry in record.entries:
        kept = embedding_path(tmp_path / "whole", entry.slug)
        assert kept.read_bytes() == embedding_path(small_run, entry.slug).read_bytes()
        assert kept.stat().st_nlink == 2
    assert (tmp_path / "whole" / "subset.parquet").exists()
    assert (tmp_path / "whole" / "report" / "index.html").exists()
    assert not list((tmp_path / "whole").rglob(".*.tmp"))

    again = cli("status", "--out", tmp_path / "whole").stdout
    assert "6 ok, 0 failed, 0 missing" in again


def test_a_finished_row_wins_over_a_failed_one_and_the_newest_over_the_rest(
    part: Part, small_run: Path, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    latest = read_results(small_run)["finished_at"].max()
    failure = {
        "status": "failed",
        "error_type": "OSError",
        "error_message": "no luck",
        "embedding_sha256": None,
    }
    failed = part("failed", "test_vit.900", failure | {"finished_at": latest + timedelta(hours=3)})
    newest = part("newest", "test_vit.900x5", {"finished_at": latest + timedelta(hours=1)})
    shutil.rmtree(newest / "embeddings")  # another run holds them too
    oldest = part("oldest", "test_vit", {"finished_at": latest - timedelta(hours=1)})
    only_failed = part("only-failed", "test_resnet.900x2", failure)
    assert merge((failed, newest, oldest, only_failed), tmp_path / "c") == 1
    assert "test_resnet.900x2@32: OSError: no luck" in info_log.text
    rows = read_results(tmp_path / "c").set_index("model")
    assert rows["status"].to_dict() == {
        "test_resnet.900x2": "failed", "test_vit.100x3": "ok", "test_vit.900x2": "ok", "test_vit.900x5": "ok"
    }  # fmt: skip
    assert rows.loc["test_vit.900x2", "finished_at"] == latest - timedelta(hours=1)
    assert rows.loc["test_vit.900x5", "finished_at"] == latest + timedelta(hours=1)
    entries = read_run(tmp_path / "c").entries
    kept = {entry.model for entry in entries if embedding_path(tmp_path / "c", entry.slug).exists()}
    assert kept == {"test_vit.100x3", "test_vit.900x2", "test_vit.900x5"}


def test_further_runs_join_a_merged_one_with_own_columns_without_broken_rows(
    part: Part, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    whole = part(
        "whole", "test_vit.100", {"rank": 7.0, "own_measures": "rank", "gmacs_of_mine": 1.5}
    )
    further = part("further", "test_vit.900", {"rank": 9.0, "own_measures": "rank"})
    broken, *_ = (path for path in (further / "results").glob("*.parquet") if "900x2" in path.name)
    broken.write_bytes(b"PAR1 cut off")
    (further / "results" / "stray.parquet").write_bytes(
        (further / "results" / broken.name).read_bytes()
    )
    (further / "stages").mkdir()
    merge((further,), whole)
    assert f"left out: {broken}" in info_log.text
    assert "stray.parquet" in info_log.text
    assert "search on a budget" in info_log.text
    assert "3 models: 2 ok, 0 failed, 1 not begun" in info_log.text
    rows = read_results(whole).set_index("model")
    assert rows["rank"].to_dict() == {"test_vit.100x3": 7, "test_vit.900x5": 9}
    assert rows["own_measures"].tolist() == ["rank", "rank"]
    assert rows.loc["test_vit.100x3", "gmacs_of_mine"] == 1.5
    assert pd.isna(rows.loc["test_vit.900x5", "gmacs_of_mine"])


def test_where_no_hard_link_can_be_made_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert (tmp_path / "b").stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_that_is_linked_already_stays_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").stat().st_nlink == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def refused(*folders: Path, out: Path) -> str:
    with pytest.raises(InputError) as refusal:
        merge(folders, out)
    return str(refusal.value)


def test_other_settings_images_and_origins_are_refused_by_name(part: Part, tmp_path: Path) -> None:
    one, c = part("one", "test_vit"), tmp_path / "c"
    record = read_run(one)
    other = part("seeded", "test_resnet", identity=record.identity | {"precision": "bf16"})
    said = refused(one, other, out=c)
    assert (
        f'{one} and {other} belong to different configurations: precision = "fp32", not "bf16"'
        in said
    )
    other = part("images", "test_resnet", subset=record.subset.model_dump() | {"hash": "0123"})
    assert f"{one} and {other} were computed on different images" in refused(one, other, out=c)
    other = part("remeasured", "test_resnet", embeddings_from="elsewhere")
    assert f"{one} and {other} measure embeddings of different runs" in refused(one, other, out=c)
    assert not c.exists()
    assert "images" in refused(
        one, out=part("images-too", subset=record.subset.model_dump() | {"hash": "0123"})
    )


def test_other_weights_of_one_entry_are_refused_by_its_name(part: Part, tmp_path: Path) -> None:
    one = part("one", "test_vit")
    identity = measures_identity(read_run(one).config.measures, 447)
    other = part(
        "other", "test_vit.900x5", {"embedding_id": "e", "row_id": content_hash("e", identity)}
    )
    said = refused(one, other, out=tmp_path / "c")
    assert "test_vit.900x5@32 has other weights or inputs" in said
    assert str(one) in said
    assert str(other) in said


def test_rows_of_another_version_of_the_measures_are_refused(part: Part, tmp_path: Path) -> None:
    one = part("one", "test_vit")
    identity = measures_identity(read_run(one).config.measures, 447)
    older = content_hash("e", identity | {"version": MEASURES_VERSION - 1})
    other = part("other", "test_resnet.900x2", {"embedding_id": "e", "row_id": older})
    said = refused(one, other, out=tmp_path / "c")
    assert "different versions of the measures" in said
    assert not (tmp_path / "c").exists()


def test_a_run_that_is_being_computed_is_refused(part: Part, tmp_path: Path) -> None:
    one, other = part("one", "test_vit"), part("other", "test_resnet")
    with driver_lock(other, share="1/2"):
        assert f"{other} is being computed by process {os.getpid()}" in refused(
            one, other, out=tmp_path / "c"
        )
    with driver_lock(one):
        assert f"{one} is being computed by process {os.getpid()}" in refused(other, out=one)


def test_names_that_make_no_sense_are_refused_in_one_line(
    part: Part, tmp_path: Path, cli: Command
) -> None:
    one, c = part("one", "test_vit"), tmp_path / "c"
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(one)
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows" / "results").mkdir(parents=True)
    shutil.copy(next((one / "results").glob("*")), tmp_path / "rows" / "results")
    before = contents(one)
    for folders, out, words in (
        ((one, tmp_path / "gone"), c, "gone is not there"),
        ((one, tmp_path / "file"), c, "file is a file"),
        ((one, tmp_path / "empty"), c, "empty is not a run"),
        ((one, one), c, "are the same folder"),
        ((one, tmp_path / "link"), c, "are the same folder"),
        ((one,), one, "is, or lies in, the run"),
        ((one,), one / "c", "is, or lies in, the run"),
        ((one,), c, "alone is nothing to merge"),
        ((one, part("other")), tmp_path / "file", "is a file"),
        ((one, tmp_path / "other"), tmp_path / "rows", "no run.json"),
    ):
        assert words in refused(*folders, out=out)
    for arguments, words in (
        ((one, one, "--out", c), "same folder"),
        ((one,), "--out"),
        (("--out", c), "A B ..."),
    ):
        said = cli("merge", *arguments, code=2).stderr
        assert words in said
        assert said.count("\n") == 1
    assert contents(one) == before
    assert not c.exists()
