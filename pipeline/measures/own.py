"""Measures of the user's own: functions of a module of theirs."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from ...data_catalog.entries import module_and_function
from ...data_catalog.errors import InputError
from ..users_modules import UsersModule, find_module
from .registry import BY_NAME


@dataclass(frozen=True)
class OwnMeasure:
    """A measure of the user's: its column's name, where it came from, the function, and what identifies its code."""

    name: str
    spec: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    identity: str

    def value(self, Z: NDArray[Any], labels: NDArray[Any]) -> float:
        """Call the function.

        Raises
        ------
        ValueError
            Names the measure, when it raises anything or returns no number.
        """
        try:
            return float(self.function(Z, labels))
        except (Exception, SystemExit) as error:
            raise ValueError(f"the measure {self.spec} raised {type(error).__name__}: {error}") from error


def load_measure(spec: str, taken: Collection[str] = ()) -> OwnMeasure:
    """Load a measure of the user's own.

    Parameters
    ----------
    spec : str
        ``package.module:function``, of a function (Z [n, d], labels [n]) -> float. The module is looked for wherever
        Python looks, and in the current directory last, so that no file there can take the place of a library.
    taken : collection of str
        Names of columns that the measure must not have; those of the built-in measures always are taken.

    Returns
    -------
    OwnMeasure
        Its identity is the spec and the SHA-256 of the module's file, so that an edit makes it another measure.

    Raises
    ------
    InputError
        If the spec is malformed, the module is not found, cannot be imported or has no file, there is no such function
        in it, or its name is taken.
    """
    parts = module_and_function(spec)
    if parts is None:
        raise InputError(f"measure {spec!r}: write it as package.module:function")
    module_name, name = parts
    if name in taken or name in BY_NAME:
        raise InputError(f"measure {spec!r}: the column {name!r} exists already; rename the function")
    found, module = _imported(module_name, spec)
    if not hasattr(module, name):
        raise InputError(f"measure {spec!r}: {module_name} has no {name!r}; check the function's name")
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"measure {spec!r}: {name!r} is no function; name one that takes (Z, labels)")
    return OwnMeasure(name, spec, function, f"{spec}:{found.sha256}")


def _imported(module_name: str, spec: str) -> tuple[UsersModule, ModuleType]:
    found = find_module(module_name, f"measure {spec!r}")
    try:
        return found, found.imported()
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        reason = " ".join(str(error).split())
        raise InputError(
            f"measure {spec!r}: cannot import {module_name} ({type(error).__name__}: {reason}); mend {found.path}"
        ) from error
