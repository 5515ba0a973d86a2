"""Published weights: find them in the cache, fetch them once from the Hugging Face hub or a URL, verify, evict."""

import hashlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data_catalog.entries import ModelEntry
from .config import content_hash, default_cache
from .exclusive import exclusive
from .remote import (
    RemoteFile,
    describe,
    file_names,
    is_offline,
    is_on_hub,
    patiently,
    refuse_offline,
    repository,
)
from .store import write_atomically

log = logging.getLogger(__name__)

Progress = Callable[[int], None]


def remote_weights(entry: ModelEntry) -> str | None:
    """The published weights that an entry needs: ``owner/name``, ``owner/name@revision`` or a URL; None if its own."""
    return None if entry.checkpoint is not None or entry.recipe is not None else entry.weights


def local_weights(weights: str, cache: Path | None = None) -> Path | None:
    """The file of published weights in the cache, or in the cache of the Hugging Face client; None if in neither."""
    folder = _folder(weights, cache or default_cache())
    for name in file_names(weights):
        if (folder / name).is_file() and _is_whole(folder / name):
            return folder / name
    return _in_the_clients_cache(weights)


def fetch_weights(weights: str, cache: Path, progress: Progress | None = None, *, keep: bool = True) -> Path:
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
        When its checksum is not the published one; the file is deleted.
    """
    cached = local_weights(weights, cache)
    if cached is None:
        refuse_offline(weights)
        folder = _folder(weights, cache)
        with exclusive(folder.with_name(f".{folder.name}.lock")):
            cached = local_weights(weights, cache)  # another process may have fetched it meanwhile
            if cached is None:
                return _download(weights, folder, progress, keep)
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
    for name in file_names(weights):
        path = _folder(weights, cache) / name
        if path.is_file() and is_evictable(path) and not is_offline():
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
            _note_path(path).unlink(missing_ok=True)
    return freed


def is_evictable(path: Path) -> bool:
    """Whether a cached file was fetched by a run on a budget, and by nobody else."""
    return _note(path).get("keep") is False


def checksum_problem(path: Path, checksum: str) -> str:
    """How a file's content differs from its published checksum; empty when it does not."""
    kind, _, wanted = checksum.partition(":")
    if not wanted:
        return ""
    with path.open("rb") as file:
        if kind == "git":
            start = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
            found = hashlib.file_digest(file, lambda: start).hexdigest()
        else:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if found.startswith(wanted) else f"the checksum is {found[:12]}..., not {wanted[:12]}... as published"


def _download(weights: str, folder: Path, progress: Progress | None, keep: bool) -> Path:
    """Download into a hidden file, verify, then rename; the caller holds the lock."""

    def attempt() -> tuple[RemoteFile, Path]:
        remote = describe(weights)  # anew each time: the address that the hub names is valid for an hour only
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{remote.name}.{content_hash(remote.version, remote.size)}.part"
        for other in set(folder.glob(".*.part")) - {part}:
            other.unlink(missing_ok=True)
        _transfer(remote, part, progress)
        return remote, part

    log.debug("downloading %s to %s", weights, folder)
    remote, part = patiently(weights, attempt)
    problem = checksum_problem(part, remote.checksum)
    if problem:
        part.unlink()
        raise ValueError(f"{weights}: {remote.name} arrived damaged and was deleted: {problem}; fetch it again")
    path = folder / remote.name
    path.unlink(missing_ok=True)  # there only if it is damaged
    _write_note(path, weights, remote.checksum, part.stat().st_size, keep)
    part.replace(path)
    return path


def _transfer(remote: RemoteFile, part: Path, progress: Progress | None) -> None:
    # hf_hub_download would start over whenever its process was interrupted; its own transport can go on.
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

    if not are_progress_bars_disabled():
        disable_progress_bars()
    here = part.stat().st_size if part.exists() else 0
    if remote.size is None or here > remote.size:
        part.unlink(missing_ok=True)  # without a size nobody can tell whether it is complete
        here = 0
    with _CountingFile(part, progress) as file:
        http_get(remote.url, file, resume_size=here, headers=dict(remote.headers), expected_size=remote.size)


class _CountingFile(io.BufferedWriter):
    """A file to append to, that reports its length after each write."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = progress or (lambda _bytes: None)
        self._report(self.tell())

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


def _folder(weights: str, cache: Path) -> Path:
    if not is_on_hub(weights):
        return cache / "pretrained" / content_hash(weights)
    return cache / "pretrained" / weights.replace("/", "--")


def _in_the_clients_cache(weights: str) -> Path | None:
    if not is_on_hub(weights):
        return None
    from huggingface_hub import try_to_load_from_cache

    owner_and_name, revision = repository(weights)
    for name in file_names(weights):
        found = try_to_load_from_cache(owner_and_name, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note(path: Path) -> dict[str, Any]:
    """What was noted when the file was fetched; empty for a file that somebody put there."""
    try:
        note = json.loads(_note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _is_whole(path: Path) -> bool:
    return _note(path).get("size") in (None, path.stat().st_size)


def _write_note(path: Path, weights: str, checksum: str, size: int, keep: bool) -> None:
    note = {"weights": weights, "checksum": checksum, "size": size, "keep": keep}
    write_atomically(_note_path(path), lambda file: file.write(json.dumps(note).encode()))


def _mark_kept(path: Path) -> None:
    if is_evictable(path):
        note = _note(path) | {"keep": True}
        write_atomically(_note_path(path), lambda file: file.write(json.dumps(note).encode()))
