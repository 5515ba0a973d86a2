"""Published weights: find them in the cache, fetch them once from the Hugging Face hub or a URL, verify, evict."""

import errno
import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from data_catalog.models import ModelEntry
from pipeline.config import content_hash, default_cache
from pipeline.exclusive import exclusive
from pipeline.store import write_atomically

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the order in which timm looks for them
ATTEMPTS = 4
LONGEST_WAIT_S = 300.0
HEAD_TIMEOUT_S = 10.0

Progress = Callable[[int], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RemoteFile:
    """One file of weights as its server describes it before it is downloaded.

    Attributes
    ----------
    size : int or None
        Bytes; None when the server does not say.
    checksum : str
        ``sha256:`` with all or the first digits, ``git:`` with a git blob's SHA-1, or empty when nothing is published.
    version
        Changes with the content, so that two versions are never joined in one resumed transfer.
    headers
        What the client sends along; the user's token goes to the hub only.
    """

    weights: str
    name: str
    url: str
    size: int | None
    checksum: str
    version: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Unreachable(ConnectionError):
    """A server gave no answer at all, several times: others of its files need not be tried."""


def remote_weights(entry: ModelEntry) -> str | None:
    """The published weights that an entry needs: ``owner/name``, ``owner/name@revision`` or a URL; None if its own."""
    return None if entry.checkpoint is not None or entry.recipe is not None else entry.weights


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every download."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def local_weights(weights: str, cache: Path | None = None) -> Path | None:
    """The file of published weights in the cache, or in the cache of the Hugging Face client; None if in neither."""
    folder = _folder(weights, cache or default_cache())
    for name in _names(weights):
        if (folder / name).is_file() and _is_whole(folder / name):
            return folder / name
    return _in_the_clients_cache(weights)


def remote_file(weights: str) -> RemoteFile:
    """Ask the server what it would send: name, size and checksum, by HEAD requests.

    The hub counts these requests far more generously than those of its API, which a zoo would exhaust.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        With one line that names the weights and what to do.
    """
    return _patiently(weights, lambda: _describe(weights))


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
        _refuse_offline(weights)
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
    for name in _names(weights):
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
        remote = _describe(weights)  # anew each time: the address that the hub names is valid for an hour only
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{remote.name}.{content_hash(remote.version, remote.size)}.part"
        for other in set(folder.glob(".*.part")) - {part}:
            other.unlink(missing_ok=True)
        _transfer(remote, part, progress)
        return remote, part

    remote, part = _patiently(weights, attempt)
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


def _describe(weights: str) -> RemoteFile:
    _refuse_offline(weights)
    return _describe_url(weights) if _is_url(weights) else _describe_hub(weights)


def _describe_hub(weights: str) -> RemoteFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    repository, revision = _repository(weights)
    for name in HUB_FILES:
        url = hf_hub_url(repository, name, revision=revision)
        try:
            metadata = get_hf_file_metadata(url, timeout=HEAD_TIMEOUT_S)
        except EntryNotFoundError:
            continue
        etag = metadata.etag or ""
        headers = build_hf_headers()
        if urlsplit(metadata.location)[:2] != urlsplit(url)[:2]:
            headers.pop("authorization", None)
        return RemoteFile(weights, name, metadata.location, metadata.size, _hub_checksum(etag), etag, headers)
    raise FileNotFoundError(f"{weights}: the repository holds none of {', '.join(HUB_FILES)}")


def _hub_checksum(etag: str) -> str:
    """The hub's ETag is a large file's SHA-256, a small one's hash in git."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return f"sha256:{etag}"
    return f"git:{etag}" if re.fullmatch("[0-9a-f]{40}", etag) else ""


def _describe_url(url: str) -> RemoteFile:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    response = get_session().head(
        url, headers={"Accept-Encoding": "identity"}, follow_redirects=True, timeout=HEAD_TIMEOUT_S
    )
    size, version = None, ""
    if response.status_code not in (403, 405, 501):  # some stores allow GET only
        hf_raise_for_status(response)
        size = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    (name,) = _names(url)
    return RemoteFile(url, name, url, size, _checksum_in_name(name), version)


def _checksum_in_name(name: str) -> str:
    """PyTorch's convention, ``name-0123abcd.pth``; shorter ones are no hashes (``vit.h.14-300e.pth.tar``)."""
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z.]+$", name)
    return f"sha256:{match[1]}" if match else ""


def _patiently(weights: str, call: Callable[[], Answer]) -> Answer:
    """Call, and call again after a pause when the server is busy or the connection broke, a bounded number of times."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            pause = _pause(error, attempt)
            if pause is None or attempt == ATTEMPTS - 1:
                _raise_in_one_line(weights, error)
            time.sleep(pause)
    raise AssertionError("unreachable")


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another attempt; None when another would not help."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in (408, 429) and error.response.status_code < 500:
            return None
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked), LONGEST_WAIT_S) if asked.isdigit() else float(2**attempt)
    broken = isinstance(error, (_http_error(), ConnectionError, TimeoutError)) or _is_wrong_size(error)
    return float(2**attempt) if broken and not isinstance(error, OfflineModeIsEnabled) else None


def _http_error() -> type[Exception]:
    """The base class of the HTTP library's errors, whichever library the client's version uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _is_wrong_size(error: Exception) -> bool:
    """The client's plain OSError when fewer bytes came than announced; errors of the disk have a number."""
    return type(error) is OSError and error.errno is None


def _raise_in_one_line(weights: str, error: Exception) -> NoReturn:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = urlsplit(weights).netloc if _is_url(weights) else constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        raise PermissionError(f"{weights}: accept its terms on {where}, then log in (hf auth login)") from None
    if isinstance(error, RepositoryNotFoundError):
        raise FileNotFoundError(
            f"{weights}: {where} has no such repository, or it is private (hf auth login)"
        ) from None
    if isinstance(error, RevisionNotFoundError):
        raise FileNotFoundError(f"{weights}: the repository has no such revision") from None
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (404, 410):
            raise FileNotFoundError(f"{weights}: {where} has no such file (HTTP {status})") from None
        raise ConnectionError(f"{weights}: {where} refuses (HTTP {status}); try again later") from None
    if isinstance(error, (_http_error(), ConnectionError, TimeoutError)) or _is_wrong_size(error):
        told = " ".join(str(error).split()) or type(error).__name__
        hint = "check the network, a proxy and HF_ENDPOINT; the same command goes on from here"
        raise Unreachable(f"{weights}: no connection to {where} ({told[:120]}); {hint}") from None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(f"{weights}: no space left in the cache; make room or choose another --cache") from None
    raise error


def _refuse_offline(weights: str) -> None:
    if is_offline():
        raise FileNotFoundError(
            f"{weights}: not in the cache, and HF_HUB_OFFLINE forbids to download it; "
            "run `dsmi-zoo prefetch` on a node with internet"
        )


def is_on_hub(weights: str) -> bool:
    """Whether weights are a repository of the hub rather than a URL."""
    return not _is_url(weights)


def _is_url(weights: str) -> bool:
    return weights.startswith(("http://", "https://"))


def _repository(weights: str) -> tuple[str, str | None]:
    name, _, revision = weights.partition("@")
    return name, revision or None


def _names(weights: str) -> tuple[str, ...]:
    """The files that may hold the weights, the best first."""
    return (unquote(Path(urlsplit(weights).path).name) or "weights",) if _is_url(weights) else HUB_FILES


def _folder(weights: str, cache: Path) -> Path:
    if _is_url(weights):
        return cache / "pretrained" / content_hash(weights)
    return cache / "pretrained" / weights.replace("/", "--")


def _in_the_clients_cache(weights: str) -> Path | None:
    if _is_url(weights):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _repository(weights)
    for name in HUB_FILES:
        found = try_to_load_from_cache(repository, name, revision=revision)
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
