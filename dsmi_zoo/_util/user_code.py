"""Find and import the user's modules: libraries take precedence, and files are read as they are now."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from .errors import InputError
from .files import file_sha256


class _SourceLoader(SourceFileLoader):
    """Loads source, never cached bytecode: Python takes that of a file of equal size, changed in the same second."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Refuse the facts that bytecode is compared with."""
        raise OSError


NOT_AS_PLANNED = "has changed since the run was planned; start the run again"


@dataclass(frozen=True)
class UsersModule:
    """A module, its file, and the file's SHA-256 when it was found."""

    name: str
    path: Path
    sha256: str

    def imported(self) -> ModuleType:
        """Import the module as its file is now, even if this process imported an older version.

        An old module is discarded, not reloaded, because a reload keeps names that are no longer in the file.
        """
        with current_folder_last():
            if self._is_outdated():
                del sys.modules[self.name]
            if self.name not in sys.modules and self.path.suffix == ".py":
                self._import_from_source()
            module = importlib.import_module(self.name)
        _IMPORTED[self.name] = self.sha256
        return module

    def _import_from_source(self) -> None:
        parent, _, child = self.name.rpartition(".")
        if parent:
            importlib.import_module(parent)
            if self.name in sys.modules:
                return
        loader = _SourceLoader(self.name, str(self.path))
        spec = importlib.util.spec_from_file_location(self.name, self.path, loader=loader)
        assert spec is not None
        module = sys.modules[self.name] = importlib.util.module_from_spec(spec)
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(self.name, None)
            raise
        if parent:
            setattr(sys.modules[parent], child, module)

    def _is_outdated(self) -> bool:
        if self.name not in sys.modules:
            return False
        if self.name in _IMPORTED:
            return _IMPORTED[self.name] != self.sha256
        # Another module imported it, at an unknown time since this process began.
        return self.path.stat().st_mtime > psutil.Process().create_time()


_IMPORTED: dict[str, str] = {}
"""The SHA-256 of each module's file when it was imported here."""


def find_module(name: str, wanted_by: str) -> UsersModule:
    """Find a module as a worker would, without running it or its parent packages.

    The current folder comes last on Python's path. Errors begin with ``wanted_by``.

    Raises
    ------
    InputError
        When there is no such module, it has no file, or it hides a file of that name in the current folder.
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
    return UsersModule(name, path, file_sha256(path))


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Put the current folder at the end of Python's path; it stays there unless it was on the path before.

    Paths that an imported module adds stay, too.
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
    """Return a module's spec without importing its parent packages, as ``find_spec`` alone would."""
    first, *others = module.split(".")
    try:
        # A worker has another main module.
        spec = importlib.util.find_spec(first) if first != "__main__" else None
    except ValueError:  # a module without a spec, made in code
        return None
    for name in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _hidden_file(module: str, imported_from: Path | None) -> Path | None:
    """Return the file of the module's name in the current folder, if the module comes from elsewhere.

    ``imported_from`` is None for a module without a file, such as Python's own.
    """
    here = Path.cwd().joinpath(*module.split("."))
    for own in (here.with_suffix(".py"), here / "__init__.py"):
        if own.is_file() and (imported_from is None or not own.samefile(imported_from)):
            return own
    return None
