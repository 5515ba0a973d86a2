"""The cache of downloaded weights: find, fetch once, verify, evict."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256, flush, hash_problem, write_atomically
from dsmi_zoo._util.hashing import content_hash
from dsmi_zoo._util.locks import Claim, exclusive
from dsmi_zoo._util.paths import default_cache, within
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .hub import (
    FOLDER,
    HUB_FILES,
    Progress,
    RemoteFile,
    describe,
    folder_in_cache,
    is_offline,
    is_on_hub,
    paths_in_cache,
    patiently,
    refuse_offline,
    repository,
    transfer,
)

TAR_MAGIC_AT = 257  # bytes
PICKLE_PROTOCOLS = (2, 3, 4, 5)
LOOKED_AT = 512  # bytes, the header of a tar archive
SHOWN = 40


def content_problem(path: Path) -> str:
    """What a file is instead of weights; empty when it may be weights.

    Weights are a safetensors file, a zip archive (PyTorch's format, NumPy's ``.npz``), a pickle (PyTorch's format
    before 1.6) or a tar archive (the one before 0.2).
    """
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
    if _is_safetensors(start, path.stat().st_size) or _is_archive(start) or _is_pickle(start):
        return ""
    return _kind_of(start)


def _is_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes that hold the length of a header in JSON, and the header."""
    header_length = int.from_bytes(start[:8], "little")
    return 2 <= header_length <= size - 8 and start[8:9] == b"{"


def _is_archive(start: bytes) -> bool:
    return start.startswith(b"PK\x03\x04") or start[TAR_MAGIC_AT:].startswith(b"ustar")


def _is_pickle(start: bytes) -> bool:
    return start[:1] == b"\x80" and start[1:2] != b"" and start[1] in PICKLE_PROTOCOLS


def _kind_of(start: bytes) -> str:
    """What a file seems to be, for a person who wonders what came."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "an empty file"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith(b"<"):
        return "an XML document"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return f"text ({start[:SHOWN].decode()!r})"
    return f"a file that begins with the bytes {start[:8].hex(' ')}"


log = logging.getLogger(__name__)


def remote_weights(entry: ModelEntry) -> str | None:
    """The published weights that an entry needs: ``owner/name``, ``owner/name@revision`` or a URL; None if its own."""
    return None if entry.checkpoint is not None or entry.recipe is not None else entry.weights


def local_weights(weights: str, cache: Path | None = None) -> Path | None:
    """The file of published weights in the cache, or in the cache of the Hugging Face client; None if in neither.

    Only its size is looked at, so that asking for a thousand models is cheap.
    """
    return _find(weights, cache or default_cache(), _size_problem)


def sound_weights(weights: str, cache: Path) -> Path | None:
    """Like ``local_weights``, for a file whose content is the one that was fetched.

    It is read, once a process.
    """
    return _find(weights, cache, _problem)


def fetch_weights(
    weights: str, cache: Path, progress: Progress = lambda _bytes: None, *, keep: bool = True
) -> Path:
    """The file of published weights, downloaded and verified unless the cache has it.

    An interrupted transfer goes on where it stopped. Of several processes that want the same file, one downloads it
    and the others wait.

    Parameters
    ----------
    weights
        ``owner/name`` or ``owner/name@revision`` on the hub (HF_ENDPOINT), or a URL.
    progress
        Called with the number of bytes of the file that are here.
    keep
        Whether ``evict_weights`` must leave the file alone; a file that is kept once stays so.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        When it cannot be had: no such repository, no access, no network, offline.
    ValueError
        When what came is no file of weights, or its checksum is not the published one; the file is deleted.
    InputError
        For a URL or a repository's name that is none.
    """
    cached = sound_weights(weights, cache)
    if cached is None:
        if is_offline():
            _refuse_damaged(weights, cache)
            refuse_offline(weights)
        with _alone(folder_in_cache(weights, cache)):
            cached = sound_weights(weights, cache)  # another process may have fetched it meanwhile
            if cached is None:
                return _download(weights, cache, progress, keep)
    if keep:
        _mark_kept(cached)
    return cached


def evict_weights(weights: str, cache: Path) -> int:
    """Delete weights from the cache if a run fetched them for itself alone and they can be fetched again.

    Returns
    -------
    int
        The bytes that were freed: 0 for files that somebody put there to stay, and for any file when offline.
    """
    freed = 0
    for path in paths_in_cache(weights, cache):
        if path.is_file() and is_evictable(path) and not is_offline():
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
            _note_path(path).unlink(missing_ok=True)
    return freed


def is_evictable(path: Path) -> bool:
    """Whether a cached file was fetched by a run on a budget, and by nobody else."""
    return _note(path).get("keep") is False


def delete_if_damaged(path: Path) -> str:
    """Look again at a file that could not be loaded, and delete it if it is not what was fetched.

    Returns
    -------
    str
        What to tell of it; empty when the file is what was fetched, or was not fetched.
    """
    if not _was_fetched(path):
        return ""
    try:
        with _alone(path.parent):  # nobody may be fetching it anew
            if not path.is_file() or file_sha256(path) == _note(path).get("sha256"):
                return ""
            path.unlink()
            _note_path(path).unlink(missing_ok=True)
    except OSError as error:
        return f"it is damaged in the cache and could not be deleted ({error.strerror}): delete it"
    return "it was damaged in the cache and has been deleted; the next attempt with internet fetches it anew"


def _was_fetched(path: Path) -> bool:
    """Whether a file with a note of its hash stands where the cache keeps the weights that the note names."""
    note = _note(path)
    weights, folder = note.get("weights"), path.parent
    if "sha256" not in note or not isinstance(weights, str) or folder.parent.name != FOLDER:
        return False
    try:
        return path in paths_in_cache(weights, folder.parent.parent)
    except InputError:
        return False


def _find(weights: str, cache: Path, problem_of: Callable[[Path], str]) -> Path | None:
    for path in paths_in_cache(weights, cache):
        if path.is_file() and not problem_of(path):
            return path
    return _in_the_clients_cache(weights)


def _alone(folder: Path) -> AbstractContextManager[Claim]:
    """Nobody else fetches or deletes what is in this folder."""
    return exclusive(folder.with_name(f".{content_hash(folder.name)}.lock"))


def _problem(path: Path) -> str:
    """How a fetched file differs from what its note says; empty when it does not, or has no note."""
    wanted = _note(path).get("sha256")
    return _size_problem(path) or ("" if wanted is None else hash_problem(path, str(wanted)))


def _size_problem(path: Path) -> str:
    size, wanted = path.stat().st_size, _note(path).get("size")
    return "" if wanted in (None, size) else f"it has {size} bytes, not {wanted} as noted"


def _damaged(weights: str, cache: Path) -> list[str]:
    """The files of these weights that are not what was fetched, each with the reason."""
    here = [path for path in paths_in_cache(weights, cache) if path.is_file()]
    return [f"{path} is damaged: {problem}" for path in here if (problem := _problem(path))]


def _refuse_damaged(weights: str, cache: Path) -> None:
    for damage in _damaged(weights, cache):
        raise FileNotFoundError(
            f"{damage}; HF_HUB_OFFLINE forbids fetching it again: "
            "run `dsmi-zoo prefetch` on a node with internet, or delete the file"
        )


def _download(weights: str, cache: Path, progress: Progress, keep: bool) -> Path:
    """Download into a hidden file, verify, then rename; the caller holds the lock."""
    folder = folder_in_cache(weights, cache)
    for damage in _damaged(weights, cache):
        log.warning(f"{damage}; it is fetched again")

    def attempt() -> tuple[RemoteFile, Path]:
        # Anew each time: the address that the hub names is valid for an hour only.
        remote = describe(weights)
        folder.mkdir(parents=True, exist_ok=True)
        part = within(folder, f".{remote.name}.{content_hash(remote.version, remote.size)}.part")
        for other in set(_parts(folder)) - {part}:
            other.unlink(missing_ok=True)
        try:
            transfer(remote, part, progress)
        except BaseException:
            if remote.size is None:  # nobody could go on from it
                part.unlink(missing_ok=True)
            raise
        return remote, part

    def arrived() -> int:
        return sum(part.stat().st_size for part in _parts(folder))

    log.debug("downloading %s to %s", weights, folder)
    remote, part = patiently(weights, attempt, arrived, while_waiting=lambda: progress(arrived()))
    sha256 = file_sha256(part)
    _refuse_wrong(part, remote, sha256)
    flush(part)
    path = within(folder, remote.name)
    path.unlink(missing_ok=True)  # there only if it is damaged
    keep = keep or _note(path).get("keep") is True
    note = {
        "weights": weights,
        "checksum": remote.checksum,
        "size": part.stat().st_size,
        "sha256": sha256,
    }
    _write_note(path, note | {"keep": keep})
    part.replace(path)
    return path


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def _refuse_wrong(part: Path, remote: RemoteFile, sha256: str) -> None:
    """Delete what came, and say why, unless it is a file of weights with the published checksum."""
    came = content_problem(part)
    checksum = _checksum_problem(part, remote.checksum, sha256)
    if came or checksum:
        part.unlink()
    if came:
        raise ValueError(
            f"{remote.weights}: the server sent {came} instead of weights; check the address"
        )
    if checksum:
        what = f"{remote.weights}: {remote.name} arrived damaged and was deleted"
        raise ValueError(f"{what}: {checksum}; fetch it again")


def _checksum_problem(path: Path, checksum: str, sha256: str) -> str:
    """How a file's content, whose SHA-256 is known, differs from its published checksum; empty when it does not."""
    kind, _, wanted = checksum.partition(":")
    actual = _git_hash(path) if kind == "git" else sha256
    return (
        ""
        if actual.startswith(wanted)
        else f"the checksum is {actual[:12]}..., not {wanted[:12]}... as published"
    )


def _git_hash(path: Path) -> str:
    start = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: start).hexdigest()


def _in_the_clients_cache(weights: str) -> Path | None:
    if not is_on_hub(weights):
        return None
    from huggingface_hub import try_to_load_from_cache

    owner_and_name, revision = repository(weights)
    for name in HUB_FILES:
        cached = try_to_load_from_cache(owner_and_name, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _note_path(path: Path) -> Path:
    return within(path.parent, f"{path.name}.json")


def _note(path: Path) -> dict[str, Any]:
    """What was noted when the file was fetched; empty for a file that somebody put there."""
    try:
        note = json.loads(_note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(path: Path, note: dict[str, Any]) -> None:
    write_atomically(_note_path(path), lambda file: file.write(json.dumps(note).encode()))


def _mark_kept(path: Path) -> None:
    if is_evictable(path):
        _write_note(path, _note(path) | {"keep": True})
