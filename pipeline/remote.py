"""What the Hugging Face hub, or a URL's server, says of a file of weights, and in one line why it cannot be had."""

import errno
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from ..data_catalog.errors import DiskFull

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the order in which timm looks for them
ATTEMPTS = 4
LONGEST_WAIT_S = 300.0
HEAD_TIMEOUT_S = 10.0

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


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every download."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_on_hub(weights: str) -> bool:
    """Whether weights are a repository of the hub rather than a URL."""
    return not _is_url(weights)


def file_names(weights: str) -> tuple[str, ...]:
    """The files that may hold the weights, the best first."""
    return (unquote(Path(urlsplit(weights).path).name) or "weights",) if _is_url(weights) else HUB_FILES


def repository(weights: str) -> tuple[str, str | None]:
    """``owner/name`` of weights on the hub, and their revision if pinned."""
    name, _, revision = weights.partition("@")
    return name, revision or None


def remote_file(weights: str) -> RemoteFile:
    """Ask the server what it would send: name, size and checksum, by HEAD requests.

    The hub counts these requests far more generously than those of its API, which a zoo would exhaust.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        With one line that names the weights and what to do.
    """
    return patiently(weights, lambda: describe(weights))


def describe(weights: str) -> RemoteFile:
    """Like ``remote_file``, without patience: errors are the client's own."""
    refuse_offline(weights)
    return _describe_url(weights) if _is_url(weights) else _describe_hub(weights)


def patiently(weights: str, call: Callable[[], Answer]) -> Answer:
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


def refuse_offline(weights: str) -> None:
    """Raise FileNotFoundError, with what to do, when downloads are forbidden."""
    if is_offline():
        raise FileNotFoundError(
            f"{weights}: not in the cache, and HF_HUB_OFFLINE forbids to download it; "
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
    (name,) = file_names(url)
    return RemoteFile(url, name, url, size, _checksum_in_name(name), version)


def _checksum_in_name(name: str) -> str:
    """PyTorch's convention, ``name-0123abcd.pth``; shorter ones are no hashes (``vit.h.14-300e.pth.tar``)."""
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z.]+$", name)
    return f"sha256:{match[1]}" if match else ""


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
        raise DiskFull(f"{weights}: no space left in the cache; make room or choose another --cache") from None
    raise error


def _is_url(weights: str) -> bool:
    return weights.startswith(("http://", "https://"))
