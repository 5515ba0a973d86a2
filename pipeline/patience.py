"""How often and how long a server is asked again, and what is said in one line when it is given up."""

import errno
import logging
import time
from collections.abc import Callable, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from ..data_catalog.errors import DiskFull

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
