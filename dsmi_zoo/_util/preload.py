"""Set-up of the fork server, which alone imports this: import what its children need, and stay safe to fork."""

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

PARENT_CHECK_S = 0.5

fork = os.fork
# Only the server holds the write end, so its children read EOF once the server exits.
_READING, _WRITING = os.pipe()


def _import_all() -> None:
    """Import the modules; end this process if its parent ends meanwhile."""
    parent = os.getppid()

    def end_with_parent(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, end_with_parent)
    signal.setitimer(signal.ITIMER_REAL, PARENT_CHECK_S, PARENT_CHECK_S)
    try:
        for module in os.environ[MODULES_VARIABLE].split():
            import_module(module)
    except Exception as error:
        sys.exit(
            f"dsmi-zoo: cannot fork workers, so they are spawned (a slower start): {type(error).__name__}: {error}"
        )
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _reason_not_to_fork() -> str | None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"a library has started {threads - 1} threads"
    for file in Path("/proc/self/fd").iterdir():
        if os.path.realpath(file).startswith("/dev/nvidia"):
            return "a library has initialised CUDA"
    return None


def _fork_or_errno() -> int:
    """Fork, or return a negative error number: an exception would end the server and all its processes."""
    try:
        return fork()
    except OSError as error:
        return -(error.errno or 1)


def after_fork(environment: Mapping[str, str]) -> int:
    """Make a forked process like a spawned one; return a descriptor that reads EOF when the server ends."""
    os.fork = fork
    os.close(_WRITING)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # noqa: NPY002 - otherwise all forks start from one global state, which others' code uses
    threads = environment.get("OPENBLAS_NUM_THREADS") or environment.get("OMP_NUM_THREADS")
    wanted = int(threads) if threads else len(os.sched_getaffinity(0))
    if wanted > 1:
        for library in ThreadpoolController().lib_controllers:
            if library.internal_api == "openblas":
                library.set_num_threads(wanted)
    return _READING


gc.disable()  # imports leave little garbage; collecting during them wastes time
_import_all()
_reason = _reason_not_to_fork()
if _reason:
    sys.exit(f"dsmi-zoo: cannot fork workers, so they are spawned (a slower start): {_reason}")
# Frozen objects are never visited by the collector, so their pages stay shared.
gc.collect()
gc.freeze()
gc.enable()
os.fork = _fork_or_errno
