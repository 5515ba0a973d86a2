"""A disk that is really full: the run stops with one line, keeps finished rows, and resumes when there is room."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_ZOO, Command, Mount

from dsmi_zoo.pipeline.store.run_folder import read_results


def test_a_full_disk_under_out_stops_the_run_and_keeps_what_is_finished(
    mount: Mount, small_run: Path, tmp_path: Path, cli: Command
) -> None:
    out = mount("350k") / "out"
    stopped = cli("run", "--models", *SMALL_ZOO, "--out", out, code=2)
    lines = stopped.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"dsmi-zoo: {out}")
    assert "no space left; make room" in lines[0]
    rows = read_results(out)
    assert 1 <= len(rows) < 6
    assert (rows["status"] == "ok").all()
    moved = Path(shutil.copytree(out, tmp_path / "roomy"))
    assert (
        f"{len(rows)} of 6 models are done already"
        in cli("run", "--models", *SMALL_ZOO, "--out", moved).stdout
    )
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


@pytest.mark.processes
def test_a_full_shared_memory_is_named_before_workers_start(cache: Path, tmp_path: Path) -> None:
    full = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full"
    start = f"{shlex.quote(str(Path(sys.executable).with_name('dsmi-zoo')))} run --models test_vit.100x3"
    command = f"{full} && {start} --images-per-class 2 --out {shlex.quote(str(tmp_path / 'out'))}"
    stopped = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DSMI_ZOO_CACHE": str(cache)},
    )
    if stopped.returncode in (1, 32):
        pytest.skip(f"cannot mount a file system here: {stopped.stderr.strip()}")
    assert stopped.returncode == 2
    assert stopped.stderr.splitlines()[-1] == (
        "dsmi-zoo: /dev/shm: No space left on device; processes keep their semaphores there, so make room"
    )
