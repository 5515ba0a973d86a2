"""Simulated power cuts and process deaths: real file operations, recorded or interrupted one by one.

An audit hook sees each of Python's file operations. The states after a power cut follow these rules, which are those of
POSIX and weaker than those of any one file system:

- content that was not flushed may be lost, zeroed, torn or whole;
- a change of names may be lost unless a folder that it touches was flushed later, whatever became of other changes;
- a rename happens in both folders or in neither.
"""

import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ONE_PATH = {"os.remove": "unlink", "os.mkdir": "mkdir", "os.rmdir": "rmdir", "os.truncate": "write"}
TWO_PATHS = {"os.rename": "rename", "os.link": "link", "os.symlink": "link"}
LOCK_FOLDERS = ("drivers", ".publish.lock", ".report.lock")

Watcher = Callable[[str, Path, Path | None], None]
_watchers: list[Watcher] = []
_is_installed = False


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Before each operation of this process that changes files, call ``watcher`` with its kind and one or two paths."""
    global _is_installed  # a hook cannot be removed
    if not _is_installed:
        sys.addaudithook(_audit)
        _is_installed = True
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watchers:
        return
    kind, paths = "", ()
    if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITES:
        kind, paths = "write", (_absolute(arguments[0]),)
    elif event in ONE_PATH and not isinstance(arguments[0], int):
        kind, paths = ONE_PATH[event], (_absolute(arguments[0], arguments[-1]),)
    elif event in TWO_PATHS:
        kind, paths = TWO_PATHS[event], tuple(_absolute(path) for path in arguments[:2])
    for watcher in _watchers if kind else ():
        watcher(kind, paths[0], paths[1] if len(paths) == 2 else None)


def _absolute(path: Any, folder: object = -1) -> Path:
    """Return a path as absolute; it may be relative to an open folder, as in `shutil.rmtree`."""
    given = Path(os.fsdecode(path))
    if isinstance(folder, int) and folder > 2 and not given.is_absolute():
        return Path(f"/proc/self/fd/{folder}").readlink() / given
    return given.absolute()


class Died(BaseException):
    """Raised instead of the operation at which a process dies and of every later one."""


@contextmanager
def dying_at(number: int, folder: Path) -> Iterator[None]:
    """Let this process die at operation ``number`` below ``folder``, counted from 0 without those on locks."""
    left = number
    thread, pid = threading.get_ident(), os.getpid()

    def die(kind: str, path: Path, other: Path | None) -> None:
        nonlocal left
        if threading.get_ident() != thread or not path.is_relative_to(folder):
            return
        if left >= 0 and set(LOCK_FOLDERS) & set(path.relative_to(folder).parts):
            return
        left -= 1
        if left < 0:
            raise Died

    with watching(die), pytest.MonkeyPatch.context() as patch:
        # No process has this pid, so the locks are a dead process's. Other threads keep the real pid, which Dask needs.
        patch.setattr(os, "getpid", lambda: 5_000_000 if threading.get_ident() == thread else pid)
        patch.setattr(os, "fsync", lambda _: None)  # a death loses nothing that was written
        yield


def deaths(work: Callable[[], object], folder: Path, every: int = 1) -> Iterator[int]:
    """Call ``work`` repeatedly, dying one operation (or ``every``) later each time; yield after each death."""
    number = 0
    while True:
        try:
            with dying_at(number, folder):
                work()
        except Died:
            yield number
            number += every
        else:
            return


@dataclass
class Folder:
    """A folder's names, as processes see them."""

    names: dict[str, "Folder | File"] = field(default_factory=dict)


@dataclass
class File:
    """A file's content, and its content on the disk before any recorded flush, None if it had none."""

    content: bytes = b""
    flushed: bytes | None = None


@dataclass
class Change:
    """A change of names: the entry that disappears and the one that appears, each in a folder."""

    gone: tuple[Folder, str, "Folder | File"] | None
    new: tuple[Folder, str, "Folder | File"] | None

    def touches(self) -> list[Folder]:
        return [part[0] for part in (self.gone, self.new) if part is not None]


Step = Change | tuple[str, Any, bytes]


class Recording:
    """The recorded file operations below a folder; files that existed before count as flushed."""

    def __init__(self, root: Path) -> None:
        self.root, self.steps = root, list[Step]()
        self.paths: list[tuple[str, Path, Path | None]] = []
        self._lock = threading.RLock()
        self._now: Folder = self._tree(root)
        self._start = _copied(self._now)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the operations inside the context."""

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_relative_to(self.root):
                with self._lock:
                    self._flush(path)

        with watching(self._watch), pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield
        self._read_all(self.root, self._now)

    def _watch(self, kind: str, path: Path, other: Path | None) -> None:
        inside = [one for one in (path, other) if one is not None and one.is_relative_to(self.root)]
        if not inside:
            return
        with self._lock:
            self.paths.append((kind, path, other))
            getattr(self, f"_{kind}")(path, other)

    def _write(self, path: Path, _: Path | None) -> None:
        folder = self._at(path.parent)
        if isinstance(folder, Folder) and path.name not in folder.names and path.parent.is_dir():
            self._change(None, (folder, path.name, File()))

    def _mkdir(self, path: Path, _: Path | None) -> None:
        folder = self._at(path.parent)
        if isinstance(folder, Folder) and not path.exists():
            self._change(None, (folder, path.name, Folder()))

    def _unlink(self, path: Path, _: Path | None) -> None:
        folder = self._at(path.parent)
        if isinstance(folder, Folder) and path.name in folder.names:
            self._read(path)
            self._change((folder, path.name, folder.names[path.name]), None)

    def _rmdir(self, path: Path, _: Path | None) -> None:
        if path.is_dir() and not any(path.iterdir()):
            folder = self._at(path.parent)
            assert isinstance(folder, Folder)
            self._change((folder, path.name, folder.names[path.name]), None)

    def _rename(self, path: Path, other: Path | None) -> None:
        assert other is not None
        here, there = self._at(path.parent), self._at(other.parent)
        same = path.exists() and other.exists() and path.samefile(other)
        full = other.is_dir() and any(other.iterdir())
        if not path.exists() or same or full or not isinstance(here, Folder):
            return
        assert isinstance(there, Folder)
        self._read(path)
        node = here.names[path.name]
        self._change((here, path.name, node), (there, other.name, node))

    def _link(self, path: Path, other: Path | None) -> None:
        assert other is not None
        there = self._at(other.parent)
        node = self._at(path)
        if node is None:  # from another folder, so already flushed
            content = path.read_bytes()
            node = File(content, content)
        assert isinstance(there, Folder)
        self._change(None, (there, other.name, node))

    def _change(self, gone: Any, new: Any) -> None:
        self.steps.append(Change(gone, new))
        if gone is not None:
            del gone[0].names[gone[1]]
        if new is not None:
            new[0].names[new[1]] = new[2]

    def _flush(self, path: Path) -> None:
        node = self._at(path)
        if isinstance(node, Folder):
            self.steps.append(("names", node, b""))
        elif node is not None:
            node.content = path.read_bytes()
            self.steps.append(("content", node, node.content))

    def _at(self, path: Path) -> Folder | File | None:
        node: Folder | File | None = self._now
        for part in path.relative_to(self.root).parts if path.is_relative_to(self.root) else ("",):
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def _read(self, path: Path) -> None:
        node = self._at(path)
        if isinstance(node, File) and path.is_file():
            node.content = path.read_bytes()

    def _read_all(self, path: Path, node: Folder | File) -> None:
        if isinstance(node, File):
            node.content = path.read_bytes()
            return
        for name, one in node.names.items():
            self._read_all(path / name, one)

    def _tree(self, path: Path) -> Any:
        if path.is_dir():
            return Folder({one.name: self._tree(one) for one in path.iterdir()})
        content = path.read_bytes() if path.is_file() else b""
        return File(content, content)

    def cuts(self, every: int = 1, seed: int = 0) -> Iterator[tuple[int, dict[str, bytes | None]]]:
        """Yield states after power cuts: the number of steps before, and each file's content, None for a folder.

        Each cut has four states: only flushed data survives; all names survive, but no unflushed content; and two at
        random. A state that an earlier cut left is yielded again only after the last step.
        """
        chance = random.Random(seed)
        seen = set[frozenset[tuple[str, bytes | None]]]()
        for cut in sorted({*range(0, len(self.steps), every), len(self.steps)}):
            for keep_names, contents in (
                (lambda: False, ("lost",)),
                (lambda: True, ("lost", "zeroed")),
                (lambda: chance.random() < 0.5, ("lost", "zeroed", "torn", "whole")),
                (lambda: chance.random() < 0.8, ("lost", "zeroed", "torn", "whole")),
            ):
                state = self._after(self.steps[:cut], keep_names, contents, chance)
                content = frozenset(state.items())
                if content not in seen or cut == len(self.steps):
                    seen.add(content)
                    yield cut, state

    def _after(
        self,
        steps: Sequence[Step],
        keep_names: Callable[[], bool],
        contents: Sequence[str],
        chance: random.Random,
    ) -> dict[str, bytes | None]:
        flushed_names: set[int] = set()
        kept = []
        for step in reversed(steps):
            if isinstance(step, tuple) and step[0] == "names":
                flushed_names.add(id(step[1]))
            elif isinstance(step, Change):
                is_durable = any(id(folder) in flushed_names for folder in step.touches())
                if is_durable or keep_names():
                    kept.append(step)
        flushed = {
            id(step[1]): step[2]
            for step in steps
            if isinstance(step, tuple) and step[0] == "content"
        }
        names = {number: dict(there) for number, there in self._start.items()}
        for change in reversed(kept):
            if change.gone is not None:
                folder, name, node = change.gone
                there = names.setdefault(id(folder), {})
                if there.get(name) is node:
                    del there[name]
            if change.new is not None:
                folder, name, node = change.new
                names[id(folder)] = names.get(id(folder), {}) | {name: node}
        return dict(self._found(self._now, "", names, flushed, contents, chance))

    def _found(
        self,
        folder: Folder,
        where: str,
        names: dict[int, dict[str, Folder | File]],
        flushed: dict[int, bytes],
        contents: Sequence[str],
        chance: random.Random,
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, node in names.get(id(folder), {}).items():
            path = f"{where}{name}"
            if isinstance(node, Folder):
                yield path, None
                yield from self._found(node, f"{path}/", names, flushed, contents, chance)
            elif id(node) in flushed or node.flushed is not None:
                yield path, flushed.get(id(node), node.flushed)
            else:
                yield path, _harmed(node.content, chance.choice(contents))


def _copied(folder: Folder) -> dict[int, dict[str, Folder | File]]:
    """Return a copy of the names in each folder of a tree, by the folder's id."""
    names = {id(folder): dict(folder.names)}
    for node in folder.names.values():
        if isinstance(node, Folder):
            names |= _copied(node)
    return names


def _harmed(content: bytes, how: str) -> bytes:
    half = len(content) // 2
    return {
        "lost": b"",
        "zeroed": bytes(len(content)),
        "torn": content[:half] + bytes(len(content) - half),
        "whole": content,
    }[how]


def restore(state: dict[str, bytes | None], folder: Path) -> Path:
    """Make ``folder`` hold a state, and nothing else; without locks: their owner, dead in that state, is alive here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in state.items():
        if set(LOCK_FOLDERS) & set(Path(name).parts):
            continue
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder
