"""Machine-wide locks, the time limit of a model, and turns on a GPU that several processes share."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from dsmi_zoo._util.locks import machine_lock
from dsmi_zoo.pipeline.engine.time_limit import ModelClock, gpu_turn

pytestmark = pytest.mark.long

HOLDER = """
import sys, time
from dsmi_zoo._util.locks import machine_lock
with machine_lock(sys.argv[1], shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""
CLOCK = """
import sys, time
from pathlib import Path
from dsmi_zoo.pipeline.engine.time_limit import ModelClock
clock = ModelClock(1.0, Path(sys.argv[1]))
with clock.running():
    with clock.stopped():
        time.sleep(1.5)
    print("waited", flush=True)
    time.sleep(30)
"""
TURN = """
import sys
from pathlib import Path
import torch
from dsmi_zoo.pipeline.engine.time_limit import gpu_turn
from dsmi_zoo.pipeline.engine.time_limit import ModelClock
model, clock = torch.nn.Linear(3, 2), ModelClock(float(sys.argv[2]), Path(sys.argv[1], "log"))
device = torch.device("meta")  # there is everywhere, and is not the CPU
print("imported", flush=True)
with clock.running(), gpu_turn(model, device, clock):
    print(model.weight.device, end=", then ")
print(model.weight.device)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def holder(name: str, how: str, seconds: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, name, how, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def seconds_to_get(name: str, *, shared: bool = False) -> float:
    started = time.monotonic()
    with machine_lock(name, shared=shared):
        return time.monotonic() - started


def test_a_lock_is_held_by_one_or_shared_by_several_and_ends_with_a_killed_one() -> None:
    with holder("a", "shared", 1.0):
        assert seconds_to_get("a", shared=True) < 0.2
        assert seconds_to_get("another") < 0.2
        assert seconds_to_get("a") > 0.5
    with holder("a", "alone", 600) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert seconds_to_get("a", shared=True) < 5


def test_a_folder_of_locks_that_others_could_change_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / f"dsmi-zoo-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with (
        pytest.raises(PermissionError, match="not a folder that only you can write to"),
        machine_lock("a"),
    ):
        pass
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with (
        pytest.raises(PermissionError, match="not a folder that only you can write to"),
        machine_lock("a"),
    ):
        pass
    assert not list(elsewhere.iterdir())


def test_a_models_clock_stands_while_it_waits_and_ends_its_process_in_time(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "model.timeout.txt"
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", CLOCK, str(log)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "waited\n")
    assert 2.4 < time.monotonic() - started < 20
    assert "Timeout" in log.read_text()
    with ModelClock(60.0, log).running():
        assert log.read_text() == ""
    assert not log.exists()
    with suppress(ValueError), ModelClock(60.0, log).running():
        raise ValueError
    assert not log.exists()


def test_a_turn_waits_outside_the_models_time_and_gives_its_memory_back(tmp_path: Path) -> None:
    limit_s, pipe = 2.0, subprocess.PIPE
    command = [sys.executable, "-c", TURN, str(tmp_path), str(limit_s)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        with machine_lock("device meta"):
            assert process.stdout.readline() == "imported\n"
            time.sleep(limit_s + 1)  # a running clock would have ended the process
        said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (0, "cpu, then meta\n", "")
    model, clock = torch.nn.Linear(3, 2), ModelClock(None, tmp_path / "log")
    with holder("device cpu", "alone", 600) as process, gpu_turn(model, torch.device("cpu"), clock):
        process.kill()  # the CPU needs no turn, so nothing waited for it
    assert model.weight.device.type == "cpu"
