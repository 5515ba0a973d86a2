"""A published folder: complete, free of private paths, verifiable by others, and marked when superseded."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hub_uploads import HubOfDataSets
from processes import start_script

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.publishing import publish as publishing
from dsmi_zoo.jobs.publishing.publish import publish
from dsmi_zoo.jobs.publishing.verify import verify
from dsmi_zoo.pipeline.store.release import (
    RELEASE,
    ROWS,
    SUMS,
    read_published,
    read_release,
    write_rows,
    write_sums,
)
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, scan_results, write_row
from dsmi_zoo.reports.page.build import write_report


@pytest.fixture(scope="module")
def run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with three real rows and their embeddings; one row failed, and its message names private folders."""
    out = tmp_path_factory.mktemp("private") / "run"
    shutil.copytree(small_run, out)
    rows, _ = scan_results(out)
    failed, *kept = [slug for slug, row in rows.items() if row["model"].startswith("test_vit.")]
    for slug in rows:
        if slug not in (failed, *kept):
            (out / "results" / f"{slug}.parquet").unlink()
    message = f"no such file: {out}/weights.pt (of {Path.home()}/models)"
    write_row(
        out,
        failed,
        rows[failed] | {"status": "failed", "error_type": "OSError", "error_message": message},
    )
    return out


@pytest.fixture(scope="module")
def board(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish ``run``; tests that change the release copy it."""
    folder = tmp_path_factory.mktemp("boards") / "board"
    publish(run, folder, license="cc-by-4.0", with_embeddings=True)
    return folder


@pytest.fixture
def copied(board: Path, tmp_path: Path) -> Path:
    return shutil.copytree(board, tmp_path / "board")


def test_a_release_holds_rows_page_card_settings_and_the_hash_of_every_file(
    run: Path, board: Path
) -> None:
    published = read_published(board)
    pd.testing.assert_frame_equal(
        published.rows.drop(columns="error_message"),
        read_results(run).drop(columns=["error_message", "embedding_file"]),
        check_like=True,  # the order may differ
    )
    field = pq.read_schema(board / ROWS).field("dsmi_z_y")
    assert field.metadata[b"unit"] == b"bits"
    assert published.record.subset == read_run(run).subset
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS],
        cwd=board,
        capture_output=True,
        text=True,
        check=True,
    )
    files = {path.relative_to(board).as_posix() for path in board.rglob("*") if path.is_file()} - {
        SUMS
    }
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == files
    card = (board / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "data_files: rows.parquet" in card
    assert "no such file: OUT/weights.pt (of HOME/models)" in card
    assert "| `dsmi_z_y` | bits |" in card


def test_nothing_in_a_release_names_a_folder_of_the_machine_it_was_computed_on(
    run: Path, board: Path, cache: Path
) -> None:
    private = [str(folder).encode() for folder in (run, run.parent, cache, Path.home() / "models")]
    for path in board.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [folder for folder in private if folder in content], path
    assert "HOME" in read_published(board).rows["error_message"].dropna().iloc[0]


def test_a_release_is_verified_from_its_own_files(
    board: Path, info_log: pytest.LogCaptureFixture
) -> None:
    assert verify(board, sample=2) == 0
    assert "2 of 2 embeddings measured again (seed 0): as published" in info_log.text


def test_a_number_changed_among_the_rows_is_found_in_the_page_and_by_its_embedding(
    copied: Path, info_log: pytest.LogCaptureFixture
) -> None:
    rows = pq.read_table(copied / ROWS).to_pylist()
    changed = next(row for row in rows if row["status"] == "ok")
    changed["dsmi_z_y"] += 0.01
    write_rows(copied / ROWS, rows)
    write_sums(copied)
    assert verify(copied, sample=2) == 1
    assert (
        f"{changed['model']}@32: dsmi_z_y is {changed['dsmi_z_y']:.6g}; its embedding gives"
        in info_log.text
    )
    assert (
        "summary.json: correlations." in info_log.text
        or "index.html is not what the rows give" in info_log.text
    )


def test_a_number_changed_in_the_page_alone_is_found(
    copied: Path, info_log: pytest.LogCaptureFixture
) -> None:
    page = copied / "index.html"
    page.write_text(page.read_text().replace("of 6 models measured", "of 7 models measured", 1))
    assert verify(copied, sample=0) == 1
    assert "index.html has another content than was published" in info_log.text
    write_sums(copied)
    info_log.clear()
    assert verify(copied, sample=0) == 1
    assert "index.html is not what the rows give" in info_log.text


def test_parts_of_the_summary_that_only_earlier_versions_wrote_are_no_difference(
    copied: Path, info_log: pytest.LogCaptureFixture
) -> None:
    path = copied / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mixed": {"slope": 1.0}}))
    write_sums(copied)
    assert verify(copied, sample=0) == 0, info_log.text


def test_missing_further_and_misleading_files_are_told(
    copied: Path, info_log: pytest.LogCaptureFixture
) -> None:
    (copied / "run.json").replace(copied / "other.json")
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        verify(copied)
    assert "run.json is missing" in info_log.text
    assert "other.json was not published" in info_log.text
    (copied / SUMS).write_text(f"{'0' * 64}  ../../secret\n")
    with pytest.raises(InputError, match="line 1 is not the sum of a file in the folder"):
        verify(copied)


def test_a_newer_release_keeps_the_earlier_one_which_says_that_it_was_superseded(
    run: Path, copied: Path, info_log: pytest.LogCaptureFixture
) -> None:
    first = read_release(copied)
    assert publish(run, copied, license="cc-by-4.0", with_embeddings=True).id == first.id, (
        "nothing has changed"
    )
    assert not (copied / "releases").exists()
    second = publish(run, copied, title="Again <b>")
    kept = copied / "releases" / first.id
    assert second.supersedes == first.id
    assert read_release(kept).superseded_by == second.id
    for name in ("index.html", "README.md"):
        assert f"Superseded by release {second.id}" in (kept / name).read_text()
        assert "Superseded" not in (copied / name).read_text()
    assert not (copied / "embeddings").exists(), "the newer one has none"
    assert list((kept / "embeddings").glob("*.npy"))
    info_log.clear()
    assert verify(copied, sample=1) == 0
    assert verify(kept, sample=1) == 0
    assert f"this release was superseded by {second.id}" in info_log.text


def test_a_publication_that_fails_leaves_the_earlier_release_whole(
    run: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(publishing, "write_page", fail)
    with pytest.raises(OSError, match="no space"):
        publish(run, copied, title="Again")
    monkeypatch.undo()
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=copied, check=True)
    again = publish(run, copied, title="Again")
    assert [path.name for path in (copied / "releases").iterdir()] == [again.supersedes]


def test_what_is_no_place_or_no_run_to_publish_is_refused(
    run: Path, board: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds something else than a release"):
        publish(run, tmp_path)
    with pytest.raises(InputError, match="lie in one another"):
        publish(run, run / "board")
    with pytest.raises(InputError, match="is a published folder, not a run"):
        publish(board, tmp_path / "new")
    with pytest.raises(InputError, match=r"not a published folder: it has no release\.json"):
        verify(run)
    (run_without := tmp_path / "bare").mkdir()
    shutil.copy(run / "run.json", run_without)
    with pytest.raises(InputError, match="has no row to publish"):
        publish(run_without, tmp_path / "new")


def test_a_report_is_compared_with_a_published_folder(
    run: Path, board: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    write_report(out, [board])
    (compared,) = json.loads((out / "report" / "summary.json").read_text())["compared"]
    assert compared["with"] == "board"
    assert {score["agreement"] for score in compared["scores"] if score["score"] == "dsmi_z_y"} <= {
        1.0,
        None,
    }
    with pytest.raises(InputError, match="is a published folder, which has its report"):
        write_report(board)


@pytest.fixture
def hub(hub_port: int) -> Iterator[HubOfDataSets]:
    """Start a hub of data sets at the address in `client_settings`."""
    with HubOfDataSets(port=hub_port) as server:
        yield server


PUSH = """
import os
import sys
import warnings
from pathlib import Path

from huggingface_hub import constants

from dsmi_zoo.jobs.publishing.publish import push

folder, repository, os.environ["HF_TOKEN"] = sys.argv[1:]
constants.HF_HUB_DISABLE_XET = True
warnings.simplefilter("ignore", DeprecationWarning)  # within the client
try:
    print(push(Path(folder), repository))
except ValueError as error:
    print(error)
"""


def pushed(
    client_settings: dict[str, str], folder: Path, repository: str, token: str = "mine"
) -> str:
    """Push in a process with the real client, which reads the hub's address from its environment; return the output."""
    process = start_script(PUSH, folder, repository, token, environment=client_settings)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said.strip()


def test_a_release_is_pushed_to_the_hub_as_a_private_data_set(
    hub: HubOfDataSets, client_settings: dict[str, str], run: Path, copied: Path
) -> None:
    assert pushed(client_settings, copied, "me/board") == f"{hub.endpoint}/datasets/me/board"
    assert hub.private == {"me/board"}
    there = hub.datasets["me/board"]
    here = {
        path.relative_to(copied).as_posix(): path.read_bytes()
        for path in copied.rglob("*")
        if path.is_file()
    }
    assert {name: content for name, content in there.items() if name != ".gitattributes"} == here

    publish(run, copied, title="Again")
    pushed(client_settings, copied, "me/board")
    assert json.loads(there[RELEASE])["title"] == "Again"
    assert not [name for name in there if name.startswith("embeddings/")], (
        "what the newer one lacks is gone"
    )
    assert [name for name in there if name.startswith("releases/")]


def test_a_push_never_removes_what_it_does_not_know(
    hub: HubOfDataSets, client_settings: dict[str, str], copied: Path
) -> None:
    hub.datasets |= {
        "me/photos": {"cat.jpg": b"cat"},
        "me/board": {RELEASE: b'{"id": "2026-01-01-00000000"}'},
    }
    assert "holds something else than a release" in pushed(client_settings, copied, "me/photos")
    assert "which" in (said := pushed(client_settings, copied, "me/board"))
    assert "does not know" in said
    assert hub.datasets["me/photos"] == {"cat.jpg": b"cat"}
    assert "set HF_TOKEN to a token that may write" in pushed(
        client_settings, copied, "me/new", token="other"
    )
    assert "a repository is owner/name" in pushed(client_settings, copied, "board")
