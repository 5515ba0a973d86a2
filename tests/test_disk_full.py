"""A full disk, a real one: the run stops in one line, what was finished stays, and it goes on when there is room."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SMALL_ZOO, Command

from dsmi_zoo.pipeline.store import read_results

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system in memory; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()

    def of_size(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        return folder

    yield of_size
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_full_disk_under_out_stops_the_run_and_keeps_what_is_finished(
    mount: Mount, small_run: Path, tmp_path: Path, cli: Command
) -> None:
    out = mount("600k") / "out"
    stopped = cli("run", "--models", *SMALL_ZOO, "--out", out, code=2)
    lines = stopped.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"dsmi-zoo: {out}")
    assert "no space left; make room" in lines[0]
    rows = read_results(out)
    assert 1 <= len(rows) < 6
    assert (rows["status"] == "ok").all()
    moved = Path(shutil.copytree(out, tmp_path / "roomy"))
    assert f"{len(rows)} of 6 models are done already" in cli("run", "--models", *SMALL_ZOO, "--out", moved).stdout
    again = read_results(moved).set_index("model")
    assert (again["status"] == "ok").all()
    assert again.loc[rows["model"], "finished_at"].tolist() == rows["finished_at"].tolist()


def test_a_full_disk_under_the_cache_is_named_before_any_row_is_computed(
    mount: Mount, tmp_path: Path, cli: Command
) -> None:
    cache = mount("200k")
    out = tmp_path / "out"
    stopped = cli("run", "--models", "test_vit.100x3", "--out", out, "--cache", cache, code=2)
    assert stopped.stderr.startswith(f"dsmi-zoo: {cache}/views/")
    assert "no space left" in stopped.stderr
    assert not list((out / "results").glob("*.parquet"))
