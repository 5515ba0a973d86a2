"""What the Hugging Face hub, or a URL's server, says of a file of weights, and where the file stands in the cache."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..data_catalog.errors import InputError
from ..data_catalog.paths import repository_problem, safe_component, within
from .config import content_hash
from .patience import is_url, patiently

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
