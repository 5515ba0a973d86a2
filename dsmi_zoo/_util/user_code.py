"""Modules of the user's: found after ours and every library's, and imported as their files stand now."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import psutil

from .errors import InputError

NOT_AS_PLANNED = "is not as it was when the run was planned; start the run again"


@dataclass(frozen=True)
class UsersModule:
    """A module and its file, with the SHA-256 of what was in it when it was found."""

    name: str
    path: Path
    sha256: str

    def imported(self) -> ModuleType:
        """The module as its file stands now, also where an earlier run of the same process imported it otherwise.

        It is then made anew, not reloaded, because that would keep names which the file no longer has.
        """
        with current_folder_last():
            if self._is_outdated():
                del sys.modules[self.name]
            module = importlib.import_module(self.name)
        _IMPORTED[self.name] = self.sha256
        return module

    def _is_outdated(self) -> bool:
        if self.name not in sys.modules:
            return False
        if self.name in _IMPORTED:
            return _IMPORTED[self.name] != self.sha256
        # Another module has imported it, sometime since this process began.
        return self.path.stat().st_mtime > psutil.Process().create_time()


_IMPORTED: dict[str, str] = {}
"""What each module's file held when it was imported from here."""


def find_module(name: str, wanted_by: str) -> UsersModule:
    """Find a module as a worker would; neither it nor a package around it is run.

    The current directory counts as the last of Python's paths. Errors begin with ``wanted_by``.

    Raises
    ------
    InputError
        When there is no such module, it has no file, or a file of its name in the current directory is not it.
    """
    with current_folder_last():
        spec = _spec_of(name)
    if spec is None:
        raise InputError(f"{wanted_by}: no module {name!r} is installed, or found in {Path.cwd()}")
    path = Path(spec.origin) if spec.origin is not None and Path(spec.origin).is_file() else None
    hidden = _hidden_file(name, path)
    if hidden is not None:
        raise InputError(
            f"{wanted_by}: {hidden} is hidden by {path or 'a module of Python'}; rename it"
        )
    if path is None:
        raise InputError(
            f"{wanted_by}: {name} has no file; put the function in a module of your own"
        )
    return UsersModule(name, path, hashlib.sha256(path.read_bytes()).hexdigest())


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Python looks into the current directory after all else; afterwards it still does, unless it did so before.

    What a module adds to the path when it is imported stays there.
    """
    folder, before = str(Path.cwd()), list(sys.path)
    sys.path[:] = [place for place in before if place not in ("", folder)] + [folder]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        added = [place for place in sys.path if place not in (*before, folder)]
        is_there = "" in before or folder in before
        sys.path[:] = [*before, *added] if is_there else [*before, *added, folder]


def _spec_of(module: str) -> ModuleSpec | None:
    """The module's spec; ``find_spec`` of a name with dots would import the packages around it."""
    first, *others = module.split(".")
    try:
        # A worker's is another one.
        spec = importlib.util.find_spec(first) if first != "__main__" else None
    except ValueError:  # of a module that was made by hand
        return None
    for name in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _hidden_file(module: str, imported_from: Path | None) -> Path | None:
    """The file here that bears the module's name while another one, ``imported_from``, is taken for it.

    None stands for a module without a file, such as one of Python's own.
    """
    here = Path.cwd().joinpath(*module.split("."))
    for own in (here.with_suffix(".py"), here / "__init__.py"):
        if own.is_file() and (imported_from is None or not own.samefile(imported_from)):
            return own
    return None
