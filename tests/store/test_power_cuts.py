"""Power cuts at each step of a run, a merge and a remeasure: no finished row is lost and no wrong value is read."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from conftest import IMAGES_PER_CLASS, Command
from power_cuts import LOCK_FOLDERS, Recording, deaths, restore

import dsmi_zoo
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs.driver_lock import driver_lock
from dsmi_zoo.jobs.runs.merge import merge
from dsmi_zoo.jobs.runs.remeasure import remeasure
from dsmi_zoo.jobs.runs.state import entry_states, record_unless_lost
from dsmi_zoo.pipeline.store.embedding_file import embedding_path, read_embedding
from dsmi_zoo.pipeline.store.record import LostRecord
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, scan_results

if TYPE_CHECKING:
    from dsmi_zoo.pipeline.engine.workers import Workers

pytestmark = pytest.mark.long

TINY = ("test_vit.100x3", "test_resnet.100x3")


@pytest.fixture(scope="module")
def recorded(
    cache: Path, thread_workers: "Workers", tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    """Record all file operations of a run of two models."""
    disk = tmp_path_factory.mktemp("disk")
    recording = Recording(disk)
    with pytest.MonkeyPatch.context() as patch, recording.recording():
        patch.setenv("DSMI_ZOO_CACHE", str(cache))
        patch.setattr(
            "dsmi_zoo.jobs.clusters.existing.refuse_unfit", lambda *_: None
        )  # its workers are threads of this process
        dsmi_zoo.run(
            "digits",
            out=disk / "out",
            models=TINY,
            images_per_class=IMAGES_PER_CLASS,
            no_report=True,
            client=thread_workers.client,
        )
    return recording


def is_private(path: Path) -> bool:
    """Return whether a file belongs to a lock, an unfinished attempt or a log, none of which need survive."""
    return bool({*LOCK_FOLDERS, "logs"} & set(path.parts)) or path.parent.name == "attempts"


def test_every_file_of_a_run_is_renamed_when_it_is_whole(recorded: Recording) -> None:
    written = [path for kind, path, _ in recorded.paths if kind == "write"]
    assert [path for path in written if path.suffix != ".tmp" and not is_private(path)] == []


def test_a_finished_run_survives_a_power_cut_at_once(recorded: Recording, tmp_path: Path) -> None:
    out = recorded.root / "out"
    for cut, state in recorded.cuts(every=len(recorded.steps)):
        if cut:
            after = restore(state, tmp_path / "disk") / "out"
            pd.testing.assert_frame_equal(read_results(after), read_results(out))
            assert read_run(after).entries == read_run(out).entries
            assert (after / "subset.parquet").read_bytes() == (out / "subset.parquet").read_bytes()
            assert_sound(after, out)


def assert_sound(after: Path, out: Path) -> int:
    """Check that everything readable below ``after`` equals the run ``out``; return the number of rows."""
    right, _ = scan_results(out)
    rows, _ = scan_results(after)
    for slug, row in rows.items():
        assert row == right[slug]
        if row["status"] == "ok":
            read_embedding(embedding_path(after, slug), row["embedding_sha256"])
    entries = read_run(out).entries
    record_unless_lost(after, {entry.slug: entry.row_id for entry in entries})
    try:
        states, _ = entry_states(after, read_run(after).entries)
        assert sum(state.row is not None for state in states) == len(rows)
    except LostRecord:
        assert not rows
    return len(rows)


def test_after_a_power_cut_at_any_step_of_a_run_each_row_is_right_or_missing(
    recorded: Recording, tmp_path: Path
) -> None:
    rows = [
        assert_sound(restore(state, tmp_path / "disk") / "out", recorded.root / "out")
        for _, state in recorded.cuts(every=2)
    ]
    assert {0, 1, 2} == set(rows)


def test_the_same_command_goes_on_after_a_power_cut(
    recorded: Recording, tmp_path: Path, cli: Command
) -> None:
    states = [state for _, state in recorded.cuts() if "out/results" in state]
    out, before = tmp_path / "disk" / "out", read_results(recorded.root / "out")
    measured = ["model", "dse_z", "dsmi_z_y", "embedding_sha256", "row_id", "status"]
    for state in (states[len(states) // 2], states[-30]):
        restore(state, tmp_path / "disk")
        cli("run", "--models", *TINY, "--out", out)
        pd.testing.assert_frame_equal(read_results(out)[measured], before[measured])


@pytest.fixture
def halves(recorded: Recording, tmp_path: Path) -> list[Path]:
    """Return two runs, each with one row of the recorded run."""
    folders = []
    for number, entry in enumerate(read_run(recorded.root / "out").entries):
        half = Path(shutil.copytree(recorded.root / "out", tmp_path / f"half-{number}"))
        (half / "results" / f"{entry.slug}.parquet").unlink()
        embedding_path(half, entry.slug).unlink()
        folders.append(half)
    return folders


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip a merge's report, which takes seconds."""
    monkeypatch.setattr("dsmi_zoo.jobs.runs.merge.conclude", lambda *_, **__: 0)


@pytest.mark.usefixtures("no_report")
def test_after_a_power_cut_at_any_step_of_a_merge_the_same_merge_goes_on(
    recorded: Recording, halves: list[Path], tmp_path: Path
) -> None:
    (disk := tmp_path / "disk").mkdir()
    recording = Recording(disk)
    with recording.recording():
        merge(halves, disk / "out")
    for number, (cut, state) in enumerate(recording.cuts()):
        after = restore(state, tmp_path / "after") / "out"
        rows = assert_sound(after, recorded.root / "out")
        assert rows == 2 or cut < len(recording.steps)
        if number % 10 == 0:
            merge(halves, after)
            assert assert_sound(after, recorded.root / "out") == 2


@pytest.mark.usefixtures("no_report")
def test_a_merge_that_dies_at_any_operation_goes_on(
    recorded: Recording, halves: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    for _ in deaths(lambda: merge(halves, out), tmp_path, every=2):
        assert_sound(out, recorded.root / "out")
        merge(halves, out)
        assert assert_sound(out, recorded.root / "out") == 2
        shutil.rmtree(out)


@pytest.mark.usefixtures("no_report")
def test_of_two_merges_into_one_folder_the_second_is_refused(
    halves: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge(halves, out)
    before = read_results(out)
    with driver_lock(out), pytest.raises(InputError, match="is being computed by process"):
        merge(halves, out)
    pd.testing.assert_frame_equal(read_results(out), before)


@pytest.fixture
def in_this_process(thread_workers: "Workers", monkeypatch: pytest.MonkeyPatch) -> None:
    """Remeasure in threads of this process and without a report, which takes seconds."""
    of_remeasure = "dsmi_zoo.jobs.runs.remeasure"
    monkeypatch.setattr(
        f"{of_remeasure}.open_workers", lambda *_, **__: nullcontext(thread_workers)
    )
    monkeypatch.setattr(f"{of_remeasure}.conclude", lambda *_, **__: 0)


@pytest.mark.usefixtures("in_this_process")
def test_after_a_power_cut_at_any_step_the_same_remeasure_goes_on(
    recorded: Recording, tmp_path: Path
) -> None:
    run = recorded.root / "out"
    (disk := tmp_path / "disk").mkdir()
    recording = Recording(disk)
    with recording.recording():
        remeasure(run, disk / "out", {"t": 2}, {})
    right, _ = scan_results(disk / "out")
    measured = {slug: row["dse_z"] for slug, row in right.items()}
    assert len(measured) == 2
    states = list(recording.cuts(every=3))
    for number, (_, state) in enumerate(states):
        after = restore(state, tmp_path / "after") / "out"
        rows, _ = scan_results(after)
        assert all(row == right[slug] for slug, row in rows.items())
        if number % (len(states) // 2) == 0:
            remeasure(run, after, {"t": 2}, {})
            again, _ = scan_results(after)
            assert {slug: row["dse_z"] for slug, row in again.items()} == measured
    assert assert_sound(run, run) == 2


@pytest.mark.usefixtures("in_this_process")
def test_of_two_remeasures_into_one_folder_the_second_is_refused(
    recorded: Recording, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver_lock(out), pytest.raises(InputError, match="is being computed by process"):
        remeasure(recorded.root / "out", out, {"t": 2}, {})
    assert not scan_results(out)[0]
