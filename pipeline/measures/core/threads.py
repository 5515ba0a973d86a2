"""Work in as many threads as BLAS may use, each with one BLAS thread; and values that threads share."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import RLock
from typing import Any, Generic, TypeVar, overload

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


_this_thread = threading.local()


def blas_threads() -> int:
    """Return the number of threads to use: that of BLAS outside `one_blas_thread`, its process's share of the cores.

    Within one of several threads, it is 1.
    """
    if getattr(_this_thread, "is_one_of_several", False):
        return 1
    with _lock:
        return _threads_outside if _depth else _current_threads()


def _current_threads() -> int:
    return max(
        (pool.num_threads for pool in _blas().select(user_api="blas").lib_controllers), default=1
    )


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map the function over the items in as many threads as BLAS may use, each with one BLAS thread.

    Within such a thread, it maps them in sequence.
    """
    threads = min(blas_threads(), len(items))
    with one_blas_thread():
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads, initializer=_mark_this_thread) as pool:
            return list(pool.map(function, items))


def _mark_this_thread() -> None:
    _this_thread.is_one_of_several = True


_lock, _inside = threading.Lock(), ExitStack()
_depth = 0
_threads_outside = 1


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread; several threads may be inside at once, and the last one out restores its number."""
    global _depth, _threads_outside
    with _lock:
        if _depth == 0:
            _threads_outside = _current_threads()
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
    """Return the BLAS libraries of this process, cached because finding them takes milliseconds."""
    # SciPy has its own BLAS, which scikit-learn calls from OpenMP loops. scikit-learn sets it to one thread there and
    # then restores the earlier number; if that is not 1, it then also holds in another thread's loop.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()


Value = TypeVar("Value")


class computed_once(Generic[Value]):
    """A property, or a function of one object, whose value is computed once and kept in the object's ``__dict__``.

    Each value has its own lock. ``functools.cached_property`` has one lock per class in Python 3.11, and none from 3.12
    on.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function = function
        self.name = f"{function.__module__}.{function.__name__}"
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __call__(self, instance: object) -> Value:
        known = instance.__dict__
        with known.setdefault(f"lock of {self.name}", RLock()):
            if self.name not in known:
                known[self.name] = self.function(instance)
        value: Value = known[self.name]
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> "computed_once[Value]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> "Value | computed_once[Value]":
        return self if instance is None else self(instance)
