"""The server that workers fork from: what it must not do, and what happens when it, a worker or the driver dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dsmi_zoo._util import forkserver
from dsmi_zoo.jobs.workers import open_workers
from dsmi_zoo.pipeline.config.compute import MODELS
from dsmi_zoo.pipeline.config.run import ComputeSettings
from dsmi_zoo.pipeline.engine.attempts import ChildProcessDied, call_in_child

pytestmark = pytest.mark.long

WITHIN_S = 30


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without a server; servers that the test starts are stopped at its end."""
    monkeypatch.setattr(forkserver, "_servers", servers := [])
    yield
    for server in servers:
        server.kill()
        server.stop()


Module = Callable[[str], tuple[str, ...]]


@pytest.fixture
def module(apart: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Write a module that a server can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> tuple[str, ...]:
        (tmp_path / "imported_first.py").write_text(code)
        return ("imported_first",)

    return write


def pid_of_server() -> int:
    pid = forkserver._servers[0]._forkserver_pid
    assert pid is not None
    return pid


def wait_for_end(*pids: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} are still there"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children() if is_alive(pid) else []


def parent_and_absent(*modules: str) -> tuple[int, set[str]]:
    return os.getppid(), set(modules) - set(sys.modules)


def test_a_forked_process_has_torch_and_timm_and_its_server_one_thread(server: None) -> None:
    parent, absent = call_in_child(parent_and_absent, "torch", "timm", *MODELS)
    assert parent == pid_of_server()
    assert absent == set()
    assert psutil.Process(parent).num_threads() == 1


IMPORTS_WITHOUT_CUDA = """
import sys
import threading
import torch

def initialises(*_):
    raise AssertionError("CUDA would be initialised, and a fork could not use it")

for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_setDevice"):
    setattr(torch._C, name, initialises)
torch.cuda._lazy_init = initialises
for module in sys.argv[1:]:
    __import__(module)
"""


@pytest.mark.slow
def test_nothing_that_the_server_imports_initialises_cuda() -> None:
    command = [sys.executable, "-c", IMPORTS_WITHOUT_CUDA, *MODELS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def environment_and_folder() -> tuple[dict[str, str], str]:
    return dict(os.environ), str(Path.cwd())


def test_a_forked_process_has_the_environment_and_the_folder_of_its_caller(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234")
    monkeypatch.setenv("DSMI_ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("KMP_INIT_AT_FORK", "TRUE")  # set by scikit-learn on import
    monkeypatch.chdir(tmp_path)
    before = pid_of_server()
    environment, folder = call_in_child(environment_and_folder)
    assert environment == dict(os.environ)
    assert folder == str(tmp_path)
    assert pid_of_server() == before


def openblas_threads() -> set[int]:
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return {pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_has_the_threads_that_its_environment_asks_for(
    apart: None, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, str(threads))
    assert forkserver.start(())
    assert call_in_child(openblas_threads) == {threads}
    assert psutil.Process(pid_of_server()).num_threads() == 1


def test_another_environment_gets_another_server_and_the_first_is_kept(
    apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forkserver.start(())
    first = pid_of_server()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # read by its client on import
    assert call_in_child(os.getppid) == pid_of_server() != first
    monkeypatch.delenv("HF_ENDPOINT")
    assert call_in_child(os.getppid) == first


def test_two_clusters_fork_from_one_server(server: None, tmp_path: Path) -> None:
    pids = set()
    for _ in range(2):
        with open_workers(ComputeSettings(cluster="local", workers=2), tmp_path) as workers:
            workers.client.wait_for_workers(2, timeout=WITHIN_S)
            pids |= set(workers.client.run(os.getppid).values())
    assert pids == {pid_of_server()}


def test_a_killed_worker_is_replaced_from_the_same_server(server: None, tmp_path: Path) -> None:
    before = pid_of_server()
    with open_workers(ComputeSettings(cluster="local", workers=1), tmp_path) as workers:
        first = workers.ask(os.getpid)
        os.kill(first, signal.SIGKILL)
        wait_for_end(first)
        assert workers.ask(os.getpid) != first
        assert workers.ask(os.getppid) == before


def test_a_process_that_is_killed_while_it_forks_leaves_the_server_as_it_was(apart: None) -> None:
    assert forkserver.start(())
    before = pid_of_server()
    for _ in range(20):
        child = forkserver.child_process(time.sleep, 600)
        child.kill()
        assert child.wait(WITHIN_S) == -signal.SIGKILL
    assert pid_of_server() == before
    assert call_in_child(os.getppid) == before


def test_processes_end_with_a_killed_server_and_the_next_gets_a_new_one(apart: None) -> None:
    assert forkserver.start(())
    children = [forkserver.child_process(time.sleep, 600) for _ in range(3)]
    killed = pid_of_server()
    os.kill(killed, signal.SIGKILL)
    wait_for_end(killed, *(child.pid for child in children))
    assert call_in_child(os.getppid) == pid_of_server() != killed


def test_a_server_that_is_killed_while_it_forks_costs_no_process_its_start(apart: None) -> None:
    assert forkserver.start(())
    begun = []
    for number in range(6):
        if number % 2:
            os.kill(pid_of_server(), signal.SIGKILL)  # perhaps not yet dead at the next call
        begun.append(call_in_child(os.getpid))
    assert len(set(begun)) == 6


def test_a_cluster_starts_although_its_server_is_killed_while_workers_fork(
    apart: None, tmp_path: Path
) -> None:
    killed: list[int] = []
    started = threading.Event()

    def kill() -> None:
        while len(killed) < 2 and not started.wait(0.02):
            for server in forkserver._servers:
                pid = server._forkserver_pid
                # Two children are the workers, before they import Dask; a single child is the readiness check.
                if pid not in (None, *killed) and len(children(pid)) == 2:
                    server.kill()
                    killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        settings = ComputeSettings(cluster="local", workers=2)
        with open_workers(settings, tmp_path, modules=()) as workers:
            workers.client.wait_for_workers(2, timeout=WITHIN_S)
            started.set()
            killer.join()
            workers.client.wait_for_workers(2, timeout=WITHIN_S)
            assert workers.ask(os.getppid) == pid_of_server()
    finally:
        started.set()
        killer.join()
    assert killed


def test_processes_that_start_at_once_fork_from_one_server_and_share_an_environment(
    server: None,
) -> None:
    """Dask starts each worker from a separate thread."""
    ours = forkserver._server_for(())
    enough = threading.Event()

    def start_again_and_again() -> None:
        while not enough.is_set():
            ours.ensure_running()

    other = threading.Thread(target=start_again_and_again)
    other.start()
    try:
        servers = [forkserver._server_for(()) for _ in range(300)]
        process = forkserver.child_process(end_unless_environment_is, dict(os.environ))
    finally:
        enough.set()
        other.join()
    assert all(one is ours for one in servers)
    assert process.wait(WITHIN_S) == 0


def end_unless_environment_is(expected: dict[str, str]) -> None:
    raise SystemExit(forkserver.read_on_import(expected) != forkserver.read_on_import(os.environ))


def test_a_cluster_survives_the_death_of_its_server(apart: None, tmp_path: Path) -> None:
    settings = ComputeSettings(cluster="local", workers=2)
    with open_workers(settings, tmp_path, modules=()) as workers:
        workers.client.wait_for_workers(2, timeout=WITHIN_S)
        first = set(workers.client.run(os.getpid).values())
        os.kill(pid_of_server(), signal.SIGKILL)
        wait_for_end(*first)
        workers.client.wait_for_workers(2, timeout=WITHIN_S)
        assert not first & {workers.ask(os.getpid)}


DRIVER = """
import sys, time
from dsmi_zoo._util import forkserver
forkserver.start(tuple(sys.argv[1:]))
child = forkserver.child_process(time.sleep, 600)
print(forkserver._servers[0]._forkserver_pid, child.pid, flush=True)
time.sleep(600)
"""


def test_server_and_processes_end_with_a_killed_driver() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        pids = [int(word) for word in driver.stdout.readline().split()]
        driver.kill()
        wait_for_end(*pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_server_that_still_imports_ends_with_its_driver(
    module: Module, tmp_path: Path, number: signal.Signals
) -> None:
    modules = module(f"""
import os, pathlib, time
pathlib.Path({str(tmp_path / "began")!r}).write_text(str(os.getpid()))
time.sleep(600)
""")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *modules], stderr=subprocess.PIPE, text=True
    )
    began = tmp_path / "began"
    deadline = time.monotonic() + WITHIN_S
    while not (began.exists() and began.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(number)
    driver.communicate(timeout=WITHIN_S)
    wait_for_end(int(began.read_text()))


def test_ctrl_c_in_a_terminal_reaches_neither_the_server_nor_what_it_forks() -> None:
    # In a new process, because the first start of multiprocessing's resource tracker unblocks SIGINT.
    code = """
import signal
from dsmi_zoo._util import forkserver
from dsmi_zoo.pipeline.engine.attempts import call_in_child
assert forkserver.start(("json",))
print(signal.SIGINT in call_in_child(signal.pthread_sigmask, signal.SIG_BLOCK, ()))
print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    assert done.stdout.split() == ["True", "False"]


UNFIT = {
    "a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "an error": "raise RuntimeError('not here')",
    "an end": "import os\nos._exit(3)",
}


@pytest.mark.parametrize("code", UNFIT.values(), ids=UNFIT)
def test_without_a_server_processes_are_spawned(
    module: Module, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not forkserver.start(module(code))
    assert capfd.readouterr().err.count("\n") <= 1
    assert call_in_child(os.getppid) == os.getpid()


def test_workers_are_spawned_where_no_server_can_run(module: Module, tmp_path: Path) -> None:
    settings = ComputeSettings(cluster="local", workers=1)
    with open_workers(settings, tmp_path, modules=module(UNFIT["a thread"])) as workers:
        assert workers.ask(os.getppid) == os.getpid()


NO_FORK = """
import errno
from dsmi_zoo._util import preload

def refused():
    raise OSError(errno.EAGAIN, "the user has too many processes")

preload.fork = refused
"""


def test_a_server_that_cannot_fork_survives_and_processes_are_spawned(
    module: Module, info_log: pytest.LogCaptureFixture
) -> None:
    assert not forkserver.start(module(NO_FORK))
    server = forkserver._server_for(module(NO_FORK))
    with pytest.raises(BlockingIOError):
        forkserver.Forked(forkserver.ForkingProcess(target=os.getpid), server)
    assert is_alive(pid_of_server())
    assert call_in_child(os.getppid) == os.getpid()
    assert "spawning a process, because none can be forked" in info_log.text


def test_the_setting_spawn_starts_no_server(apart: None, tmp_path: Path) -> None:
    settings = ComputeSettings(cluster="local", workers=1, start_method="spawn")
    with open_workers(settings, tmp_path, modules=()) as workers:
        assert workers.ask(os.getppid) == os.getpid()
    assert forkserver._servers == []


def end_oneself() -> None:
    os._exit(7)


def test_the_exit_of_a_forked_process_is_reported(server: None) -> None:
    with pytest.raises(ChildProcessDied, match="with exit code 7"):
        call_in_child(end_oneself)
    with pytest.raises(ChildProcessDied, match="by SIGKILL"):
        call_in_child(kill_oneself)


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
