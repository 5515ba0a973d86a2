"""Downloads in waves that fit a budget, and locks that admit one process at a time."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import STALE_AFTER_S, exclusive
from dsmi_zoo.pipeline.weights.waves import plan_waves


def test_waves_hold_every_file_once_in_order_and_fit_the_budget() -> None:
    sizes = {"a": 5, "b": 5, "c": 1, "d": 10, "e": None, "f": 0, "g": 3}
    waves = plan_waves(sizes, 10)
    assert waves == [["a", "b"], ["c"], ["d"], ["e", "f"], ["g"]]
    assert plan_waves({}, 10) == []
    with pytest.raises(InputError, match=r"big needs 3.0 GB, more than --budget-gb 2; "):
        plan_waves({"small": 1, "big": 3 * 10**9}, 2 * 10**9)


def test_a_lock_whose_owner_died_or_stopped_beating_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import os, sys; from pathlib import Path; from dsmi_zoo._util.locks import exclusive\n"
    code += "with exclusive(Path(sys.argv[1])): os._exit(0)"
    subprocess.run([sys.executable, "-c", code, lock], check=True, timeout=60)
    assert lock.exists()
    started = time.monotonic()
    with exclusive(lock):  # at once, not after the three minutes until it is stale
        assert lock.exists()
    assert time.monotonic() - started < STALE_AFTER_S / 2
    started = time.monotonic()
    lock.mkdir()
    (lock / f"host=elsewhere,boot=b,space=1,pid=1,start=2,claim={'0' * 32}").touch()
    with exclusive(lock, stale_after_s=0.5):
        assert "elsewhere" not in next(lock.iterdir()).name
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started > 0.5


def test_a_lock_that_beats_is_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    done = tmp_path / "done"
    code = (
        "import sys, time; from pathlib import Path; from dsmi_zoo._util.locks import exclusive\n"
    )
    code += "with exclusive(Path(sys.argv[1]), beat_s=0.1):\n"
    code += "    print('held', flush=True); time.sleep(1.5); Path(sys.argv[2]).touch()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, lock, done], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with exclusive(lock, stale_after_s=0.6):
        assert done.exists()
    assert holder.wait(timeout=60) == 0
    holder.stdout.close()
