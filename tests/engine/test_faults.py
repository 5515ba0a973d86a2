"""Faults of workers, drivers and schedulers: every entry still ends with one correct row, and nothing is lost."""

import os
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import IMAGES_PER_CLASS, SMALL_ZOO, Command
from processes import Process, free_port, start_command, start_dask, stop

from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

DSMI_ZOO = str(Path(sys.executable).with_name("dsmi-zoo"))
TRAP = """
import os, time
import numpy as np

EMBEDDINGS = {{name: np.load(path) for name, path in {paths!r}.items()}}
ACTIONS = {actions!r}

def name_of(Z):
    for name, known in EMBEDDINGS.items():
        if Z.shape == known.shape and np.allclose(Z, known, atol=1e-4):
            return name

def trap(Z, labels):
    name = name_of(Z)
    with open({tally!r}, "a") as file:
        file.write(f"{{name}}\\n")
    exec(ACTIONS.get(name, ""))
    return 0.0
"""
TARGET = "test_vit.900x2"
ZOO = (*SMALL_ZOO, "--images-per-class", str(IMAGES_PER_CLASS))
Trap = Callable[[dict[str, str]], Path]


@pytest.fixture
def trap(small_run: Path, tmp_path: Path) -> Trap:
    """Write a user's measure that runs given code for certain models; it records the model of each call in a tally."""

    def write(actions: dict[str, str]) -> Path:
        tally = tmp_path / "tally"
        tally.touch()
        paths = {
            entry.model: str(embedding_path(small_run, entry.slug))
            for entry in read_run(small_run).entries
        }
        code = TRAP.format(paths=paths, tally=str(tally), actions=actions)
        (tmp_path / "trapped.py").write_text(code)
        return tally

    return write


def hanging_at_first(marker: Path) -> str:
    """Return code that hangs the first time it runs, and appends its pid to a file."""
    return f"""first = not os.path.exists({str(marker)!r})
open({str(marker)!r}, "a").write(str(os.getpid()))
time.sleep(600 * first)"""


def counts(tally: Path) -> Counter[str]:
    return Counter(tally.read_text().splitlines())


def assert_all_right_but(failed: dict[str, str], out: Path, small_run: Path) -> None:
    """Assert one row per entry: the listed ones failed as given, the others equal those of an undisturbed run."""
    rows = read_results(out).set_index("model")
    assert sorted(rows.index) == sorted(read_results(small_run)["model"])
    bad = rows[rows["status"] == "failed"]
    assert bad["error_type"].to_dict() == failed
    right = read_results(small_run).set_index("model").drop(index=list(failed))
    measured = ["embedding_sha256", "dse_z", "dsmi_z_y", "dsmi_z_x", "top1"]
    pd.testing.assert_frame_equal(rows.loc[right.index, measured], right[measured])


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


Start = Callable[..., Process]


@pytest.fixture
def start(cache: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the command without waiting for it; it is killed when the test ends, and its workers end with it."""
    started: list[Process] = []

    def run(*arguments: object, **environment: str) -> Process:
        started.append(
            start_command(
                *arguments,
                cwd=tmp_path,
                environment={"DSMI_ZOO_CACHE": str(cache)} | environment,
            )
        )
        return started[-1]

    yield run
    for driver in started:
        driver.kill()
        driver.wait(30)


HOARDS = """hoard = []
while True:
    hoard.append(np.ones(1 << 24))
    time.sleep(0.02)"""


def test_whatever_models_do_to_processes_the_others_are_measured_once_and_right(
    trap: Trap, tmp_path: Path, small_run: Path, start: Start
) -> None:
    """Models exit, hang, request or use too much memory, and the worker of one is killed from outside."""
    exits, hangs, loses_its_worker = "test_vit.900x2", "test_vit.100x3", "test_vit.900x5"
    asks, takes, undisturbed = "test_resnet.900x2", "test_resnet.100x3", "test_resnet.900x5"
    out, marker = tmp_path / "out", tmp_path / "first"
    actions = {
        exits: "os._exit(3)",
        hangs: "time.sleep(600)",
        asks: "np.zeros(1 << 44)",
        takes: HOARDS,
        loses_its_worker: hanging_at_first(marker),
    }
    tally = trap(actions)
    limits = ("--model-timeout", "12s", "--worker-memory", "2GB", "--workers", 2)
    driver = start("run", "--models", *ZOO, "--out", out, "--measure", "trapped:trap", *limits)
    wait_for(lambda: marker.exists() and marker.read_text())
    os.kill(int(marker.read_text()), signal.SIGKILL)
    said, _ = driver.communicate(timeout=240)
    assert driver.returncode == 1
    failed = {
        exits: "KilledWorker",
        hangs: "TimeoutError",
        asks: "ValueError",
        takes: "KilledWorker",
    }
    assert_all_right_but(failed, out, small_run)
    assert (
        "its worker process died 3 times, the last time with exit code 3, with nothing else running"
        in said
    )
    expected = {exits: 3, takes: 3, loses_its_worker: 2, hangs: 1, asks: 1, undisturbed: 1}
    assert counts(tally) == expected
    messages = read_results(out).set_index("model")["error_message"]
    assert "Unable to allocate 128. TiB" in messages[asks]
    log = Path(re.search(r"--model-timeout 12 s; see (\S+)$", messages[hangs])[1])  # type: ignore[index]
    assert "trapped.py" in log.read_text()
    assert [path for path in log.parent.iterdir() if path.stat().st_size] == [log]


@pytest.mark.slow
def test_a_view_larger_than_a_workers_memory_is_made_and_read_within_it(
    tmp_path: Path, cli: Command
) -> None:
    if shutil.disk_usage(tmp_path).free < 8e9:
        pytest.skip("the view takes 2 GB of disk")
    (tmp_path / "small.py").write_text(
        "import torch\n"
        "def net():\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))\n"
    )
    (tmp_path / "zoo.csv").write_text("model,builder,img_size\nmine,small:net,1248\n")
    own_cache = ("--cache", tmp_path / "cache")
    run = (
        "run",
        "--catalog",
        "zoo.csv",
        "--dataset",
        "digits",
        *own_cache,
        "--workers",
        1,
        "--batch-size",
        1,
    )
    cli(*run, "--worker-memory", "1.8GB", "--out", tmp_path / "out", cwd=tmp_path)
    assert list(read_results(tmp_path / "out")["status"]) == ["ok"]
    (view,) = (tmp_path / "cache" / "views").glob("*.npy")
    assert view.stat().st_size > 2.0e9
    view.unlink()


def test_a_second_driver_is_refused_by_name_and_a_dead_ones_lock_is_taken(
    trap: Trap,
    tmp_path: Path,
    small_run: Path,
    cli: Command,
    start: Start,
) -> None:
    hangs = tmp_path / "first"
    trap({TARGET: hanging_at_first(hangs)})
    out = tmp_path / "out"
    run = ("run", "--models", *ZOO, "--out", out, "--measure", "trapped:trap", "--workers", 1)
    driver = start(*run)
    # If the driver were killed before the measure hangs, the next driver would hang instead.
    wait_for(lambda: hangs.exists() and list((out / "results").glob("*.parquet")))
    named = f"process {driver.pid} on {socket.gethostname()}"
    for command in (run, ("rerun", TARGET, "--out", out), (*run, "--share", "1/2")):
        assert f"{out} is being computed by {named}" in cli(*command, cwd=tmp_path, code=2).stderr
    assert f"being computed by {named}" in cli("status", "--out", out).stdout
    driver.kill()
    driver.communicate(timeout=30)
    assert "being computed" not in cli("status", "--out", out).stdout
    finished = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.parquet")}
    (tmp_path / "trapped.py").write_text((tmp_path / "trapped.py").read_text())
    cli(*run, cwd=tmp_path)
    assert_all_right_but({}, out, small_run)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.fixture
def scheduler(cache: Path, tmp_path: Path) -> Iterator[Callable[[int, int], list[Process]]]:
    """Start Dask's own scheduler and workers at a port; they are stopped when the test ends."""
    started: list[Process] = []

    def begin(port: int, workers: int) -> list[Process]:
        processes = start_dask(port, workers, cache, tmp_path)
        started.extend(processes)
        return processes

    yield begin
    stop(started)


def test_a_run_leaves_a_given_scheduler_running_and_goes_on_after_it_was_gone(
    trap: Trap,
    tmp_path: Path,
    small_run: Path,
    start: Start,
    scheduler: Callable[[int, int], list[Process]],
    cli: Command,
) -> None:
    out, port, first = tmp_path / "out", free_port(), tmp_path / "first"
    trap({TARGET: hanging_at_first(first)})
    there = scheduler(port, 1)
    run = ("run", "--models", *ZOO, "--out", out, "--measure", "trapped:trap")
    run = (*run, "--cluster", f"tcp://127.0.0.1:{port}")
    driver = start(*run)
    wait_for(lambda: first.exists() and list((out / "results").glob("*.parquet")))
    there[0].kill()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert f"the Dask scheduler at tcp://127.0.0.1:{port} is gone; finished rows are kept" in errors
    assert "Traceback" not in errors
    finished = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.parquet")}
    there[1].kill()
    there = scheduler(port, 2)
    cli(*run, cwd=tmp_path)
    assert_all_right_but({}, out, small_run)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert all(process.poll() is None for process in there)
    assert read_run(out).config.compute.cluster == f"tcp://127.0.0.1:{port}"


def test_shares_run_side_by_side_and_survive_a_model_that_kills_its_process(
    trap: Trap,
    tmp_path: Path,
    small_run: Path,
    start: Start,
    cli: Command,
) -> None:
    tally, out = trap({TARGET: "os._exit(3)"}), tmp_path / "out"
    run = ("run", "--models", *ZOO, "--out", out, "--measure", "trapped:trap", "--workers", 1)
    drivers = [start(*run, "--share", f"{part}/2") for part in (1, 2)]
    said = [driver.communicate(timeout=180) for driver in drivers]
    assert sorted(driver.returncode for driver in drivers) == [0, 1], said
    assert_all_right_but({TARGET: "KilledWorker"}, out, small_run)
    calls = counts(tally)
    assert calls.pop(TARGET) == 3
    assert set(calls.values()) == {1}
    cli("report", "--out", out)


def test_shares_of_another_division_and_nonsense_are_refused_in_one_line(
    tmp_path: Path, cli: Command
) -> None:
    for share in ("0/2", "3/2", "half", "1/0"):
        said = cli("run", "--out", tmp_path, "--share", share, code=2).stderr
        assert "--share: must be such as 3/8" in said
    said = cli("run", "--out", tmp_path, "--share", "1/2", "--budget", "1h", code=2).stderr
    assert "share cannot be combined with a budget" in said


COUNTED = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Flatten(), Counted(3 * 32 * 32, 8))

class Counted(torch.nn.Linear):
    def forward(self, x):
        with open("passes", "a") as file:
            file.write("pass\\n")
        return super().forward(x)
"""
# In a separate file: the driver tries a measure's module in a child process, where torch takes seconds to import.
DEADLY = """
import os
from pathlib import Path

def dies_at_first(Z, labels):
    first = not Path("first").exists()
    Path("first").touch()
    if first:
        os._exit(3)
    return 0.0
"""


def test_an_embedding_is_not_computed_again_when_its_process_died_in_the_measures(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "zoo.csv").write_text("model,builder,img_size\nnet,counted:net,32\n")
    run = (
        "run",
        "--catalog",
        "zoo.csv",
        "--batch-size",
        1000,
        "--measure",
        "deadly:dies_at_first",
    )
    for out, further in ((tmp_path / "kept", ()), (tmp_path / "dropped", ("--drop-embeddings",))):
        cli(*run, "--out", out, *further, "--no-report", cwd=tmp_path)
        assert (tmp_path / "passes").read_text() == "pass\n"
        rows = read_results(out)
        assert list(rows["status"]) == ["ok"]
        assert len(list((out / "embeddings").glob("*.npy"))) == (0 if further else 1)
        assert not (out / "attempts").exists()
        (tmp_path / "passes").unlink()
        (tmp_path / "first").unlink()
