"""Worker processes fork from one that has imported torch and timm, instead of each importing them.

A spawned worker spends about ten seconds of processor time on imports; a forked one starts in 50 ms and shares the
memory of the imported libraries. The server is multiprocessing's own: a child of the process that starts it, which ends
with it. It stays fit to be forked from: one thread, no CUDA, no BLAS pool (`preload` checks that). Where it is not to
be had, processes are spawned.

Dask looks up multiprocessing contexts by name (``distributed.worker.multiprocessing-method``); ours is METHOD.
"""

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
    spawn,
    util,
)
from typing import Any

log = logging.getLogger(__name__)

METHOD = "dsmi-zoo-fork"
PRELOAD = "dsmi_zoo._util.preload"
MODULES_VARIABLE = "DSMI_ZOO_PRELOAD"

# What every row imports sooner or later.
MEASURES = ("dsmi_zoo.pipeline.engine.graph", "sklearn.cluster", "sklearn.mixture")
MODELS = (
    *MEASURES,
    *(
        f"dsmi_zoo.pipeline.{name}"
        for name in (
            "embedding.embed",
            "embedding.train",
            "engine.gpu_lock",
            "networks.loading_code",
            "networks.timm",
        )
    ),
)

# Dask and pytest set these while processes start, and a GPU is chosen in the child; no library reads them on import.
SET_LATER = {
    "CUDA_VISIBLE_DEVICES",
    "PYTEST_CURRENT_TEST",
    "PYTHONHASHSEED",
    "__DASK_PARENT_PID",
}
OURS = "DSMI_ZOO_"  # read when a value is needed
TRIES = 3
MOST_SERVERS = 4  # a run of one worker and one of several need different numbers of threads

# Held while the environment is changed for a server that starts, and while it is read: Dask starts each worker in a
# thread of its own.
_lock = threading.RLock()


class Server(forkserver.ForkServer):
    """The process from which others fork.

    Parameters
    ----------
    modules
        What it imports before the first fork.
    environment
        Of the processes that fork from it: libraries read variables when they are imported, so another environment
        needs another server.
    """

    # Of the base class; its type stubs leave them out.
    _forkserver_address: str | None
    _forkserver_alive_fd: int | None
    _forkserver_pid: int | None

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        super().__init__()
        self.modules, self.environment = modules, without_late(environment)
        self.set_forkserver_preload([PRELOAD])

    def serves(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> bool:
        """Whether a process that needs these modules and variables can fork from it."""
        return set(modules) <= set(self.modules) and self.environment == without_late(environment)

    def unlike(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> str:
        """What a process of these modules and variables would need beyond it."""
        ours, theirs = self.environment.items(), without_late(environment).items()
        names = {name for name, _ in ours ^ theirs} | (set(modules) - set(self.modules))
        return ", ".join(sorted(names))

    def known(self) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """What a forked process is told of it."""
        return self.modules, self.environment

    def ensure_running(self) -> None:
        """Start the server unless it runs; a dead one is started again."""
        variables = {
            # OpenBLAS starts its threads on import, and a fork has none of them: the child starts its own.
            "OPENBLAS_NUM_THREADS": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # of pyarrow's allocator
            # A file in the current folder must not hide a library.
            "PYTHONSAFEPATH": "1",
            MODULES_VARIABLE: " ".join(self.modules),
        }
        with _lock, _without_interrupts(), _environment_with(variables):
            super().ensure_running()

    def stop(self) -> None:
        """Let it end, once the processes that it forked have ended."""
        if self._forkserver_alive_fd is not None:
            os.close(self._forkserver_alive_fd)
            self._forkserver_alive_fd = None
        if self._forkserver_pid is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._forkserver_pid, os.WNOHANG)
            self._forkserver_pid = None

    def kill(self) -> None:
        """End it at once."""
        if self._forkserver_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._forkserver_pid, signal.SIGKILL)


class _ParentsServer(Server):
    """The server that this process was forked from."""

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        super().__init__(modules, environment)
        known: Any = forkserver._forkserver  # multiprocessing notes it there
        self._forkserver_address = known._forkserver_address
        self._forkserver_alive_fd = known._forkserver_alive_fd

    def ensure_running(self) -> None:
        """Do nothing: multiprocessing would start a second one here."""


_servers: list[Server] = []  # the one used last comes first


def start(modules: tuple[str, ...] = MODELS) -> bool:
    """Start the server unless it is there, and wait until it has imported ``modules``; False where it cannot be had."""
    if sys.platform != "linux":
        return False  # the system's own libraries may have started threads
    server = _server_for(modules)
    try:
        with suppress(OSError, EOFError):
            if Forked(_Probe(target=_report_preload), server).wait() == 0:
                return True
    except BaseException:  # Ctrl-C while it imports
        server.kill()
        _forget(server)
        raise
    _forget(server)
    return False


def _report_preload() -> None:
    raise SystemExit(PRELOAD not in sys.modules)


def child_process(function: Callable[..., None], *arguments: Any) -> "Forked | Spawned":
    """Start ``function(*arguments)`` in a process that ends with this one; forked if this one was.

    Unlike ``Process.start``, it does so in a daemon as well, as Dask's workers are.
    """
    return ForkingProcess._Popen(ForkingProcess(target=function, args=arguments))


def process_pool(
    workers: int, initializer: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """A pool of processes that have torch and timm."""
    start(MODELS)
    return ProcessPoolExecutor(workers, mp_context=CONTEXT, initializer=initializer)


def _server_for(modules: tuple[str, ...] = ()) -> Server:
    """The server for processes of today's environment that need these modules."""
    with _lock:
        fit = [server for server in _servers if server.serves(modules, os.environ)]
        if not fit and _servers:
            log.debug(f"one more fork server, for {_servers[0].unlike(modules, os.environ)}")
        server = fit[0] if fit else Server(modules, os.environ)
        others = [other for other in _servers if other is not server]
        _servers[:] = [server, *others[: MOST_SERVERS - 1]]
        for dropped in others[MOST_SERVERS - 1 :]:
            dropped.stop()
        return server


def _forget(server: Server) -> None:
    with _lock:
        server.stop()
        if server in _servers:
            _servers.remove(server)


class Forked(popen_forkserver.Popen):
    """A process forked from a server, with ``pid``, ``poll()``, ``wait(timeout)``, ``kill()`` and ``returncode``."""

    _fds: list[int]  # of the base class; its type stubs leave it out

    def __init__(self, process: "ForkingProcess", server: Server) -> None:
        self._server = server
        super().__init__(process)

    def _launch(self, process: "ForkingProcess") -> None:
        with _lock:
            process.environment, process.server = dict(os.environ), self._server.known()
        message = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(process.preparation(), message)
            reduction.dump(process, message)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, writing = self._server.connect_to_new_process(self._fds)
        # The child watches the other end, and ends when this process has ended.
        kept = os.dup(writing)
        self.finalizer = util.Finalize(self, _close, (kept, self.sentinel))
        with os.fdopen(writing, "wb") as file:
            file.write(message.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)
        if self.pid < 0:  # the server could not fork: see `preload`
            self.finalizer()
            raise OSError(-self.pid, os.strerror(-self.pid))


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


Spawned = popen_spawn_posix.Popen


class ForkingProcess(process.BaseProcess):
    """A process that forks from the server, if there is one, and is spawned otherwise."""

    _start_method = "spawn"  # the default of what the child starts itself
    environment: Mapping[str, str] | None = None
    server: tuple[tuple[str, ...], Mapping[str, str]] | None = None

    def preparation(self) -> dict[str, Any]:
        """What multiprocessing sets in the child first: Python's path, its arguments, the folder, the main module."""
        return spawn.get_preparation_data(self.name)

    @staticmethod
    def _Popen(process: "ForkingProcess") -> "Forked | Spawned":
        """Called by ``start``."""
        if not _servers:
            return Spawned(process)
        for _ in range(TRIES):  # the server may be killed at any moment
            try:
                return Forked(process, _server_for())
            except (OSError, EOFError) as error:
                problem = error
        log.warning(f"spawning a process, because none can be forked: {problem}")
        process.environment = process.server = None
        return Spawned(process)

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Called in the child."""
        ends = [parent_sentinel] if parent_sentinel is not None else []
        if self.server is not None and self.environment is not None:
            ends.append(sys.modules[PRELOAD].after_fork(self.environment))
            _servers.append(_ParentsServer(*self.server))
        threading.Thread(target=_end_with, args=(ends,), daemon=True).start()
        return super()._bootstrap(parent_sentinel)  # type: ignore[misc]


class _Probe(ForkingProcess):
    """Asks the server whether it is ready."""

    def preparation(self) -> dict[str, Any]:
        """Leave out the caller's main module, which might start a run of its own."""
        data = super().preparation()
        return {name: data[name] for name in data if not name.startswith("init_main")}


def _end_with(others: list[int]) -> None:
    """End this process when its parent or its server has ended, whose pipe is closed then."""
    connection.wait(others)
    os._exit(1)


class _Context(context.BaseContext):
    """What multiprocessing calls a start method."""

    _name = METHOD
    Process = ForkingProcess


CONTEXT = _Context()
context._concrete_contexts[METHOD] = CONTEXT  # type: ignore[attr-defined]


def without_late(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a library may have read when the server imported it."""
    return {
        name: value
        for name, value in environment.items()
        if name not in SET_LATER and not name.startswith(OURS)
    }


@contextmanager
def _environment_with(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that starts now, and its children, never hear Ctrl-C, which their driver answers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
