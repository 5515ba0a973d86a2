"""The user's own measures: functions in the user's modules."""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.user_code import UsersModule, find_module
from dsmi_zoo.data_catalog.models.entry import module_and_function

from .catalog import BY_NAME


@dataclass(frozen=True)
class OwnMeasure:
    """A user's own measure: its column's name, its ``module:function``, the function, and its code's identity."""

    name: str
    spec: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    identity: str

    def value(self, Z: NDArray[Any], labels: NDArray[Any]) -> float:
        """Call the function on copies, so that other measures see the same arrays, whatever it does to them.

        Raises
        ------
        ValueError
            If the measure, which the message names, raises anything or does not return a number.
        """
        try:
            return float(self.function(_read_only_copy(Z), _read_only_copy(labels)))
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"the measure {self.spec} raised {type(error).__name__}: {error}"
            ) from error


def load_measure(spec: str, taken: Collection[str] = ()) -> OwnMeasure:
    """Load a user's own measure; this runs its module.

    Parameters
    ----------
    spec : str
        ``package.module:function``, of a function (Z [n, d], labels [n]) -> float. The module is looked for wherever
        Python looks, and in the current directory last, so that no file there can take the place of a library.
    taken : collection of str
        Column names that the measure must not have; those of the built-in measures are always taken.

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
    source, name = find_measure(spec, taken)
    module = _imported(source, spec)
    if not hasattr(module, name):
        raise InputError(
            f"measure {spec!r}: {source.name} has no {name!r}; check the function's name"
        )
    function = getattr(module, name)
    if not callable(function):
        raise InputError(
            f"measure {spec!r}: {name!r} is no function; name one that takes (Z, labels)"
        )
    return OwnMeasure(name, spec, function, measure_identity(spec, source))


def find_measure(spec: str, taken: Collection[str] = ()) -> tuple[UsersModule, str]:
    """Return the module and function name of a user's own measure, as for ``load_measure``, without running them."""
    parts = module_and_function(spec)
    if parts is None:
        raise InputError(f"measure {spec!r}: write it as package.module:function")
    module_name, name = parts
    if name in taken or name in BY_NAME:
        raise InputError(
            f"measure {spec!r}: the column {name!r} exists already; rename the function"
        )
    return find_module(module_name, f"measure {spec!r}"), name


def measure_identity(spec: str, source: UsersModule) -> str:
    """Return the identity of a measure's code: its spec, and the hash of its module's file."""
    return f"{spec}:{source.sha256}"


def spec_of(identity: str) -> str:
    """Return the ``module:function`` of a measure's identity."""
    return identity.rpartition(":")[0]


def column_of(identity: str) -> str:
    """Return the name of a measure's column, which is its function's, from its identity or ``module:function``."""
    return identity.split(":")[1]


def _imported(source: UsersModule, spec: str) -> ModuleType:
    try:
        return source.imported()
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        reason = " ".join(str(error).split())
        raise InputError(
            f"measure {spec!r}: cannot import {source.name} ({type(error).__name__}: {reason}); mend {source.path}"
        ) from error


def try_measures(specs: Sequence[str], timeout_s: float | None = None) -> None:
    """Load measures in a separate process, so that a module that ends its process, or hangs, does not affect this one.

    Raises
    ------
    InputError
        As for ``load_measure``; also for a module that ends its process, or takes longer than ``timeout_s``.
    """
    if not specs:
        return
    command = [sys.executable, "-c", _TRY, json.dumps([sys.path, list(specs)])]
    try:
        tried = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{_measures(specs)}: the import takes longer than --model-timeout {timeout_s:g} s"
        ) from None
    _, came_back, problem = tried.stdout.rpartition(_PROBLEM_MARKER)
    if not came_back:
        code = tried.returncode
        raise InputError(
            f"{_measures(specs)}: the import ends its process (exit code {code}); mend the module"
        )
    if problem.strip():
        raise InputError(problem.strip())


_PROBLEM_MARKER = "dsmi-zoo: tried to load measures: "
_TRY = """
import json, sys
sys.path[:], specs = json.loads(sys.argv[1])
from dsmi_zoo.pipeline.measures.own import print_problem
print_problem(specs)
"""


def print_problem(specs: Sequence[str]) -> None:
    """Print the first problem with the measures, after any output of their modules."""
    problem = ""
    try:
        for spec in specs:
            load_measure(spec)
    except InputError as error:
        problem = str(error)
    except BaseException as error:  # KeyboardInterrupt, for one
        problem = f"{_measures(specs)}: {type(error).__name__}"
    print(f"{_PROBLEM_MARKER}{problem}")


def _measures(specs: Sequence[str]) -> str:
    return f"measure{'s' if len(specs) > 1 else ''} {', '.join(map(repr, specs))}"


def _read_only_copy(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that NumPy refuses to write into; it is a copy, because torch writes into it all the same."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy
