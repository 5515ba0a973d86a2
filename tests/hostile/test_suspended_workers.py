"""Workers that neither work nor die."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from distributed import KilledWorker

from dsmi_zoo.jobs.clusters import dask_workers, processes
from dsmi_zoo.jobs.clusters.dask_workers import DaskWorkers
from dsmi_zoo.jobs.clusters.local import local_cluster
from dsmi_zoo.jobs.clusters.processes import Processes
from dsmi_zoo.jobs.folder import entry_states
from dsmi_zoo.pipeline.compute import ComputeSettings
from dsmi_zoo.pipeline.config import RunConfig
from dsmi_zoo.pipeline.graph import WorkersLost, remeasure_entries
from dsmi_zoo.pipeline.store import read_run, timeout_log
from dsmi_zoo.pipeline.task import RemeasureJob
from dsmi_zoo.pipeline.traces import GRACE_S, Traces


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_suspended_worker_is_replaced_without_any_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "NO_HEARTBEAT_S", 8.0)
    monkeypatch.setattr(dask_workers, "LOOK_AFTER_HEARTBEATS_S", 0.5)
    with local_cluster(ComputeSettings(workers=1), tmp_path) as client:
        workers = DaskWorkers(client)
        wait_for(lambda: workers.count() == 1)
        (first,) = client.run(os.getpid).values()
        result = workers.submit(time.sleep, 600)
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: workers.count() >= 0 and result.done())
        error = result.exception()
        assert isinstance(error, KilledWorker)
        assert workers.deaths(error) == 1
        wait_for(lambda: workers.count() == 1)
        (second,) = client.run(os.getpid).values()
        assert second != first
        assert workers.submit(sum, (1, 2)).result(timeout=30) == 3


class Entry:
    """As much of a job as its traces need."""

    slug = "entry"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The time that the driver sees; it passes when this is called."""
    now = [1000.0]
    monkeypatch.setattr("dsmi_zoo.pipeline.traces.monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def traces_of(out: Path) -> Traces:
    return Traces(RunConfig(out=out, compute=ComputeSettings(model_timeout=20.0)))


def test_a_models_time_begins_with_its_own_work_not_with_the_import_of_torch(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    traces = traces_of(tmp_path)
    trace = traces.begin(Entry)
    clock(20 + GRACE_S + 1)
    assert not traces.is_overdue(Entry, trace)
    log = timeout_log(tmp_path, Entry.slug)
    log.parent.mkdir()
    log.touch()
    assert not traces.is_overdue(Entry, trace)
    clock(20 + GRACE_S - 1)
    assert not traces.is_overdue(Entry, trace)
    clock(2)
    assert traces.is_overdue(Entry, trace)


def test_a_long_download_does_not_count(tmp_path: Path, clock: Callable[[float], None]) -> None:
    traces = traces_of(tmp_path)
    trace = traces.begin(Entry)
    for _ in range(10):
        clock(3600)
        assert not traces.is_overdue(Entry, trace)


class Unmoved:
    """Workers that do nothing, and cannot be killed."""

    def count(self) -> int:
        return 1

    def submit(self, function: Callable[..., object], /, *arguments: object) -> "Future[object]":
        return Future()

    def deaths(self, error: Exception) -> int:
        return 0

    def end(self, result: object) -> None:
        pass


def test_workers_that_cannot_be_killed_end_the_run_in_one_line(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsmi_zoo.pipeline.graph.ENDS_WITHIN_S", 0.1)
    monkeypatch.setattr("dsmi_zoo.pipeline.graph.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(Traces, "is_overdue", lambda self, job, trace: True)
    record = read_run(small_run)
    states, _ = entry_states(small_run, record.entries)
    jobs = [RemeasureJob(state.row or {}, state.slug, "id", tmp_path) for state in states[:2]]
    compute = record.config.compute.model_copy(update={"model_timeout": 1.0})
    config = record.config.model_copy(update={"out": tmp_path, "compute": compute})
    finished = remeasure_entries(Unmoved(), config, jobs)
    assert next(finished).message.startswith("TimeoutError: took longer than --model-timeout 1 s")
    with pytest.raises(WorkersLost, match="no worker answers any more, and none can be killed"):
        next(finished)


def test_a_driver_that_was_suspended_itself_does_not_take_its_workers_for_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, killed = [0.0], []
    monkeypatch.setattr("dsmi_zoo.jobs.clusters.dask_workers.time.monotonic", lambda: now[0])

    class Client:
        status = "running"

        def scheduler_info(self, n_workers: int = 5) -> dict[str, object]:
            return {"address": "tcp://here", "workers": {"tcp://worker": {"last_seen": 1.0}}}

        def nthreads(self) -> dict[str, int]:
            return {"tcp://worker": 1}

    workers = DaskWorkers(Client())  # type: ignore[arg-type]
    monkeypatch.setattr(workers, "_kill", killed.append)
    for seconds in (11, 11, 3600, 11):
        now[0] += seconds
        workers.count()
    assert killed == []
    for _ in range(60):
        now[0] += 11
        workers.count()
    assert killed == ["tcp://worker"]


def test_a_suspended_process_of_a_share_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SUSPENDED_FOR_S", 1.0)
    with Processes(ComputeSettings(workers=1)) as workers:
        first = workers.submit(os.getpid).result(timeout=60)
        result = workers.submit(time.sleep, 600)
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: workers.count() and result.done())
        error = result.exception()
        assert error is not None
        assert workers.deaths(error) == 1  # type: ignore[arg-type]
        assert workers.submit(os.getpid).result(timeout=60) != first


def test_the_file_of_an_earlier_attempt_is_no_sign_that_this_one_took_too_long(tmp_path: Path) -> None:
    log = timeout_log(tmp_path, Entry.slug)
    log.parent.mkdir()
    log.write_text("Timeout (0:00:20)!")
    traces = traces_of(tmp_path)
    trace = traces.begin(Entry)
    assert traces.outcome(Entry, trace) is None
    time.sleep(0.02)  # a file's time of change is coarser than the processor's
    log.write_text("Timeout (0:00:20)! again")
    assert isinstance(traces.outcome(Entry, trace), TimeoutError)
