"""The Dask graph: recovery under any scheduler when real workers die, and isolation from other drivers."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.engine.attempts import LOST_AT_MOST, Attempts, KilledWorker
from dsmi_zoo.pipeline.engine.graph import compute_each, shared_attempts
from dsmi_zoo.pipeline.engine.workers import Workers, WorkersLost
from dsmi_zoo.pipeline.plan.job import Outcome

pytestmark = pytest.mark.usefixtures("server")

# A nanny replaces a dead worker as soon as it can; a LocalCluster must not drop the worker before that.
PATIENT = {
    "distributed.deploy.lost-worker-timeout": "1h",
    "distributed.scheduler.allowed-failures": 10_000,
}


@contextmanager
def cluster_of(workers: int, threads: int = 1, **settings: object) -> Iterator[Client]:
    """Start a plain Dask cluster and a client, as another program would."""
    with (
        dask.config.set(PATIENT | settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@dataclass(frozen=True)
class Piece:
    """A piece of work that appends to a tally when it begins and when it ends."""

    name: str
    folder: Path
    order: float = 0.0

    def note(self, event: str) -> None:
        with (self.folder / event).open("a") as tally:
            tally.write(f"{self.name} {os.getpid()}\n")

    def noted(self, event: str) -> int:
        return noted(self.folder, event)[self.name]


def noted(folder: Path, event: str) -> Counter[str]:
    """Count how often each piece of work noted an event."""
    tally = folder / event
    return (
        Counter(line.split()[0] for line in tally.read_text().splitlines())
        if tally.exists()
        else Counter()
    )


def processes(folder: Path, event: str, piece: str | None = None) -> list[int]:
    """Return the pids that noted an event, in order, for one piece of work or for all."""
    tally = folder / event
    lines = [line.split() for line in tally.read_text().splitlines()] if tally.exists() else []
    return [int(process) for name, process in lines if piece in (None, name)]


def sleeping(seconds: float, piece: Piece) -> Outcome:
    piece.note("begun")
    time.sleep(seconds)
    piece.note("ended")
    return Outcome(piece.name, piece.name, True, "", seconds)


def hanging_at_first(times: int, piece: Piece) -> Outcome:
    piece.note("begun")
    if piece.name == "target" and piece.noted("begun") <= times:
        time.sleep(600)
    piece.note("ended")
    return Outcome(piece.name, piece.name, True, "", 0.0)


def deadly(piece: Piece) -> Outcome:
    piece.note("begun")
    if piece.name == "target":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.3)
    piece.note("ended")
    return Outcome(piece.name, piece.name, True, "", 0.0)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@contextmanager
def beside(action: Callable[[], None]) -> Iterator[None]:
    """Run an action in a thread during the block; raise its exception at the end of the block."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if raised:
        raise raised[0]


def pieces(folder: Path, count: int, *further: str) -> list[Piece]:
    return [
        Piece(name, folder) for name in (*further, *(f"piece-{number}" for number in range(count)))
    ]


def is_worker(process: int) -> bool:
    """Return whether a process is a live worker, as opposed to the child process of a last attempt."""
    try:
        # A last attempt runs in a separate process, which has no Dask threads.
        return len(list(Path(f"/proc/{process}/task").iterdir())) > 3
    except FileNotFoundError:
        return False


def test_workers_killed_every_second_fail_no_piece_and_bring_each_back_once(tmp_path: Path) -> None:
    work = pieces(tmp_path, 60)
    chosen, killed, over = random.Random(0), [], threading.Event()

    def kill() -> None:
        while not over.wait(1.0):
            alive = set(processes(tmp_path, "begun")) - set(killed)
            victims = [process for process in alive if is_worker(process)]
            if victims:
                killed.append(chosen.choice(victims))
                os.kill(killed[-1], signal.SIGKILL)

    with cluster_of(4) as client, beside(kill):
        try:
            done = [
                done.name
                for done in compute_each(Workers(client), tmp_path, work, partial(sleeping, 0.4))
            ]
        finally:
            over.set()
    assert sorted(done) == sorted(piece.name for piece in work)
    assert len(killed) >= 4
    assert not (tmp_path / "attempts").exists()


def test_a_piece_that_kills_its_process_has_three_attempts_under_any_scheduler(
    tmp_path: Path,
) -> None:
    for allowed in (0, 10_000):
        folder = tmp_path / str(allowed)
        folder.mkdir()
        with (
            cluster_of(2, **{"distributed.scheduler.allowed-failures": allowed}) as client,
            pytest.raises(
                WorkersLost,
                match="target: its worker process died 3 times, the last time by SIGSEGV",
            ),
        ):
            list(compute_each(Workers(client), folder, pieces(folder, 5, "target"), deadly))
        assert noted(folder, "begun")["target"] == 3


def test_a_piece_whose_worker_is_lost_again_and_again_is_no_fault_of_its_own(
    tmp_path: Path,
) -> None:
    def lose() -> None:
        for attempt in (1, 2, 3):
            wait_for(lambda attempt=attempt: len(processes(tmp_path, "begun")) >= attempt)
            # The last attempt runs in a separate process, so ask the worker for its pid.
            (worker,) = client.run(os.getpid).values()
            os.kill(worker, signal.SIGKILL)

    with cluster_of(1) as client, beside(lose):
        compute = partial(hanging_at_first, 3)
        (done,) = compute_each(Workers(client), tmp_path, pieces(tmp_path, 0, "target"), compute)
    assert done.ok
    assert noted(tmp_path, "begun")["target"] == 4


def test_work_that_is_lost_too_often_is_given_up(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "row", "target")
    for _ in range(LOST_AT_MOST):
        attempts._begin()
    with pytest.raises(KilledWorker, match="its worker was lost 9 times, and nobody saw why"):
        attempts.run(len, "abc")
    assert attempts.unfinished() == 0


def test_shares_that_begin_with_the_same_images_are_not_taken_for_dead_attempts(
    tmp_path: Path,
) -> None:
    shares = LOST_AT_MOST + 2
    configs = [
        RunConfig(out=tmp_path, compute={"share": f"{part}/{shares}"})
        for part in range(1, shares + 1)
    ]
    for config in configs:
        assert shared_attempts(config, "view", "64")._begin() == 1
    assert shared_attempts(RunConfig(out=tmp_path), "view", "64").unfinished() == 0


def test_a_retired_worker_hands_its_work_on(tmp_path: Path) -> None:
    with cluster_of(2) as client:

        def retire() -> None:
            wait_for(lambda: noted(tmp_path, "begun")["target"])
            (target,) = processes(tmp_path, "begun", "target")
            address = next(
                where for where, process in client.run(os.getpid).items() if process == target
            )
            client.retire_workers([address])

        with beside(retire):
            compute = partial(hanging_at_first, 1)
            done = list(
                compute_each(Workers(client), tmp_path, pieces(tmp_path, 3, "target"), compute)
            )
    assert len(done) == 4
    assert noted(tmp_path, "begun")["target"] == 2


def test_a_cluster_that_grows_from_nothing_gets_work_to_grow_for(tmp_path: Path) -> None:
    with cluster_of(0) as client:
        client.cluster.adapt(minimum=0, maximum=2, interval="200ms")
        done = list(
            compute_each(Workers(client), tmp_path, pieces(tmp_path, 6), partial(sleeping, 0.2))
        )
    assert len(done) == 6


def test_workers_with_several_threads_do_one_piece_at_a_time(tmp_path: Path) -> None:
    with cluster_of(1, threads=4) as client:
        list(compute_each(Workers(client), tmp_path, pieces(tmp_path, 6), alone_in_its_process))
    assert not (tmp_path / "beside").exists()


RUNNING = threading.Semaphore(1)


def alone_in_its_process(piece: Piece) -> Outcome:
    if not RUNNING.acquire(blocking=False):
        piece.note("beside")
    time.sleep(0.1)
    RUNNING.release()
    return Outcome(piece.name, piece.name, True, "", 0.1)


def test_two_drivers_on_one_scheduler_do_not_get_each_others_work(tmp_path: Path) -> None:
    with cluster_of(2) as client:
        folders = [tmp_path / name for name in ("first", "second")]
        counts = {}

        def drive(folder: Path) -> None:
            folder.mkdir()
            done = compute_each(Workers(client), folder, pieces(folder, 8), partial(sleeping, 0.1))
            counts[folder] = Counter(entry.name for entry in done)

        with beside(partial(drive, folders[0])):
            drive(folders[1])
    for folder in folders:
        expected = {piece.name: 1 for piece in pieces(folder, 8)}
        assert counts[folder] == noted(folder, "ended") == expected


def test_a_driver_that_stops_leaves_the_client_and_the_tasks_of_others_as_they_were(
    tmp_path: Path,
) -> None:
    with cluster_of(1) as client:
        theirs = client.submit(sum, [1, 2])
        outcomes = compute_each(
            Workers(client), tmp_path, pieces(tmp_path, 8), partial(sleeping, 0.1)
        )
        next(outcomes)
        outcomes.close()
        assert theirs.result() == 3
        time.sleep(0.5)
        begun = len(processes(tmp_path, "begun"))
        assert begun <= 4  # no further task was started
        time.sleep(0.5)
        assert len(processes(tmp_path, "ended")) == len(processes(tmp_path, "begun")) == begun


def test_a_scheduler_that_cancels_the_tasks_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with cluster_of(1) as client:

        def cancel() -> None:
            wait_for(lambda: processes(tmp_path, "begun"))
            client.restart(wait_for_workers=False)

        with beside(cancel), pytest.raises(WorkersLost, match="is gone; finished rows are kept"):
            list(
                compute_each(Workers(client), tmp_path, pieces(tmp_path, 4), partial(sleeping, 1.0))
            )
