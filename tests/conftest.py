"""Shared fixtures, among them a cache and a finished run that are made once per session."""

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Set before the imports, because libraries read them then. With a process per core, BLAS threads would mostly wait for
# each other; and on some processors their number changes the last bit of an embedding, which tests compare.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis  # before `gc.freeze()` below, because it looks for an object's referrers
import pytest
import unsynced  # noqa: F401
from hub_server import HubServer
from processes import fork_dask_workers, free_port, start_command, start_server
from slurm_cluster import running_slurm

from dsmi_zoo._util.locks import exclusive
from dsmi_zoo.jobs.cli.main import main

if TYPE_CHECKING:
    from dsmi_zoo.pipeline.engine.workers import Workers

# SIGINT is ignored in a shell's background jobs, and commands started here would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the time of an example depends on other processes.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

# `make test-fast` skips tests with these fixtures.
PROCESSES = {"server", "client_settings", "slurm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/slow and those that start processes."""
    for item in items:
        if item.path.parent.name == "slow":
            item.add_marker(pytest.mark.slow)
        if PROCESSES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.processes)


def pytest_collection_finish() -> None:
    """Exclude the millions of objects that exist by now from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the session's processes share, so that each file in it is made only once."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """Return the session's cache of trained weights and views, separate from the user's."""
    return shared / "cache"


COMPUTES_ROWS = {"run", "rerun", "remeasure"}
SAYS_WHERE = {"--workers", "--cluster", "--help"}
SAYS_WHICH_IMAGES = {
    "--images-per-class",
    "--dataset",
    "--data-root",
    "--budget",
    "--config",
    "--help",
}
IMAGES_PER_CLASS = 20
WRITES_NO_REPORT = {"--help", "--plan", "--no-report"}


@pytest.fixture(scope="session")
def server() -> None:
    """Start the process, with all imports done, from which commands and workers fork."""
    assert start_server()
    fork_dask_workers()


@pytest.fixture(scope="session")
def cli(cache: Path, server: None) -> Command:
    """Return a function that runs the command as a user would, in a fork of a process with all imports done.

    A report costs five seconds of processor time, so none is written by default. The default is one worker and 200
    images, because a row of all 447 takes two seconds.
    """

    def run(
        *arguments: object,
        cwd: Path | None = None,
        code: int | None = 0,
        report: bool = False,
        images_per_class: int | None = IMAGES_PER_CLASS,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        given = set(arguments)
        computes_rows = bool(COMPUTES_ROWS & set(arguments[:1]))
        if arguments[:1] == ("run",) and not SAYS_WHERE & given:
            arguments = (*arguments, "--workers", 1)
        if arguments[:1] == ("run",) and images_per_class and not SAYS_WHICH_IMAGES & given:
            arguments = (*arguments, "--images-per-class", images_per_class)
        if computes_rows and not report and not WRITES_NO_REPORT & given:
            arguments = (*arguments, "--no-report")
        command = start_command(
            *arguments,
            cwd=cwd,
            environment={"DSMI_ZOO_CACHE": str(cache)} | dict(environment or {}),
        )
        try:
            stdout, stderr = command.communicate(timeout=600)
        finally:
            command.kill()
        if code is not None:
            assert command.returncode == code, f"exit code {command.returncode}\n{stdout}\n{stderr}"
        return subprocess.CompletedProcess(list(arguments), command.returncode or 0, stdout, stderr)

    return run


@pytest.fixture(scope="module")
def thread_workers() -> Iterator["Workers"]:
    """Yield a Dask worker that runs in a thread of this process and so sees its patches."""
    # Imported here: Dask sets up logging on import, and tests of commands need the command's own.
    from distributed import Client, LocalCluster

    from dsmi_zoo.pipeline.engine.workers import Workers

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        # If a test's patches end the worker, the test fails after 60 s instead of waiting for another.
        yield Workers(client, empty_for_s=60)


@pytest.fixture
def refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, Path], str]:
    """Return a function that runs a command in this process, requires a refusal and returns its standard error.

    A separate process would spend a second on imports for each of many refusals.
    """
    monkeypatch.setenv("DSMI_ZOO_CACHE", str(cache))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    imported = set(sys.modules)
    at_the_end_of_a_job = signal.getsignal(signal.SIGTERM)
    log = logging.getLogger("dsmi_zoo")
    handlers, level = log.handlers.copy(), log.level

    def run(arguments: str, folder: Path) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["dsmi-zoo", *arguments.split()])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, at_the_end_of_a_job)
            log.handlers[:] = handlers
            log.setLevel(level)
            for name in set(sys.modules) - imported:
                if getattr(sys.modules[name], "__file__", None) == str(folder / f"{name}.py"):
                    del sys.modules[name]  # modules with the test's own measures
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


SMALL_ZOO = ("test_resnet.*", "test_vit.*")


@pytest.fixture(scope="session")
def small_run(cli: Command, shared: Path) -> Path:
    """Return a finished run of six real models; tests that change a run copy it."""
    out, made = shared / "runs" / "small", shared / "small-run-made"
    with exclusive(shared / "small-run-lock"):
        if not made.exists():
            cli("run", "--models", *SMALL_ZOO, "--out", out, "--workers", 2, report=True)
            made.touch()
    return out


@pytest.fixture(scope="session")
def hub_port() -> int:
    """Return the port of every test's hub: the client reads the address once, on import, for all forks."""
    return free_port()


@pytest.fixture
def hub(hub_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Start an empty hub for one test on the loopback address, and allow this process to use it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with HubServer(port=hub_port) as server:
        yield server


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home folder of the hub's client, which reads this path on import too."""
    return tmp_path_factory.mktemp("hf")


@pytest.fixture
def client_settings(hub: HubServer, hub_home: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process that uses only the hub ``hub``, and not the user's cache or token."""
    shutil.rmtree(hub_home)
    hub_home.mkdir()
    ours = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(hub_home),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "mine",
    }
    return {**os.environ, **ours, "DSMI_ZOO_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def info_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture the package's log from level INFO."""
    caplog.set_level(logging.INFO, "dsmi_zoo")
    return caplog


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay out figures but skip drawing, three quarters of a page's time, for tests that read only its text."""
    from dsmi_zoo.reports.figures import curves, scatter
    from dsmi_zoo.reports.figures.canvas import Rendered

    def render(figure: Any, description: str, is_for_files: bool = True) -> Rendered:
        svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"></svg>'
        return Rendered(b"\x89PNG\r\n\x1a\n" if is_for_files else b"", svg, description, figure)

    for module in (curves, scatter):
        monkeypatch.setattr(module, "render", render)


@pytest.fixture(scope="session")
def published() -> dict[str, bytes]:
    """Return weights by architecture, in the format in which timm publishes them."""

    import safetensors.torch
    import timm
    import torch

    def saved(architecture: str, number: int) -> bytes:
        torch.manual_seed(number)
        state = timm.create_model(architecture).state_dict()
        return safetensors.torch.save(state)

    names = ("test_vit", "test_resnet", "test_efficientnet", "resnet18")
    return {name: saved(name, number) for number, name in enumerate(names)}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the environment in which Slurm's commands talk to the tests' Slurm."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Yield a function that mounts a small file system in memory; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()

    def of_size(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        return folder

    yield of_size
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)
