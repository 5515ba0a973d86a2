"""Fork worker processes from a server that has imported torch and timm, and control what child processes inherit."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import (
    connection,
    context,
    forkserver,
    popen_forkserver,
    popen_spawn_posix,
    process,
    reduction,
    resource_tracker,
    spawn,
    util,
)
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

METHOD = "dsmi-zoo-fork"
PRELOAD = "dsmi_zoo._util.preload"
MODULES_VARIABLE = "DSMI_ZOO_PRELOAD"

# Variables that no library reads on import. Dask and pytest set them while processes start; the child chooses its GPU.
NOT_READ_ON_IMPORT = {
    "CUDA_VISIBLE_DEVICES",
    "PYTEST_CURRENT_TEST",
    "PYTHONHASHSEED",
    "__DASK_PARENT_PID",
    # scikit-learn, torch and Lightning set these on import: in the server, and perhaps later in the caller.
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
}
OUR_PREFIX = "DSMI_ZOO_"  # we read ours when we need them
SERVER_VARIABLES = {
    # OpenBLAS starts its threads on import, and they do not survive a fork: each child starts its own.
    "OPENBLAS_NUM_THREADS": "1",
    # Without this, pyarrow's allocator starts a thread.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # A file in the current folder must not shadow a library.
    "PYTHONSAFEPATH": "1",
}
TRIES = 3
MAX_SERVERS = 4  # clusters of different sizes set different numbers of threads

# Guards the environment while a server starts, and the list of servers: Dask starts each worker in its own thread.
_lock = threading.RLock()


class Server(forkserver.ForkServer):
    """A process from which others fork.

    Parameters
    ----------
    modules
        The modules that it imports before the first fork.
    environment
        The environment of the processes to fork. Libraries read variables on import, so each environment needs its own
        server.
    """

    # Attributes of the base class that its type stubs omit.
    _forkserver_address: str | None
    _forkserver_alive_fd: int | None
    _forkserver_pid: int | None

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        super().__init__()
        self.modules = modules
        self.environment = read_on_import(environment)
        self.set_forkserver_preload([PRELOAD])

    def fits(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> bool:
        """Return whether a process with these modules and variables can fork from it."""
        has_modules = set(modules) <= set(self.modules)
        return has_modules and self.environment == read_on_import(environment)

    def ensure_running(self) -> None:
        """Start the server, or start it again if it died."""
        variables = SERVER_VARIABLES | {MODULES_VARIABLE: " ".join(self.modules)}
        with _lock, sigint_blocked(), environment_with(variables):
            super().ensure_running()

    def stop(self) -> None:
        """Let the server end once all processes that it forked have ended."""
        if self._forkserver_alive_fd is not None:
            os.close(self._forkserver_alive_fd)
            self._forkserver_alive_fd = None
        if self._forkserver_pid is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._forkserver_pid, os.WNOHANG)
            self._forkserver_pid = None

    def kill(self) -> None:
        """End the server at once."""
        if self._forkserver_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._forkserver_pid, signal.SIGKILL)


class _ParentsServer(Server):
    """The server that this process was forked from."""

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        super().__init__(modules, environment)
        known: Any = forkserver._forkserver  # multiprocessing keeps the address there
        self._forkserver_address = known._forkserver_address
        self._forkserver_alive_fd = known._forkserver_alive_fd

    def ensure_running(self) -> None:
        """Do nothing: the base class would start a second server."""


_servers: list[Server] = []  # the most recently used first


def read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a library may read when the server imports it."""
    return {
        name: value
        for name, value in environment.items()
        if name not in NOT_READ_ON_IMPORT and not name.startswith(OUR_PREFIX)
    }


def start(modules: tuple[str, ...]) -> bool:
    """Start a server unless one fits, and wait until it has imported ``modules``; return False if none can run."""
    if sys.platform != "linux":
        return False  # the system's own libraries may have started threads
    server = _server_for(modules)
    try:
        with suppress(OSError, EOFError):
            if Forked(_Probe(target=_exit_0_if_preloaded), server).wait() == 0:
                return True
    except BaseException:  # such as Ctrl-C during the imports
        server.kill()
        _forget(server)
        raise
    _forget(server)
    return False


def _exit_0_if_preloaded() -> None:
    raise SystemExit(PRELOAD not in sys.modules)


def child_process(function: Callable[..., None], *arguments: Any) -> "Forked | Spawned":
    """Run ``function(*arguments)`` in a process that ends with this one; forked if a server runs.

    Unlike ``Process.start``, this also works in a daemon, such as a Dask worker.
    """
    return ForkingProcess._Popen(ForkingProcess(target=function, args=arguments))


def process_pool(
    workers: int, modules: tuple[str, ...], initializer: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """Return a pool of processes that have imported ``modules``."""
    start(modules)
    return ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=initializer)


def _server_for(modules: tuple[str, ...]) -> Server:
    """Return a server for the current environment and these modules; stop the oldest beyond ``MAX_SERVERS``."""
    with _lock:
        fitting = [server for server in _servers if server.fits(modules, os.environ)]
        server = fitting[0] if fitting else Server(modules, os.environ)
        others = [other for other in _servers if other is not server]
        for dropped in others[MAX_SERVERS - 1 :]:
            dropped.stop()
        _servers[:] = [server, *others[: MAX_SERVERS - 1]]
        return server


def _forget(server: Server) -> None:
    with _lock:
        server.stop()
        if server in _servers:
            _servers.remove(server)


class Forked(popen_forkserver.Popen):
    """A process forked from a server, with ``pid``, ``poll()``, ``wait(timeout)``, ``kill()`` and ``returncode``."""

    _fds: list[int]  # of the base class; its type stubs omit it

    def __init__(self, process: "ForkingProcess", server: Server) -> None:
        self._server = server
        super().__init__(process)

    def _launch(self, process: "ForkingProcess") -> None:
        with _lock:
            process.environment = dict(os.environ)
        process.server = self._server.modules, self._server.environment

        message = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(process.preparation(), message)
            reduction.dump(process, message)
        finally:
            context.set_spawning_popen(None)

        self.sentinel, to_child = self._server.connect_to_new_process(self._fds)
        # The child watches the other end, and ends when this process has ended and closed it.
        kept_open = os.dup(to_child)
        self.finalizer = util.Finalize(self, _close, (kept_open, self.sentinel))
        with os.fdopen(to_child, "wb") as file:
            file.write(message.getbuffer())

        self.pid = forkserver.read_signed(self.sentinel)
        if self.pid < 0:  # the server's fork failed: see `preload`
            self.finalizer()
            raise OSError(-self.pid, os.strerror(-self.pid))


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


Spawned = popen_spawn_posix.Popen


class ForkingProcess(process.BaseProcess):
    """A process that forks from a server if one runs, and is spawned otherwise."""

    _start_method = "spawn"  # the default for processes that the child itself starts
    environment: Mapping[str, str] | None = None
    server: tuple[tuple[str, ...], Mapping[str, str]] | None = None

    def preparation(self) -> dict[str, Any]:
        """Return what multiprocessing restores in the child first: path, arguments, folder, main module."""
        return spawn.get_preparation_data(self.name)

    @staticmethod
    def _Popen(process: "ForkingProcess") -> "Forked | Spawned":
        """Start the process; ``start`` calls this."""
        if not _servers:
            return Spawned(process)
        for _ in range(TRIES):  # the server may be killed at any moment
            try:
                return Forked(process, _server_for(()))
            except (OSError, EOFError) as error:
                problem = error
        log.warning(f"spawning a process, because none can be forked: {problem}")
        process.environment = process.server = None
        return Spawned(process)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Run in the child."""
        ends = [parent_sentinel] if parent_sentinel is not None else []
        if self.server is not None and self.environment is not None:
            ends.append(sys.modules[PRELOAD].after_fork(self.environment))
            _servers.append(_ParentsServer(*self.server))
        threading.Thread(target=_exit_at_end_of, args=(ends,), daemon=True).start()
        return super()._bootstrap(parent_sentinel)  # type: ignore[misc]


class _Probe(ForkingProcess):
    """A process that tests whether the server is ready."""

    def preparation(self) -> dict[str, Any]:
        """Leave out the caller's main module: importing it might start a run."""
        data = super().preparation()
        return {name: data[name] for name in data if not name.startswith("init_main")}


def _exit_at_end_of(pipes: list[int]) -> None:
    """End this process when its parent or its server has ended and closed its pipe."""
    connection.wait(pipes)
    os._exit(1)


class _Context(context.BaseContext):
    """A start method of multiprocessing."""

    _name = METHOD
    Process = ForkingProcess


CONTEXT = _Context()
context._concrete_contexts[METHOD] = CONTEXT  # type: ignore[attr-defined]


@contextmanager
def environment_with(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that start within the context, then restore them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the processes and threads that start within the context.

    A terminal sends Ctrl-C to all processes of a command, but only the driver must handle it. In the main thread a
    SIGTERM, which ends the children, is postponed until they have started.
    """
    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts
    postponed: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # no other thread may set a handler
        handler = signal.signal(signal.SIGTERM, lambda number, frame: postponed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in postponed:
            signal.raise_signal(number)


def peak_resident() -> int | None:
    """Return this process's peak memory in bytes since Linux last reset it; None on other systems."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    line = next(lines, None)
    return None if line is None else 1024 * int(line.split()[1])
