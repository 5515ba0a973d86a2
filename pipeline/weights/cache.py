"""The cache of downloaded weights: find, fetch once, verify, evict."""

import json
import logging
import re
import uuid
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dsmi_zoo._util.files import (
    content_hash,
    file_sha256,
    flush,
    hash_problem,
    make_folder,
    move,
    write_atomically,
)
from dsmi_zoo._util.locks import Claim, boot_id, exclusive
from dsmi_zoo._util.paths import default_cache, within
from dsmi_zoo._util.tensor_files import text_of
from dsmi_zoo._util.text import shortened
from dsmi_zoo.data_catalog.models.entry import ModelEntry

from .hub import (
    HUB_FILES,
    Progress,
    RemoteFile,
    describe,
    download_rest,
    folder_in_cache,
    is_offline,
    is_on_hub,
    paths_in_cache,
    refuse_offline,
    repository,
    with_retries,
)

log = logging.getLogger(__name__)

SHOWN_BYTES = 40  # bytes shown of a file that is not weights


def remote_weights(entry: ModelEntry) -> str | None:
    """Return an entry's published weights: ``owner/name``, ``owner/name@revision`` or a URL; None if it has its own."""
    return None if entry.checkpoint is not None or entry.recipe is not None else entry.weights


def local_weights(weights: str, cache: Path | None = None) -> Path | None:
    """Return the file of published weights in the cache or in that of the Hugging Face client; None if in neither.

    Only the size is checked, so that looking up a thousand models is cheap.
    """
    for path in _present(weights, cache or default_cache()):
        if not _size_problem(path):
            return path
    return None


def sound_weights(weights: str, cache: Path) -> Path | None:
    """Return a file as ``local_weights`` does, but with the right checksum, which is computed once per process."""
    for path in _present(weights, cache):
        if not _problem(path):
            return path
    return None


def _present(weights: str, cache: Path) -> list[Path]:
    """Return the files of the weights in the cache, then those in the cache of the Hugging Face client."""
    from huggingface_hub import try_to_load_from_cache

    present = [path for path in paths_in_cache(weights, cache) if path.is_file()]
    if is_on_hub(weights):
        owner_and_name, revision = repository(weights)
        for name in HUB_FILES:
            found = try_to_load_from_cache(owner_and_name, name, revision=revision)
            if isinstance(found, str):
                present.append(Path(found))
    return present


def fetch_weights(
    weights: str, cache: Path, progress: Progress = lambda _bytes: None, *, keep: bool = True
) -> Path:
    """Return the file of published weights, downloaded and verified unless the cache has it.

    An interrupted transfer is resumed. If several processes want the same file, one downloads it and the others wait.

    Parameters
    ----------
    weights
        ``owner/name`` or ``owner/name@revision`` on the hub (HF_ENDPOINT), or a URL.
    progress
        Called with the number of bytes of the file that have arrived.
    keep
        Whether ``evict_weights`` must leave the file alone; a file that was once kept stays so.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        When the file is not available: no such repository, no access, no network, offline.
    ValueError
        When the downloaded file does not hold weights or has the wrong checksum; the file is deleted.
    InputError
        For an invalid URL or repository name.
    """
    path = sound_weights(weights, cache)
    if path is None and is_offline():
        damage = _damage(weights, cache)
        if damage:
            raise FileNotFoundError(
                f"{damage}; HF_HUB_OFFLINE forbids fetching it again: "
                "run `dsmi-zoo prefetch` on a node with internet, or delete the file"
            )
        refuse_offline(weights)
    if path is None:
        with _lock(folder_in_cache(weights, cache)):
            # Another process may have fetched it meanwhile.
            path = sound_weights(weights, cache) or _download(weights, cache, progress, keep)
    if keep and is_evictable(path):
        _write_note(path, _note(path) | {"keep": True})
    return path


def evict_weights(weights: str, cache: Path) -> int:
    """Delete weights from the cache if a run on a budget fetched them and they can be fetched again.

    Returns
    -------
    int
        The freed bytes: 0 for files that a user put there, and for any file when offline.
    """
    freed = 0
    for path in paths_in_cache(weights, cache):
        if path.is_file() and is_evictable(path) and not is_offline():
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
            _note_path(path).unlink(missing_ok=True)
    return freed


def is_evictable(path: Path) -> bool:
    """Return whether a cached file was fetched only by a run on a budget."""
    return _note(path).get("keep") is False


def _lock(folder: Path) -> AbstractContextManager[Claim]:
    """Keep other processes from fetching or deleting the files in a folder."""
    return exclusive(folder.with_name(f".{content_hash(folder.name)}.lock"))


def _problem(path: Path) -> str:
    """Return how a file differs from its note, or from the checksum that the hub client put in its name; else empty."""
    wanted = _note(path).get("sha256")
    blob = path.resolve().name
    if wanted is None and re.fullmatch("[0-9a-f]{64}", blob):
        wanted = blob
    return _size_problem(path) or ("" if wanted is None else hash_problem(path, str(wanted)))


def _size_problem(path: Path) -> str:
    size, wanted = path.stat().st_size, _note(path).get("size")
    return "" if wanted in (None, size) else f"it has {size} bytes, not {wanted} as noted"


def _damage(weights: str, cache: Path) -> str:
    """Return which file of these weights is damaged, and how; empty if none is."""
    for path in _present(weights, cache):
        problem = _problem(path)
        if problem:
            return f"{path} is damaged: {problem}"
    return ""


def _download(weights: str, cache: Path, progress: Progress, keep: bool) -> Path:
    """Download into a hidden file, verify it, then rename it; the caller holds the lock."""
    folder = folder_in_cache(weights, cache)
    damage = _damage(weights, cache)
    if damage:
        log.warning(f"{damage}; it is fetched again")
    boot = boot_id() or uuid.uuid4().hex
    is_resumed = any(folder.glob(".*.part"))

    def attempt() -> tuple[RemoteFile, Path]:
        remote = describe(weights)  # each time: the address that the hub gives expires in an hour
        make_folder(folder)
        # A power cut may leave zeros at the end of the file, which only a published checksum shows.
        since = () if remote.sha256 else (boot,)
        digits = content_hash(remote.version, remote.size, *since)
        part = within(folder, f".{remote.name}.{digits}.part")
        for other in set(folder.glob(".*.part")) - {part}:
            other.unlink(missing_ok=True)
        download_rest(remote, part, progress)
        return remote, part

    def arrived() -> int:
        return sum(part.stat().st_size for part in folder.glob(".*.part"))

    log.debug("downloading %s to %s", weights, folder)
    remote, part = with_retries(
        weights, attempt, arrived, while_waiting=lambda: progress(arrived())
    )
    sha256 = file_sha256(part)
    problem = _problem_of_arrival(part, remote, sha256)
    if problem:
        part.unlink()
        if is_resumed:
            log.warning(f"{weights}: {problem}; fetching it again from its beginning")
            return _download(weights, cache, progress, keep)
        raise ValueError(f"{weights}: {problem}")
    flush(part)
    path = within(folder, remote.name)
    path.unlink(missing_ok=True)  # present only if it is damaged
    note = {"weights": weights, "size": part.stat().st_size, "sha256": sha256}
    _write_note(path, note | {"keep": keep or _note(path).get("keep") is True})
    move(part, path)
    return path


def _problem_of_arrival(part: Path, remote: RemoteFile, sha256: str) -> str:
    """Return why a downloaded file cannot be used; empty if it can."""
    content = content_problem(part)
    if content:
        return f"the server sent {content} instead of weights; check the address"
    cut = _missing_end(part)
    if cut:
        return f"{remote.name} arrived incomplete and was deleted: {cut}; fetch it again"
    if not sha256.startswith(remote.sha256):
        checksum = f"the checksum is {sha256[:12]}..., not {remote.sha256[:12]}... as published"
        return f"{remote.name} arrived damaged and was deleted: {checksum}; fetch it again"
    return ""


def content_problem(path: Path) -> str:
    """Return what a file holds instead of weights, which are binary: text or nothing; empty for a binary file."""
    with path.open("rb") as file:
        start = file.read(SHOWN_BYTES)
    if not start:
        return "an empty file"
    text = text_of(start)
    return f"text ({text!r})" if text else ""


def _missing_end(path: Path) -> str:
    """Return the evidence that a safetensors file or a zip archive (PyTorch's) is cut off or ends in zeros, if any."""
    with path.open("rb") as file:
        start = file.read(9)
        if start.startswith(b"PK"):
            return "" if zipfile.is_zipfile(file) else "a zip archive without its end"
    if start[8:] == b"{":
        from safetensors import SafetensorError, safe_open

        try:
            safe_open(path, framework="numpy").__exit__(None, None, None)
        except SafetensorError as error:
            return shortened(str(error))
    return ""


def _note_path(path: Path) -> Path:
    return within(path.parent, f"{path.name}.json")


def _note(path: Path) -> dict[str, Any]:
    """Return the note written when the file was fetched; empty for a file that a user put there."""
    try:
        note = json.loads(_note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(path: Path, note: dict[str, Any]) -> None:
    write_atomically(_note_path(path), lambda file: file.write(json.dumps(note).encode()))
