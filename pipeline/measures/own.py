"""Measures of the user's own: functions of a module of theirs."""

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
    """A measure of the user's: its column's name, where it came from, the function, and what identifies its code."""

    name: str
    spec: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    identity: str

    def value(self, Z: NDArray[Any], labels: NDArray[Any]) -> float:
        """Call the function on copies, so that others see what it saw, whatever it does to them.

        Raises
        ------
        ValueError
            Names the measure, when it raises anything or returns no number.
        """
        try:
            return float(self.function(_read_only_copy(Z), _read_only_copy(labels)))
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"the measure {self.spec} raised {type(error).__name__}: {error}"
            ) from error


def load_measure(spec: str, taken: Collection[str] = ()) -> OwnMeasure:
    """Load a measure of the user's own, which runs its module.

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
    """The module and the name of a measure of the user's own, as for ``load_measure``; nothing of theirs is run."""
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
    """What identifies a measure's code: its name, and what is in its module's file."""
    return f"{spec}:{source.sha256}"


def spec_of(identity: str) -> str:
    """Return the ``module:function`` of a measure's identity."""
    return identity.rpartition(":")[0]


def column_of(identity: str) -> str:
    """Return the name of the column of a measure, by its identity or ``module:function``: its function's."""
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
    """Load measures in a process of its own, so that one that ends its process, or hangs, does not take this one along.

    Raises
    ------
    InputError
        As ``load_measure``; also for a module that ends its process, or takes longer than ``timeout_s``.
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
    _, came_back, problem = tried.stdout.rpartition(_TOLD)
    if not came_back:
        code = tried.returncode
        raise InputError(
            f"{_measures(specs)}: the import ends its process (exit code {code}); mend the module"
        )
    if problem.strip():
        raise InputError(problem.strip())


_TOLD = "dsmi-zoo: tried to load measures: "
_TRY = """
import json, sys
sys.path[:], specs = json.loads(sys.argv[1])
from dsmi_zoo.pipeline.measures.own import tell_problem
tell_problem(specs)
"""


def tell_problem(specs: Sequence[str]) -> None:
    """Print what is wrong with measures, after whatever their modules print."""
    problem = ""
    try:
        for spec in specs:
            load_measure(spec)
    except InputError as error:
        problem = str(error)
    except BaseException as error:  # KeyboardInterrupt, for one
        problem = f"{_measures(specs)}: {type(error).__name__}"
    print(f"{_TOLD}{problem}")


def _measures(specs: Sequence[str]) -> str:
    return f"measure{'s' if len(specs) > 1 else ''} {', '.join(map(repr, specs))}"


def _read_only_copy(array: NDArray[Any]) -> NDArray[Any]:
    """What NumPy refuses to write into; torch writes all the same, so it is a copy."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy
