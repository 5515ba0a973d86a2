"""Downloads from the Hugging Face hub or a URL: addresses, retries, timeouts."""

import errno
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from dsmi_zoo._util.errors import DiskFull, InputError
from dsmi_zoo._util.hashing import content_hash
from dsmi_zoo._util.paths import repository_problem, safe_component, within

log = logging.getLogger(__name__)

ATTEMPTS = 4
FIRST_PAUSE_S = 1.0  # twice as long before each further attempt
PATIENCE_S = 60.0  # for attempts that bring nothing, and the pauses between them
MOST_ASKED_S = 120.0  # of the pauses that a server asks for, all together
WORTH_BYTES = 1_000_000  # an attempt that brought so many was none in vain
POLL_S = 0.2

Answer = TypeVar("Answer")


class Unreachable(ConnectionError):
    """A server gave no answer at all, several times: others of its files need not be tried."""


class Stopped(Exception):
    """Nobody wants the file any more: the user pressed Ctrl-C."""


def patiently(
    weights: str,
    call: Callable[[], Answer],
    arrived: Callable[[], int] = lambda: 0,
    while_waiting: Callable[[], object] = lambda: None,
) -> Answer:
    """Call, and call again after a pause when the server is busy or the connection broke.

    It is given up after ``ATTEMPTS`` calls in a row, or ``PATIENCE_S`` seconds, that brought nothing; at once when the
    server asks for pauses of more than ``MOST_ASKED_S`` seconds.

    Parameters
    ----------
    arrived
        Tells the bytes of the file that are here. A transfer that goes on is left to go on, however often it breaks.
    while_waiting
        Called several times a second in a pause, so that it can raise to end it.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError, DiskFull
        In one line that names the weights and what to do.
    """
    patience = _Patience(arrived())
    while True:
        try:
            return call()
        except Exception as error:
            patience.lose(arrived(), has_dripped=isinstance(error, TimeoutError))
            if not _may_pass(error) or patience.is_lost():
                _raise_in_one_line(weights, error)
            asked_s = _asked_to_wait(error)
            if asked_s is None:
                pause_s = patience.next_pause()
            else:
                pause_s = asked_s
                _tell_pause(weights, error, pause_s, patience.asked(pause_s))
        _sleep(pause_s, while_waiting)


class _Patience:
    """How many attempts were in vain, and since when; both anew whenever one brought something."""

    def __init__(self, here: int) -> None:
        self._failed, self._since, self._asked_s, self._most = 0, time.monotonic(), 0.0, here

    def lose(self, here: int, has_dripped: bool) -> None:
        """Count an attempt after which so many bytes are here; one that dripped was in vain whatever it brought."""
        brought, took_s = here - self._most, time.monotonic() - self._since
        is_slow_but_goes_on = brought > 0 and took_s >= PATIENCE_S and not has_dripped
        if brought >= WORTH_BYTES or is_slow_but_goes_on:
            self._failed, self._since, self._most = 0, time.monotonic(), here
        elif brought < 0:  # what was wrong has been deleted
            self._most = here
        self._failed += 1

    def is_lost(self) -> bool:
        return self._failed >= ATTEMPTS or time.monotonic() - self._since >= PATIENCE_S

    def next_pause(self) -> float:
        return FIRST_PAUSE_S * 2.0 ** (self._failed - 1)

    def asked(self, pause_s: float) -> bool:
        """Take a pause that the server asks for into account; whether it may have it."""
        self._asked_s += pause_s
        self._since += pause_s
        return self._asked_s <= MOST_ASKED_S


def _tell_pause(weights: str, error: Exception, pause_s: float, granted: bool) -> None:
    busy = f"{weights}: {_server(weights)} is busy (HTTP {_status(error)}) and asks to wait {pause_s:.0f} s"
    if not granted:
        raise ConnectionError(
            f"{busy}; after that time the same command goes on from here"
        ) from None
    if pause_s > 0:
        log.warning(busy)


def _sleep(pause_s: float, while_waiting: Callable[[], object]) -> None:
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0:
        while_waiting()
        time.sleep(min(left, POLL_S))


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may fare better."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return _is_broken_connection(error) and not isinstance(error, OfflineModeIsEnabled)


def _asked_to_wait(error: Exception) -> float | None:
    """Seconds of the header Retry-After, which holds a number or a date; None without one that can be understood."""
    headers = _headers(error)
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    until = _timestamp(asked)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))  # by the server's own clock, for ours may be wrong
    return max(0.0, until - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        fields = parsedate_tz(date)
        return None if fields is None else float(mktime_tz(fields))
    except (ValueError, OverflowError, IndexError):  # a date that no calendar has
        return None


def _status(error: Exception) -> int | None:
    """The status of an answer by HTTP; None for other errors."""
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _headers(error: Exception) -> Mapping[str, str]:
    from huggingface_hub.errors import HfHubHTTPError

    return error.response.headers if isinstance(error, HfHubHTTPError) else {}


def _is_broken_connection(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    of_the_http_library = HfHubHTTPError.__bases__[0]  # whichever library the client's version uses
    return isinstance(error, (of_the_http_library, ConnectionError, TimeoutError))


def _server(weights: str) -> str:
    from huggingface_hub import constants

    return urlsplit(weights).netloc if is_url(weights) else constants.ENDPOINT


def is_url(weights: str) -> bool:
    """Whether weights are a URL rather than a repository of the hub."""
    return weights.startswith(("http://", "https://"))


def _raise_in_one_line(weights: str, error: Exception) -> NoReturn:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where, status = _server(weights), _status(error)
    if isinstance(error, GatedRepoError):
        raise PermissionError(
            f"{weights}: accept its terms on {where}, then log in (hf auth login)"
        ) from None
    if isinstance(error, RepositoryNotFoundError):
        raise FileNotFoundError(
            f"{weights}: {where} has no such repository, or it is private (hf auth login)"
        ) from None
    if isinstance(error, RevisionNotFoundError):
        raise FileNotFoundError(f"{weights}: the repository has no such revision") from None
    if status in (404, 410):
        raise FileNotFoundError(f"{weights}: {where} has no such file (HTTP {status})") from None
    if status in (401, 403):
        raise PermissionError(
            f"{weights}: {where} gives no access (HTTP {status}); check the address"
        ) from None
    if status is not None:
        later = "; try again later" if _may_pass(error) else ""
        raise ConnectionError(f"{weights}: {where} refuses (HTTP {status}){later}") from None
    if isinstance(error, UnicodeError):  # of a host's name that no server can have
        raise ConnectionError(
            f"{weights}: no server can have the name of this address, or of where it leads"
        ) from None
    if _is_broken_connection(error):
        told = " ".join(str(error).split()) or type(error).__name__
        hint = "check the network, a proxy and HF_ENDPOINT; the same command goes on from here"
        raise Unreachable(f"{weights}: no connection to {where} ({told[:120]}); {hint}") from None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(
            f"{weights}: no space left in the cache; make room or choose another --cache"
        ) from None
    raise error


FOLDER = "pretrained"  # in the cache
MOST_BYTES = 10**12  # of a file of weights
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the order in which timm looks for them
HEAD_TIMEOUT_S = 10.0
LONGEST_REVISION = 64  # characters in a folder's name


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


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every download."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_on_hub(weights: str) -> bool:
    """Whether weights are a repository of the hub rather than a URL."""
    return not is_url(weights)


def paths_in_cache(weights: str, cache: Path) -> list[Path]:
    """The files that may hold the weights, the best first, in a folder of their own.

    Raises
    ------
    InputError
        For a URL or a repository's name that is none.
    """
    folder = folder_in_cache(weights, cache)
    return [within(folder, name) for name in _file_names(weights)]


def folder_in_cache(weights: str, cache: Path) -> Path:
    """The folder of nothing but these weights.

    Raises
    ------
    InputError
        For a repository's name that is none.
    """
    name = _folder_on_hub(weights) if is_on_hub(weights) else content_hash(weights)
    return within(cache / FOLDER, name)


def _folder_on_hub(weights: str) -> str:
    name, revision = repository(weights)
    problem = repository_problem(name)
    if problem:
        raise InputError(f"{weights}: {problem}")
    folder = name.replace("/", "--")
    return folder if revision is None else f"{folder}@{_component_of_revision(revision)}"


def _component_of_revision(revision: str) -> str:
    """A readable part of a file's name, and a hash where another revision might have the same one."""
    shown = revision.replace("/", "--")
    readable = safe_component(shown, "revision")[:LONGEST_REVISION]
    return (
        readable
        if readable == shown and "--" not in revision
        else f"{readable}@{content_hash(revision)}"
    )


def _file_names(weights: str) -> tuple[str, ...]:
    return HUB_FILES if is_on_hub(weights) else (safe_component(_last_of_path(weights), "weights"),)


def _last_of_path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    except ValueError as error:
        raise InputError(f"{url}: no URL: {error}") from None


def repository(weights: str) -> tuple[str, str | None]:
    """``owner/name`` of weights on the hub, and their revision if pinned."""
    name, _, revision = weights.partition("@")
    return name, revision or None


def remote_file(weights: str, while_waiting: Callable[[], object] = lambda: None) -> RemoteFile:
    """Ask the server what it would send: name, size and checksum, by HEAD requests.

    The hub counts these requests far more generously than those of its API, which a zoo would exhaust.

    Parameters
    ----------
    while_waiting
        Called several times a second in a pause between two attempts; what it raises ends them.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        With one line that names the weights and what to do.
    """
    return patiently(weights, lambda: describe(weights), while_waiting=while_waiting)


def describe(weights: str) -> RemoteFile:
    """Like ``remote_file``, without patience: errors are the client's own."""
    refuse_offline(weights)
    described = _describe_hub(weights) if is_on_hub(weights) else _describe_url(weights)
    if described.size is not None and described.size > MOST_BYTES:
        raise FileNotFoundError(
            f"{weights}: the server tells of {described.size} bytes; no file of weights has so many"
        )
    return described


def refuse_offline(weights: str) -> None:
    """Raise FileNotFoundError, with what to do, when downloads are forbidden."""
    if is_offline():
        raise FileNotFoundError(
            f"{weights}: not in the cache, and HF_HUB_OFFLINE forbids downloading it; "
            "run `dsmi-zoo prefetch` on a node with internet"
        )


def _describe_hub(weights: str) -> RemoteFile:
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
        etag = metadata.etag or ""
        headers = build_hf_headers()
        if urlsplit(metadata.location)[:2] != urlsplit(url)[:2]:
            headers.pop("authorization", None)
        return RemoteFile(
            weights, name, metadata.location, metadata.size, _hub_checksum(etag), etag, headers
        )
    raise FileNotFoundError(f"{weights}: the repository holds none of {', '.join(HUB_FILES)}")


def _hub_checksum(etag: str) -> str:
    """The hub's ETag is a large file's SHA-256, a small one's hash in git."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return f"sha256:{etag}"
    return f"git:{etag}" if re.fullmatch("[0-9a-f]{40}", etag) else ""


def _describe_url(url: str) -> RemoteFile:
    from huggingface_hub.utils import hf_raise_for_status

    response = _head(url)
    size, version = None, ""
    if response.status_code not in (403, 405, 501):  # some stores allow GET only
        hf_raise_for_status(response)
        size = (
            int(response.headers["Content-Length"])
            if "Content-Length" in response.headers
            else None
        )
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    (name,) = _file_names(url)
    return RemoteFile(url, name, url, size, _checksum_in_name(_last_of_path(url)), version)


def _head(url: str) -> Any:
    from huggingface_hub.utils import get_session

    session = get_session()
    try:
        request = session.build_request(
            "HEAD", url, headers={"Accept-Encoding": "identity"}, timeout=HEAD_TIMEOUT_S
        )
    # The HTTP library's own, which is neither a ValueError nor an OSError.
    except Exception as error:
        raise InputError(f"{url}: no URL: {error}") from None
    return session.send(request, follow_redirects=True)


def _checksum_in_name(name: str) -> str:
    """PyTorch's convention, ``name-0123abcd.pth``; shorter ones are no hashes (``vit.h.14-300e.pth.tar``)."""
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z.]+\Z", name)
    return f"sha256:{match[1]}" if match else ""


TIMEOUT_S = 10.0  # to connect, and to wait for the next bytes
SLOWEST_BYTES_PER_S = 1000.0
WATCHED_S = 60.0  # over which the speed is averaged

Progress = Callable[[int], None]


class Mismatch(ConnectionError):
    """What came is not what the server announced: what is here must not be continued."""


def transfer(remote: RemoteFile, part: Path, progress: Progress) -> None:
    """Append to ``part`` what it lacks of the file, in pieces as they arrive.

    Parameters
    ----------
    progress
        Called with the number of bytes that are here; what it raises ends the transfer.

    Raises
    ------
    ConnectionError, TimeoutError, huggingface_hub.errors.HfHubHTTPError
        When the server refuses, sends something else than it announced, stops, or is too slow; what is here stays
        unless it is wrong. Errors of the HTTP library pass.
    """
    here = part.stat().st_size if part.exists() else 0
    with part.open("ab") as file:
        if remote.size is None or here > remote.size:
            file.truncate(0)  # without a size nobody can tell whether it is complete
            here = 0
        progress(here)
        if here == remote.size:
            return
        try:
            _append(remote, file, here, progress)
        except Mismatch:
            file.truncate(0)
            raise


def _append(remote: RemoteFile, file: IO[bytes], here: int, progress: Progress) -> None:
    from huggingface_hub.utils import get_session

    headers = dict(remote.headers) | {"Accept-Encoding": "identity"}
    if here > 0:
        headers["Range"] = f"bytes={here}-"
    answer = get_session().stream(
        "GET", remote.url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S
    )
    with answer as response:
        _check_answer(response, here, remote.size)
        if response.status_code == 200:  # from the start, whatever was asked for
            file.truncate(0)
            here = 0
        pace = _Pace()
        for piece in response.iter_bytes():
            file.write(piece)
            here += len(piece)
            if remote.size is not None and here > remote.size:
                raise Mismatch(f"more than the {remote.size} bytes came that were announced")
            progress(here)
            pace.add(len(piece))
    if remote.size is not None and here < remote.size:
        raise ConnectionError(f"{here} of {remote.size} bytes came")


def _check_answer(response: Any, here: int, size: int | None) -> None:
    """Raise unless the body is the file from its start, or from ``here`` on."""
    from huggingface_hub.errors import HfHubHTTPError

    status = response.status_code
    if status == 416:
        raise Mismatch("the server has no bytes after those that are here")
    if status not in (200, 206):
        raise HfHubHTTPError(f"HTTP {status}", response=response)
    start, total = _range_of(response)
    if status == 206 and start != here:
        raise Mismatch(f"bytes from {start} on came, not from {here} on")
    if None not in (size, total) and size != total:
        raise Mismatch(f"a file of {total} bytes came, and one of {size} bytes was announced")


def _range_of(response: Any) -> tuple[int, int | None]:
    """The first byte of the body in the file, and the size of the file if it is told."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        is_plain = "Content-Encoding" not in response.headers
        return 0, int(length) if length is not None and is_plain else None
    match = re.fullmatch(
        r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    if match is None:
        raise Mismatch("a part of the file came without a word which")
    return int(match[1]), None if match[2] == "*" else int(match[2])


class _Pace:
    """The speed of a transfer, looked at now and then."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        """Count bytes that came; raise TimeoutError when they have come too slowly for a while."""
        self._bytes += count
        seconds = time.monotonic() - self._since
        if seconds < WATCHED_S:
            return
        if self._bytes < SLOWEST_BYTES_PER_S * seconds:
            raise TimeoutError(f"only {self._bytes} bytes came in {seconds:.0f} s")
        self._since, self._bytes = time.monotonic(), 0
