"""Workers that neither work nor die."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import KilledWorker

from dsmi_zoo.jobs.clusters import dask_workers
from dsmi_zoo.jobs.clusters.dask_workers import DaskWorkers
from dsmi_zoo.jobs.clusters.local import local_cluster
from dsmi_zoo.pipeline.compute import ComputeSettings
from dsmi_zoo.pipeline.config import RunConfig
from dsmi_zoo.pipeline.store import timeout_log
from dsmi_zoo.pipeline.traces import GRACE_S, STARTS_WITHIN_S, Traces


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


def test_a_worker_that_does_not_even_begin_is_overdue_in_the_end(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    traces = traces_of(tmp_path)
    trace = traces.begin(Entry)
    clock(STARTS_WITHIN_S)
    assert not traces.is_overdue(Entry, trace)
    clock(21)
    assert traces.is_overdue(Entry, trace)


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
