"""Locks and drivers when processes start at once, die, are suspended, or find other files in a lock's place."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from interleavings import STALE_AFTER_S, Given, explore

from dsmi_zoo._util import locks
from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import LockHeldError, acquired, exclusive, holder
from dsmi_zoo.jobs.runs.driver_lock import driver_lock, drivers, drivers_folder

pytestmark = pytest.mark.long

ROUNDS = 25
BEGINNERS = (None, "1/2", "2/2", None)
HERE, THERE = "host=here,boot=b,space=1", "host=there,boot=b,space=1"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start programs that have imported `exclusive` and the like and know the path ``lock``; kill them at the end."""
    started: list[subprocess.Popen[str]] = []
    pipe = subprocess.PIPE
    head = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from dsmi_zoo.jobs.runs.driver_lock import driver_lock\n"
        "from dsmi_zoo._util.locks import acquired, exclusive\nlock = Path(sys.argv[1])\n"
    )

    def start(code: str, lock: Path) -> "subprocess.Popen[str]":
        program = [sys.executable, "-c", head + code, str(lock)]
        started.append(subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def seconds_to_take(lock: Path, **how: float) -> float:
    started = time.monotonic()
    with exclusive(lock, **how):
        return time.monotonic() - started


def a_lock_of(lock: Path, machine: str, pid: int, start: str = "5") -> Path:
    """Create another process's lock and return its file."""
    lock.mkdir(parents=True)
    file = lock / f"{machine},pid={pid},start={start},claim={pid:032x}"
    file.touch()
    return file


# Drivers that start at the same time.


def begin_again_and_again(number: int, out: Path, barrier: Any, results: Any) -> None:
    for round_ in range(ROUNDS):
        barrier.wait(60)
        try:
            with driver_lock(out, BEGINNERS[number]):
                results.put((round_, number))
                barrier.wait(60)  # all have won or lost by now
        except InputError:
            barrier.wait(60)


def test_drivers_and_shares_that_begin_at_once_never_exclude_each_other_and_win(
    tmp_path: Path,
) -> None:
    context = get_context("spawn")
    barrier, results = context.Barrier(len(BEGINNERS)), context.Queue()
    arguments = [(number, tmp_path / "out", barrier, results) for number in range(len(BEGINNERS))]
    processes = [context.Process(target=begin_again_and_again, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    winners: dict[int, set[int]] = {round_: set() for round_ in range(ROUNDS)}
    while not results.empty():
        round_, number = results.get()
        winners[round_].add(number)
    assert set(map(frozenset, winners.values())) <= {
        frozenset({0}),
        frozenset({3}),
        frozenset({1, 2}),
    }
    assert [path.name for path in drivers_folder(tmp_path / "out").iterdir()] == []


def test_a_driver_that_died_at_its_start_blocks_nobody(
    script: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    dies = "module.acquired = lambda lock: os.kill(os.getpid(), signal.SIGKILL)"
    code = f"import dsmi_zoo.jobs.runs.driver_lock as module\n{dies}\n"
    script(f"{code}with driver_lock(lock): pass", out).wait(60)
    assert [path.name for path in drivers_folder(out).iterdir()] == ["entrance"]
    assert drivers(out) == {}
    started = time.monotonic()
    with driver_lock(out):
        assert time.monotonic() - started < 10
        assert list(drivers(out)) == ["whole"]


def test_a_driver_suspended_at_its_start_does_not_run_beside_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over(lock: Path) -> Any:
        entrance = next((lock.parent / "entrance").iterdir())
        entrance.rename(entrance.with_name(f"{THERE},pid=7,start=5,claim={7:032x}"))
        return acquired(lock)

    monkeypatch.setattr("dsmi_zoo.jobs.runs.driver_lock.acquired", taken_over)
    with pytest.raises(InputError, match="was stopped while it began"), driver_lock(tmp_path):
        pass
    assert drivers(tmp_path) == {}


def test_an_out_where_no_lock_can_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    drivers_folder(tmp_path).write_text("")
    with pytest.raises(
        InputError, match=r"drivers cannot be written \(File exists\); choose another --out"
    ):
        driver_lock(tmp_path).__enter__()


# Every interleaving.


def stale(lock: Path) -> None:
    file = a_lock_of(lock, "host=elsewhere,boot=b,space=1", 7)
    os.utime(file, (1, 1))


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in /dev/shm if that is writable: thousands of plays take 0.6 of the time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "given",
    [
        Given((HERE, HERE), deaths=1),
        pytest.param(
            Given((HERE, THERE), deaths=1, leaps=1, preemptions=2), marks=pytest.mark.slow
        ),
        Given((HERE, THERE), leaps=1, preemptions=3),
        Given((HERE, HERE, HERE), preemptions=1, prepare=stale),
    ],
    ids=["one dies", "one dies elsewhere", "one is stopped for long", "three find a stale lock"],
)
def test_one_holds_the_lock_at_a_time_in_every_interleaving_and_all_go_on(
    given: Given, in_memory: Path
) -> None:
    def hold(lock: Path) -> Any:
        return exclusive(lock, stale_after_s=STALE_AFTER_S)

    assert explore(locks, hold, in_memory / "f", given) > 200


def test_one_claim_on_a_stale_lock_wins_in_every_interleaving(in_memory: Path) -> None:
    given = Given((HERE, HERE), may_give_up=True, preemptions=3, prepare=stale)
    assert explore(locks, acquired, in_memory / "f", given) > 200


# Real processes that are killed or suspended.


def test_no_two_processes_are_inside_and_the_others_go_on_while_processes_are_killed(
    script: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    lock, inside, done = tmp_path / "lock", tmp_path / "inside", tmp_path / "done"
    inside.mkdir()
    code = f"""
inside, done = Path({str(inside)!r}), Path({str(done)!r})
while True:
    with exclusive(lock, poll_s=0.002):
        mine = inside / str(os.getpid())
        mine.touch()
        for other in set(inside.iterdir()) - {{mine}}:
            alive = Path("/proc", other.name).exists()
            alive = alive and " Z " not in Path("/proc", other.name, "stat").read_text()
            done.with_name("two").touch() if alive else other.unlink()
        with done.open("a") as file:
            file.write("x")
        mine.unlink()
"""
    running = [script(code, lock) for _ in range(3)]
    for _ in range(8):
        before = done.stat().st_size if done.exists() else 0
        deadline = time.monotonic() + 30
        while not done.exists() or done.stat().st_size < before + 20:
            assert time.monotonic() < deadline, "nobody goes on"
            time.sleep(0.01)
        running.pop(0).kill()
        running.append(script(code, lock))
    assert not (tmp_path / "two").exists()


def test_a_process_stopped_for_too_long_notices_and_leaves_the_next_lock_alone(
    script: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    code = "with exclusive(lock, beat_s=0.05) as claim:\n    print(claim.is_lost(), flush=True)\n    input()\n"
    stopped = script(
        f"{code}    print(claim.is_lost(), flush=True)\nprint('out', flush=True)", lock
    )
    assert line_of(stopped) == "False"
    stopped.send_signal(signal.SIGSTOP)
    with exclusive(lock, stale_after_s=0.5) as claim:
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stdin is not None
        stopped.stdin.write("\n")
        stopped.stdin.flush()
        assert line_of(stopped) == "True"
        assert line_of(stopped) == "out"
        assert not claim.is_lost()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_zombie_is_taken_at_once(
    script: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    owner = script("with exclusive(lock):\n    print('in', flush=True)\n    time.sleep(60)", lock)
    assert line_of(owner) == "in"
    with pytest.raises(LockHeldError, match=f"process {owner.pid} on "), acquired(lock):
        pass
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    with acquired(lock):
        pass


def test_a_forked_child_leaves_its_parents_lock_alone(
    script: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    code = "with exclusive(lock):\n    if os.fork() == 0:\n        sys.exit()\n    os.wait()\n"
    owner = script(f"{code}    print(lock.exists(), flush=True)", tmp_path / "lock")
    assert line_of(owner) == "True"


# Clocks, reused process numbers, hosts with the same name.


def test_a_living_process_of_this_machine_keeps_its_lock_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    with exclusive(tmp_path / "lock"):
        for file in (tmp_path / "lock", *(tmp_path / "lock").glob("*")):
            os.utime(file, (1, 1))  # as if the clock had jumped by decades
        with pytest.raises(LockHeldError), acquired(tmp_path / "lock"):
            pass


def test_a_lock_from_the_future_becomes_stale(tmp_path: Path) -> None:
    file = a_lock_of(tmp_path / "lock", THERE, 7)
    os.utime(file, (time.time() + 10_000,) * 2)
    with acquired(tmp_path / "lock"):
        pass


def test_a_waiting_process_does_not_count_the_time_of_its_own_suspension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = a_lock_of(tmp_path / "lock", THERE, 7)
    sleep, nights = time.sleep, []

    def night(_: float) -> None:
        nights.append(1)
        monkeypatch.setattr(locks.time, "monotonic", lambda: 3600.0 * len(nights))
        if len(nights) == 20:
            file.unlink()
        sleep(0.001)

    monkeypatch.setattr(locks.time, "sleep", night)
    with exclusive(tmp_path / "lock", stale_after_s=180):
        assert len(nights) == 20


def test_a_reused_process_number_does_not_keep_a_lock(tmp_path: Path) -> None:
    a_lock_of(tmp_path / "lock", locks._machine(), os.getppid(), start="1")
    assert holder(tmp_path / "lock") is None
    assert seconds_to_take(tmp_path / "lock") < 10


def test_processes_of_another_host_with_the_same_name_are_not_looked_up_here(
    tmp_path: Path,
) -> None:
    machine = locks._machine().replace("boot=", "boot=other-")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    a_lock_of(tmp_path / "lock", machine, gone.pid)
    with pytest.raises(LockHeldError), acquired(tmp_path / "lock"):
        pass


# Other files in a lock's place.


def test_a_file_in_the_place_of_a_lock_is_kept_while_it_is_touched_and_then_taken(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    lock.touch()  # left by an earlier version that was killed before it wrote its name
    with pytest.raises(LockHeldError, match="an unknown process"), acquired(lock):
        pass
    assert seconds_to_take(lock, stale_after_s=0.3) > 0.3
    lock.write_bytes(b"\xff\xfe\x00")
    os.utime(lock, (1, 1))
    with acquired(lock):
        pass
    lock.symlink_to(tmp_path)
    assert seconds_to_take(lock, stale_after_s=0.3) > 0.3
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_free_and_one_with_other_things_is_refused_and_left_alone(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    lock.mkdir()
    assert holder(lock) is None
    assert seconds_to_take(lock) < 1
    (lock / "thesis").mkdir(parents=True)
    for ask in (
        lambda: exclusive(lock).__enter__(),
        lambda: acquired(lock).__enter__(),
        lambda: holder(lock),
    ):
        with pytest.raises(InputError, match="lock is not a lock: it holds thesis; move it away"):
            ask()
    assert (lock / "thesis").exists()
