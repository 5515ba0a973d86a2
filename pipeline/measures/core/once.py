"""Values that several threads may ask for: the first computes them, the others wait, and all share the result."""

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload

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
