"""Processes for tests: the command and Dask's, forked from a server that has imported everything.

They have their own signals, exit codes and output, but their imports are done already, because they fork as workers do
(`dsmi_zoo._util.forkserver`). Their workers fork from the same server. Tests of the process itself (what it imports,
how it starts) start a fresh one.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from dsmi_zoo._util import forkserver
from dsmi_zoo.pipeline.config.compute import MODELS

# The imports of the command and its workers, and of Dask's scheduler and worker.
MODULES = (
    *MODELS,
    *(
        f"dsmi_zoo.jobs.{name}"
        for name in (
            "cli.main",
            "cli.start",
            "clusters.local",
            "clusters.worker_log",
            "tools.measure",
            "runs.run",
            "runs.search",
            "runs.remeasure",
            "runs.merge",
            "publishing.publish",
        )
    ),
    "dsmi_zoo.reports.page.build",
    "dsmi_zoo.reports.explorer.layout",
    # Modules that reports import inside functions: half a second for each.
    "matplotlib.backends.backend_svg",
    "pyarrow.pandas_compat",
    "statsmodels.regression.linear_model",
    "statsmodels.stats.outliers_influence",
    # Modules that Dask, rich and Pillow import inside functions.
    "bokeh.application.handlers.document_lifecycle",
    "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "distributed.diagnostics.websocket",
    *(
        f"distributed.http.{name}"
        for name in ("health", "prometheus", "statics", "worker.prometheus")
    ),
    *(f"distributed.http.scheduler.{name}" for name in ("info", "json", "prometheus")),
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
    "rich._emoji_codes",
    "tornado.platform.asyncio",
    "dask.__main__",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "distributed.dashboard.scheduler",
    "unsynced",
    "huge_pages",
)
TESTS = str(Path(__file__).parent)


def start_server() -> bool:
    """Start the server to fork from, unless one with this environment runs; return False if none can run."""
    path = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))
    with patch.dict(forkserver.SERVER_VARIABLES, PYTHONPATH=path):  # for the tests' modules
        return forkserver.start(MODULES)


class Process:
    """A forked process with those methods of ``subprocess.Popen`` that tests need."""

    def __init__(
        self,
        function: Callable[..., None],
        *arguments: Any,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._files = [Path(folder) / name for name in ("stdout", "stderr")]
        for file in self._files:
            file.touch()
        settings = (str(cwd or Path.cwd()), *map(str, self._files), function, arguments)
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            start_server()
            self._process = forkserver.child_process(_become, *settings)
        finally:
            for name in environment or {}:
                os.environ.pop(name)
            os.environ.update(before)
        self.pid = self._process.pid
        self._since = 0

    def poll(self) -> int | None:
        return self._process.poll()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def wait(self, timeout: float | None = None) -> int:
        code = self._process.wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.stdout(), self.stderr()

    def stdout(self) -> str:
        """Return the output so far."""
        return self._files[0].read_text(errors="replace")

    def stderr(self) -> str:
        return self._files[1].read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _become(
    folder: str, stdout: str, stderr: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Set up output, folder, path and Ctrl-C as in a fresh process, and call ``function``."""
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    sys.path[:] = [path for path in sys.path if not path.startswith(TESTS) and path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        function(*arguments)
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else bool(code))


def _command(arguments: list[str]) -> None:
    from dsmi_zoo.jobs.cli.start import main

    sys.argv = ["dsmi-zoo", *arguments]
    main()


def fork_dask_workers() -> None:
    """Let workers of Dask's own clusters fork from the server with its environment; another would need a new server."""
    import dask

    dask.config.set(
        {
            "distributed.worker.multiprocessing-method": forkserver.METHOD,
            "distributed.nanny.pre-spawn-environ": {},
        }
    )


def _dask(arguments: list[str]) -> None:
    from dask.__main__ import main

    fork_dask_workers()
    sys.argv = ["dask", *arguments]
    main()


def start_command(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Process:
    """Start ``dsmi-zoo`` with these arguments."""
    return Process(_command, [*map(str, arguments)], cwd=cwd, environment=environment)


def forked() -> set[psutil.Process]:
    """Return the running processes that this session's servers have forked."""
    servers = [psutil.Process(server._forkserver_pid) for server in forkserver._servers]
    return {process for server in servers for process in server.children()}


def _script(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    warnings.simplefilter("error")
    exec(code, {"__name__": "__main__"})
    sys.stdout.flush()


def start_script(
    code: str, *arguments: object, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a program given as text."""
    return Process(_script, code, [*map(str, arguments)], environment=environment)


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_dask(port: int, workers: int, cache: Path, folder: Path) -> list[Process]:
    """Start a scheduler at ``tcp://127.0.0.1:port`` and its workers, in ``folder``; the scheduler comes first."""
    address = f"tcp://127.0.0.1:{port}"
    # Even without a dashboard they serve HTTP: by default, schedulers on port 8787 and workers on every address.
    here = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    # The timeouts end the processes of a killed test session.
    scheduler = ["scheduler", "--port", str(port), "--idle-timeout", "1h", *here]
    worker = ["worker", address, "--nthreads", "1", "--death-timeout", "60", *here]
    environment = {
        "DSMI_ZOO_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
    }
    return [
        Process(_dask, command, cwd=folder, environment=environment)
        for command in [scheduler, *[worker] * workers]
    ]


def stop(processes: list[Process]) -> None:
    """End workers, then their scheduler, because a worker waits for a lost scheduler."""
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
