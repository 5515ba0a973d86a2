"""Suspended workers, suspended drivers, and clusters that stay empty."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from dsmi_zoo.jobs.clusters.local import local_cluster
from dsmi_zoo.pipeline.config.compute import ComputeSettings
from dsmi_zoo.pipeline.engine import workers as watched
from dsmi_zoo.pipeline.engine.attempts import ChildProcessDied, call_in_child
from dsmi_zoo.pipeline.engine.workers import Workers, WorkersLost

pytestmark = pytest.mark.usefixtures("server")


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_suspended_worker_is_replaced_and_its_task_is_done_by_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watched, "LOOK_AFTER_HEARTBEATS_S", 0.5)
    with local_cluster(ComputeSettings(workers=1)) as client:
        workers = Workers(client, silent_for_s=5.0)
        wait_for(lambda: workers.count() == 1)
        (first,) = client.run(os.getpid).values()
        result = client.submit(_sleeping_in, first)
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: workers.count() >= 0 and result.done())
        assert result.result() != first


def _sleeping_in(process: int) -> int:
    if os.getpid() == process:
        time.sleep(600)
    return os.getpid()


def test_a_suspended_last_attempt_is_killed_when_its_time_is_up() -> None:
    with pytest.raises(ChildProcessDied, match="by SIGKILL, because it was suspended for 1 s"):
        call_in_child(_suspend_oneself, timeout=1.0)


def _suspend_oneself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


class Client:
    """A stub of a client whose workers have stopped sending heartbeats."""

    status = "running"

    def __init__(self, *workers: str) -> None:
        self.workers = workers

    def scheduler_info(self, n_workers: int = 5) -> dict[str, object]:
        return {
            "address": "tcp://here",
            "workers": {name: {"last_seen": 1.0} for name in self.workers},
        }

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.workers, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replace the driver's clock; only calls of the returned function advance it."""
    now = [1000.0]
    monkeypatch.setattr("dsmi_zoo.pipeline.engine.workers.time.monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_a_driver_that_was_suspended_itself_does_not_take_its_workers_for_silent(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    workers = Workers(Client("tcp://worker"))  # type: ignore[arg-type]
    monkeypatch.setattr(workers, "_kill", killed.append)
    for seconds in (11, 11, 3600, 11):
        clock(seconds)
        workers.count()
    assert killed == []
    for _ in range(60):
        clock(11)
        workers.count()
    assert killed == ["tcp://worker"]


def test_a_cluster_that_stays_empty_is_told_of_and_ends_the_run_in_one_line(
    clock: Callable[[float], None], info_log: pytest.LogCaptureFixture
) -> None:
    workers = Workers(Client(), empty_for_s=2000.0)  # type: ignore[arg-type]
    for _ in range(400):
        workers.count()
        clock(5)
    # Logged after 2, 60, 600, 1200 and 1800 s.
    assert info_log.messages == ["waiting for workers at tcp://here"] * 5
    clock(5)
    with pytest.raises(
        WorkersLost, match=r"^no worker at tcp://here for 2000 s \(--workers-within\): see why"
    ):
        workers.count()
