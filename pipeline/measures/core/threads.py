"""Threads: work in as many as BLAS may use, each with one thread of BLAS."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


def blas_threads() -> int:
    """Threads that BLAS may use in this process, at least 1: a worker's share of the cores."""
    return max(
        (pool.num_threads for pool in _blas().select(user_api="blas").lib_controllers), default=1
    )


_this_thread = threading.local()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map the function over the items in as many threads as BLAS may use, each with one thread of BLAS.

    Within such a thread, it maps them one after the other.
    """
    threads = (
        1 if getattr(_this_thread, "is_one_of_several", False) else min(blas_threads(), len(items))
    )
    with one_blas_thread():
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=_mark_this_thread) as pool:
            return list(pool.map(function, items))


def _mark_this_thread() -> None:
    _this_thread.is_one_of_several = True


_lock, _inside = threading.Lock(), ExitStack()
_depth = 0


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread; threads of ours may be inside at the same time, and the last one out restores it."""
    global _depth
    with _lock:
        if _depth == 0:
            _inside.enter_context(_blas().limit(limits=1, user_api="blas"))
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _inside.close()


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds."""
    # SciPy brings a BLAS besides NumPy's, which scikit-learn calls from OpenMP loops. It sets it to one thread there
    # and then restores what was before: if that is not one thread, then in another thread's loop as well.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
