"""One attempt to transfer a file: it goes on where the last one stopped, and ends when the server hangs or drips."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .remote import RemoteFile

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
