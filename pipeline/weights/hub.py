"""Downloads from the Hugging Face hub or a URL: addresses, resumed transfers, retries.

The hub client finds, authorises and describes files; the bytes are read here, because its ``hf_hub_download`` (2.4)
starts an interrupted file again from zero, sleeps as long as a server asks, never gives up on a server that sends a
byte now and then, compares sizes only, and trusts ``flock``.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from dsmi_zoo._util.errors import DiskFull, InputError
from dsmi_zoo._util.files import NO_SPACE, content_hash
from dsmi_zoo._util.paths import repository_problem, safe_component, within

log = logging.getLogger(__name__)

FOLDER = "pretrained"  # in the cache
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the order in which timm looks for them
MAX_REVISION_LENGTH = 64  # characters in a folder's name

HEAD_TIMEOUT_S = 10.0
TIMEOUT_S = 10.0  # to connect, and to wait for the next bytes
SLOWEST_BYTES_PER_S = 1000.0
SPEED_WINDOW_S = 60.0  # over which the speed is averaged

ATTEMPTS = 4  # attempts in a row without progress
FIRST_PAUSE_S = 1.0  # doubled before each further attempt
GIVE_UP_AFTER_S = 60.0  # without progress
PROGRESS_BYTES = 100_000  # fewest new bytes of an attempt that count as progress
MAX_RETRY_AFTER_S = 120.0  # sum of all pauses that a server asks for
POLL_S = 0.2

Answer = TypeVar("Answer")
Progress = Callable[[int], None]


RESUMES = "the same command goes on from here"


class Unreachable(ConnectionError):
    """Raised when a server repeatedly does not answer at all, so its other files need not be tried."""


class Unavailable(ConnectionError):
    """Raised when a server answers, but cannot send the file now."""


class Offline(FileNotFoundError):
    """Raised when HF_HUB_OFFLINE forbids a download."""


NOT_REACHED = frozenset(error.__name__ for error in (Unreachable, Unavailable, Offline))
"""Values of ``error_type`` in rows whose weights could not be reached: the next run retries them automatically."""


class Stopped(Exception):
    """Raised when the user has cancelled the download with Ctrl-C."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of weights as its server describes it before the download.

    Attributes
    ----------
    size : int or None
        Bytes; None when the server does not say.
    sha256 : str
        All or the first digits of the published SHA-256; empty when none is published.
    version
        Text that changes with the content, so that a resumed transfer never joins two versions.
    headers
        Headers of the request; the user's token goes to the hub only.
    """

    weights: str
    name: str
    url: str
    size: int | None
    sha256: str
    version: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids every download."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_on_hub(weights: str) -> bool:
    """Return whether weights are a repository of the hub rather than a URL."""
    return not weights.startswith(("http://", "https://"))


def repository(weights: str) -> tuple[str, str | None]:
    """Split weights on the hub into ``owner/name`` and the pinned revision, if any."""
    name, _, revision = weights.partition("@")
    return name, revision or None


def folder_in_cache(weights: str, cache: Path) -> Path:
    """Return the cache folder for these weights alone.

    Raises
    ------
    InputError
        For an invalid repository name.
    """
    if not is_on_hub(weights):
        return within(cache / FOLDER, content_hash(weights))
    name, revision = repository(weights)
    problem = repository_problem(name)
    if problem:
        raise InputError(f"{weights}: {problem}")
    folder = name.replace("/", "--")
    if revision is not None:
        shown = revision.replace("/", "--")
        readable = safe_component(shown, "revision")[:MAX_REVISION_LENGTH]
        is_unique = readable == shown and "--" not in revision
        folder += f"@{readable}" if is_unique else f"@{readable}@{content_hash(revision)}"
    return within(cache / FOLDER, folder)


def paths_in_cache(weights: str, cache: Path) -> list[Path]:
    """Return the files that may hold the weights, the preferred one first.

    Raises
    ------
    InputError
        For an invalid URL or repository name.
    """
    folder = folder_in_cache(weights, cache)
    names = HUB_FILES if is_on_hub(weights) else (_name_of_url(weights),)
    return [within(folder, name) for name in names]


def _name_of_url(url: str) -> str:
    return safe_component(_last_of_path(url), "weights")


def _last_of_path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    except ValueError as error:
        raise InputError(f"{url}: not a URL: {error}") from None


def remote_file(weights: str, while_waiting: Callable[[], object] = lambda: None) -> RemoteFile:
    """Ask the server for the name, size and checksum of a file, by HEAD requests.

    The hub limits these far less than requests to its API, which a zoo would exhaust.

    Parameters
    ----------
    while_waiting
        Called several times a second between two attempts; an exception that it raises ends them.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        With one line that names the weights and what to do.
    """
    return with_retries(weights, lambda: describe(weights), while_waiting=while_waiting)


def describe(weights: str) -> RemoteFile:
    """Return the answer of ``remote_file`` in one attempt, which raises the client's own errors."""
    refuse_offline(weights)
    return _describe_on_hub(weights) if is_on_hub(weights) else _describe_url(weights)


def refuse_offline(weights: str) -> None:
    """Raise FileNotFoundError, with what to do, if downloads are forbidden."""
    if is_offline():
        raise Offline(
            f"{weights}: not in the cache, and HF_HUB_OFFLINE forbids downloading it; "
            "run `dsmi-zoo prefetch` on a node with internet"
        )


def _describe_on_hub(weights: str) -> RemoteFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    owner_and_name, revision = repository(weights)
    for name in HUB_FILES:
        url = hf_hub_url(owner_and_name, name, revision=revision)
        try:
            metadata = get_hf_file_metadata(url, timeout=HEAD_TIMEOUT_S)
        except EntryNotFoundError:
            continue
        etag = metadata.etag or ""  # for a large file, its SHA-256
        sha256 = etag if re.fullmatch("[0-9a-f]{64}", etag) else ""
        headers = build_hf_headers()
        if urlsplit(metadata.location)[:2] != urlsplit(url)[:2]:
            headers.pop("authorization", None)
        return RemoteFile(weights, name, metadata.location, metadata.size, sha256, etag, headers)
    raise FileNotFoundError(f"{weights}: the repository holds none of {', '.join(HUB_FILES)}")


def _describe_url(url: str) -> RemoteFile:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    response = get_session().head(
        url,
        headers={"Accept-Encoding": "identity"},
        follow_redirects=True,
        timeout=HEAD_TIMEOUT_S,
    )
    size, version = None, ""
    if response.status_code not in (403, 405, 501):  # some stores allow GET only
        hf_raise_for_status(response)
        length = response.headers.get("Content-Length")
        size = None if length is None else int(length)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    # PyTorch's convention, ``name-0123abcd.pth``; shorter ones are not hashes (``vit.h.14-300e.pth.tar``).
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z.]+\Z", _last_of_path(url))
    sha256 = match[1] if match else ""
    return RemoteFile(url, _name_of_url(url), url, size, sha256, version)


def download_rest(remote: RemoteFile, part: Path, progress: Progress) -> None:
    """Append to ``part`` the bytes of the file that it lacks.

    Parameters
    ----------
    progress
        Called with the number of bytes that have arrived; an exception that it raises ends the transfer.

    Raises
    ------
    ConnectionError, TimeoutError, huggingface_hub.errors.HfHubHTTPError
        When the server refuses, sends something other than announced, stops, or is too slow. The bytes that arrived
        are kept unless they are wrong. Errors of the HTTP library are not caught.
    """
    from huggingface_hub.utils import get_session

    here = part.stat().st_size if part.exists() else 0
    with part.open("ab") as file:
        if remote.size is None or here > remote.size:
            here = 0  # completeness can be judged only against a size
            file.truncate(0)
        progress(here)
        if here == remote.size:
            return
        headers = dict(remote.headers) | {"Accept-Encoding": "identity"}
        if here > 0:
            headers["Range"] = f"bytes={here}-"
        request = get_session().stream(
            "GET", remote.url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S
        )
        with request as response:
            start = _first_byte(response)
            if start not in (0, here):
                file.truncate(0)
                raise ConnectionError("the server did not continue the file where it broke off")
            here = start
            file.truncate(here)
            window_began, window_bytes = time.monotonic(), 0
            for piece in response.iter_bytes():
                file.write(piece)
                here += len(piece)
                if remote.size is not None and here > remote.size:
                    file.truncate(0)
                    raise ConnectionError(f"more than the announced {remote.size} bytes came")
                progress(here)
                window_bytes += len(piece)
                seconds = time.monotonic() - window_began
                if seconds >= SPEED_WINDOW_S:
                    if window_bytes < SLOWEST_BYTES_PER_S * seconds:
                        raise TimeoutError(f"only {window_bytes} bytes came in {seconds:.0f} s")
                    window_began, window_bytes = time.monotonic(), 0
    if remote.size is not None and here < remote.size:
        raise ConnectionError(f"{here} of {remote.size} bytes came")


def _first_byte(response: Any) -> int | None:
    """Return the byte of the file at which a response's body begins; None if the body is not a part of the file."""
    from huggingface_hub.errors import HfHubHTTPError

    if response.status_code == 200:
        return 0
    if response.status_code == 206:
        match = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
        return int(match[1]) if match else None
    if response.status_code == 416:  # the server has no bytes beyond those already here
        return None
    raise HfHubHTTPError(f"HTTP {response.status_code}", response=response)


def with_retries(
    weights: str,
    attempt: Callable[[], Answer],
    arrived: Callable[[], int] = lambda: 0,
    while_waiting: Callable[[], object] = lambda: None,
) -> Answer:
    """Call ``attempt``, and again after a pause while the server is busy or the connection breaks.

    Give up after ``ATTEMPTS`` attempts in a row or ``GIVE_UP_AFTER_S`` seconds without progress, and at once when the
    server asks for pauses of more than ``MAX_RETRY_AFTER_S`` seconds. A transfer that makes progress is continued
    however often it breaks.

    Parameters
    ----------
    arrived
        Function that returns the number of bytes of the file that have arrived.
    while_waiting
        Called several times a second in a pause; an exception that it raises ends the pause.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError, DiskFull
        With one line that names the weights and what to do.
    """
    failures, asked_s = 0, 0.0
    here, since = arrived(), time.monotonic()
    while True:
        try:
            return attempt()
        except Exception as error:
            before, here = here, arrived()
            if here - before >= PROGRESS_BYTES and not isinstance(error, TimeoutError):
                failures, since = 0, time.monotonic()
            failures += 1
            waited_too_long = time.monotonic() - since >= GIVE_UP_AFTER_S
            if failures >= ATTEMPTS or waited_too_long or not _is_transient(error):
                raise _explained(weights, error) from None
            pause_s = _retry_after(error)
            if pause_s is None:
                pause_s = FIRST_PAUSE_S * 2.0 ** (failures - 1)
            else:
                asked_s += pause_s
                since += pause_s
                busy = f"{weights}: {_server(weights)} is busy (HTTP {_status(error)}) and asks to wait {pause_s:.0f} s"
                if asked_s > MAX_RETRY_AFTER_S:
                    raise Unavailable(f"{busy}; after that time {RESUMES}") from None
                if pause_s > 0:
                    log.warning(busy)
        _sleep(pause_s, while_waiting)


def _sleep(pause_s: float, while_waiting: Callable[[], object]) -> None:
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0:
        while_waiting()
        time.sleep(min(left, POLL_S))


def _is_transient(error: Exception) -> bool:
    """Return whether another attempt may succeed."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return _is_broken_connection(error) and not isinstance(error, OfflineModeIsEnabled)


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of the header Retry-After; None without one, or with a date."""
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isascii() and asked.isdigit() else None


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error response; None for other errors."""
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _is_broken_connection(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    http_library_error = HfHubHTTPError.__bases__[0]  # of the library that this client uses
    return isinstance(error, (http_library_error, ConnectionError, TimeoutError))


def _server(weights: str) -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT if is_on_hub(weights) else urlsplit(weights).netloc


def _explained(weights: str, error: Exception) -> Exception:
    """Return the error with one line that names the weights and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    kind: type[Exception] = ConnectionError
    where, status = _server(weights), _status(error)
    if isinstance(error, GatedRepoError):
        kind, reason = PermissionError, f"accept its terms on {where}, then log in (hf auth login)"
    elif isinstance(error, RepositoryNotFoundError):
        kind = FileNotFoundError
        reason = f"{where} has no such repository, or it is private (hf auth login)"
    elif isinstance(error, RevisionNotFoundError):
        kind, reason = FileNotFoundError, "the repository has no such revision"
    elif status in (404, 410):
        kind, reason = FileNotFoundError, f"{where} has no such file (HTTP {status})"
    elif status in (401, 403):
        kind, reason = PermissionError, f"{where} denies access (HTTP {status}); check the address"
    elif status is not None:
        reason = f"{where} refuses (HTTP {status})"
        if _is_transient(error):
            kind, reason = Unavailable, f"{reason}; try again later: {RESUMES}"
    elif isinstance(error, UnicodeError) or type(error).__name__ == "InvalidURL":
        reason = "no server can have the name in this address, or in one that it redirects to"
    elif _is_broken_connection(error):
        kind = Unreachable
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        hint = f"check the network, a proxy and HF_ENDPOINT; {RESUMES}"
        reason = f"no connection to {where} ({cause}); {hint}"
    elif isinstance(error, OSError) and error.errno in NO_SPACE:
        kind, reason = DiskFull, "no space left in the cache; make room or choose another --cache"
    else:
        return error
    return kind(f"{weights}: {reason}")
