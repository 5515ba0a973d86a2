"""Files of a cache that are looked at before they are believed: a note beside each says how long it is and its hash."""

import json
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .atomic_files import flush, write_atomically
from .exclusive import exclusive
from .file_hashes import file_sha256, hash_problem

log = logging.getLogger(__name__)

NO_NOTE = "nothing says what it should hold"


def write_sealed(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, with its note."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write_atomically(temporary, write)
        seal(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def seal(temporary: Path, path: Path) -> None:
    """Let a file that is complete appear as ``path``, with its note.

    The note comes first: a process that is killed between the two leaves a file that its note contradicts, which is
    made again, never one without.
    """
    flush(temporary)
    note = {"size": temporary.stat().st_size, "sha256": file_sha256(temporary)}
    write_atomically(note_path(path), lambda file: file.write(json.dumps(note).encode()))
    temporary.replace(path)


def damage(path: Path) -> str:
    """How a file differs from what was written; empty when it does not.

    Its size is looked at every time, its content once a process for each time of change.
    """
    note = _note(path)
    try:
        size = path.stat().st_size
        if note is None:
            return NO_NOTE
        if size != note["size"]:
            return f"holds {size} bytes, not {note['size']} as written"
        return hash_problem(path, note["sha256"])
    except FileNotFoundError:  # perhaps only now, for lack of room
        return "is missing"


def noted_damage(path: Path) -> str:
    """The same of a file that the first versions wrote, too: they noted nothing, and what they wrote is believed."""
    problem = damage(path)
    return "" if problem == NO_NOTE else problem


def make_unless_whole(path: Path, what: str, remedy: str, make: Callable[[], None]) -> None:
    """Have a file made if it is missing or damaged; of several processes one makes it, and the others wait.

    Parameters
    ----------
    what, remedy
        How the one line begins and ends that is said of a damaged file.
    make
        Writes and seals it.
    """
    if not damage(path):
        return
    with exclusive(path.with_suffix(".lock")):
        problem = damage(path)
        if not problem:
            return
        if path.exists():
            log.warning(f"{what} {path}: {problem}; {remedy}")
        make()


def remove_sealed(path: Path) -> None:
    """Remove a file and its note."""
    path.unlink(missing_ok=True)
    note_path(path).unlink(missing_ok=True)


def note_path(path: Path) -> Path:
    """Where the note of a file stands."""
    return path.with_name(f"{path.name}.json")


def _note(path: Path) -> dict[str, Any] | None:
    if not note_path(path).is_file():
        return None
    try:
        note = json.loads(note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_note = (
        isinstance(note, dict)
        and isinstance(note.get("size"), int)
        and isinstance(note.get("sha256"), str)
    )
    return note if is_note else None
