"""Imported by the fork server alone: what its processes need, in a state that can be forked."""

import gc
import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from .forkserver import MODULES_VARIABLE

LOOK_EVERY_S = 0.5

fork = os.fork
# Open for writing in the server alone, so that the reading ends of its processes tell when it has ended.
_READING, _WRITING = os.pipe()


def _import_all() -> None:
    """Import the modules; end this process if its parent ends meanwhile."""
    parent = os.getppid()

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY_S, LOOK_EVERY_S)
    try:
        for module in os.environ[MODULES_VARIABLE].split():
            import_module(module)
    except Exception as error:
        sys.exit(f"dsmi-zoo: workers are spawned, not forked: {type(error).__name__}: {error}")
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def unfit() -> str | None:
    """Why this process must not be forked."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"a library has started {threads - 1} threads"
    for file in Path("/proc/self/fd").iterdir():
        if os.path.realpath(file).startswith("/dev/nvidia"):
            return "a library has initialised CUDA"
    return None


def _fork_or_errno() -> int:
    """Fork, or return a negative error number: an exception would end the server, and with it all that it forked."""
    try:
        return fork()
    except OSError as error:
        return -(error.errno or 1)


def after_fork(environment: Mapping[str, str]) -> int:
    """Make a forked process what a spawned one would be; return a descriptor that is at its end when the server is."""
    os.fork = fork
    os.close(_WRITING)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # noqa: NPY002 - it is the state of others' code that all forks would share
    _start_openblas_threads(environment)
    return _READING


def _start_openblas_threads(environment: Mapping[str, str]) -> None:
    threads = environment.get("OPENBLAS_NUM_THREADS") or environment.get("OMP_NUM_THREADS")
    wanted = int(threads) if threads else len(os.sched_getaffinity(0))
    if wanted == 1:
        return
    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == "openblas":
            library.set_num_threads(wanted)


gc.disable()  # imports leave no garbage
_import_all()
_problem = unfit()
if _problem:
    sys.exit(f"dsmi-zoo: workers are spawned, not forked: {_problem}")
# What is never collected is never written to, and stays shared.
gc.collect()
gc.freeze()
gc.enable()
os.fork = _fork_or_errno
