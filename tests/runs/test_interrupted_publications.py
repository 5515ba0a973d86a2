"""Publications that are killed, lose power or overlap: the folder holds either the old or the new release."""

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from power_cuts import Recording, deaths, restore
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256, write_atomically, write_text
from dsmi_zoo.jobs.publishing import publish as publishing
from dsmi_zoo.jobs.publishing import verify as verifying
from dsmi_zoo.jobs.publishing.publish import publish
from dsmi_zoo.jobs.publishing.verify import verify
from dsmi_zoo.pipeline.store.embedding_file import array_bytes, embedding_path
from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.release import READY, Release, read_release, read_sums, rows_and_record
from dsmi_zoo.pipeline.store.run_folder import write_row, write_run
from dsmi_zoo.pipeline.store.subset_file import write_subset

pytestmark = pytest.mark.long


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of two made-up rows with their embeddings."""
    out = tmp_path / "run"
    entries = [EntryRecord(model=m, img_size=32, slug=m, row_id=f"id-{m}") for m in ("a", "b")]
    write_run(out, record_of(*entries))
    numbers = np.arange(4)
    subset = {"image": ["i"] * 4, "label": numbers % 2, "number": numbers, "repeat": 0}
    write_subset(out, pd.DataFrame(subset | {"input_cluster": numbers % 2}))
    for entry in entries:
        embedding = np.full((4, 2), ord(entry.model), np.float32)
        kept = embedding_path(out, entry.slug)
        write_atomically(kept, lambda file, e=embedding: file.write(array_bytes(e)))
        write_row(
            out,
            entry.slug,
            {
                "model": entry.model,
                "img_size": 32,
                "status": "ok",
                "row_id": entry.row_id,
                "own_measures": "",
                "embedding_sha256": array_sha256(embedding),
                "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
            },
        )
    return out


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write pages of a few lines: a real page takes seconds, and there are hundreds of publications."""

    def write_page(rows: pd.DataFrame, _run: Any, folder: Path, release: Release, **_: Any) -> None:
        assert len(rows) == 2
        write_text(folder / f"figures/{release.title}.svg", "<svg/>")
        write_text(folder / "summary.json", "{}")
        write_text(folder / "README.md", release.id)
        write_text(folder / "index.html", release.id)

    def with_notice(text: str, newer: Release) -> str:
        return f"{text} superseded by {newer.id}"

    monkeypatch.setattr(publishing, "git_commit", lambda: None)
    for module in (publishing, verifying):
        monkeypatch.setattr(module, "write_page", write_page)
    for name in publishing.NOTICES:
        monkeypatch.setitem(publishing.NOTICES, name, with_notice)


def assert_whole(folder: Path, number: int) -> None:
    """Check hashes after interruption ``number``; `verify` first if a release is pending or 10 divides ``number``."""
    if (folder / READY).exists() or number % 10 == 0:
        assert verify(folder, sample=0) == 0, number
    assert list(verifying._changed_files(folder, read_sums(folder))) == [], number


def test_a_publication_that_dies_at_any_operation_leaves_the_old_or_the_new_release(
    run: Path, tmp_path: Path
) -> None:
    into, aside = tmp_path / "board", tmp_path / "aside"
    first = publish(run, into, title="first", with_embeddings=True)
    shutil.copytree(into, aside)
    second = publish_id(run, "second")
    found = []
    for number in deaths(lambda: publish(run, into, title="second"), into, every=3):
        assert_whole(into, number)
        found.append(read_release(into).title)
        if found[-1] == "second":
            assert_whole(into / "releases" / first.id, number)
        if number % 15 == 0:
            third = publish(run, into, title="third")
            assert third.supersedes == (first.id if found[-1] == "first" else second)
            assert_whole(into, number)
        shutil.rmtree(into)
        shutil.copytree(aside, into)
    assert found == sorted(found)
    assert {"first", "second"} == set(found)


def test_a_first_publication_that_dies_at_any_operation_can_be_repeated(
    run: Path, tmp_path: Path
) -> None:
    into = tmp_path / "board"
    for _ in deaths(lambda: publish(run, into, title="first"), into, every=3):
        publish(run, into, title="second")
        assert read_release(into).title == "second"
        assert_whole(into, 1)
        shutil.rmtree(into)


def test_after_a_power_cut_at_any_step_a_publication_is_the_old_or_the_new_release(
    run: Path, tmp_path: Path
) -> None:
    (disk := tmp_path / "disk").mkdir()
    publish(run, disk / "board", title="first", with_embeddings=True)
    recording = Recording(disk)
    with recording.recording():
        publish(run, disk / "board", title="second")
    found = []
    for number, (cut, state) in enumerate(recording.cuts(every=3)):
        board = restore(state, tmp_path / "after") / "board"
        assert_whole(board, number)
        found.append((cut, read_release(board).title))
        if number % 10 == 0:
            publish(run, board, title="third")
            assert_whole(board, number)
    assert {title for _, title in found} == {"first", "second"}
    assert {title for cut, title in found if cut == len(recording.steps)} == {"second"}


def publish_id(run: Path, title: str) -> str:
    """Publish the run with this title to another folder, and return the release's id."""
    other = run.with_name(f"only-{title}")
    return publish(run, other, title=title).id


def test_of_two_publications_at_once_one_wins_and_the_earlier_release_survives(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "board"
    first = publish(run, into, title="first")
    both_began, real = threading.Event(), publishing.write_page

    def slow_page(*arguments: Any, **options: Any) -> None:
        both_began.wait(30)
        real(*arguments, **options)

    monkeypatch.setattr(publishing, "write_page", slow_page)
    winner = threading.Thread(target=publish, args=(run, into, "second"))
    winner.start()
    while not (into / publishing.NEXT).exists():
        threading.Event().wait(0.01)
    with pytest.raises(InputError, match=r"board is being published to by process \d+ on"):
        publish(run, into, title="third")
    both_began.set()
    winner.join()
    assert read_release(into).title == "second"
    assert verify(into, sample=0) == 0
    assert verify(into / "releases" / first.id, sample=0) == 0


def test_a_release_that_is_being_replaced_is_not_read(run: Path, tmp_path: Path) -> None:
    into = tmp_path / "board"
    publish(run, into, title="first")
    shutil.copytree(into, into / READY)
    with pytest.raises(InputError, match=r"`dsmi-zoo verify .*board` finishes it"):
        rows_and_record(into)
    assert verify(into, sample=0) == 0
    assert len(rows_and_record(into)[0]) == 2


def test_a_verification_during_a_publication_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "board"
    publish(run, into, title="first")
    real = verifying.write_page

    def publish_meanwhile(*arguments: Any, **options: Any) -> None:
        publish(run, into, title="second")
        real(*arguments, **options)

    monkeypatch.setattr(verifying, "write_page", publish_meanwhile)
    with pytest.raises(InputError, match="was published to meanwhile; verify it again"):
        verify(into, sample=0)


def test_nothing_is_moved_out_of_the_folder_by_a_link(run: Path, tmp_path: Path) -> None:
    into, outside = tmp_path / "board", tmp_path / "outside"
    publish(run, into, title="first")
    shutil.copytree(into, into / READY)
    shutil.rmtree(into / "figures")
    outside.mkdir()
    (into / "figures").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of the folder by a symbolic link"):
        verify(into, sample=0)
    assert not list(outside.iterdir())
