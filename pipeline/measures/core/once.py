"""Properties that several threads may ask for: computed by the first, waited for by the others, kept."""

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class computed_once(Generic[Value]):
    """A property that is computed when it is first asked for, and kept in its object's ``__dict__``.

    Each property of each object has a lock of its own. ``functools.cached_property`` has one for all objects of a class
    in Python 3.11, and none from 3.12 on.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "computed_once[Value]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> "Value | computed_once[Value]":
        if instance is None:
            return self
        known = instance.__dict__
        with known.setdefault(f"_lock_of_{self.name}", RLock()):
            if self.name not in known:
                known[self.name] = self.function(instance)
        value: Value = known[self.name]
        return value
