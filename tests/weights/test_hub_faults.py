"""Servers that hang, send slowly, are busy or answer nonsense: bounded time, a report, and resumable downloads."""

import signal
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
from hostile_input import bounded
from hub_server import Fault, HubServer, small_weights
from hypothesis import example, given
from hypothesis import strategies as st
from processes import start_command

from dsmi_zoo.pipeline.weights import hub as downloads
from dsmi_zoo.pipeline.weights.cache import fetch_weights
from dsmi_zoo.pipeline.weights.hub import Unreachable

DSMI_ZOO = str(Path(sys.executable).with_name("dsmi-zoo"))
TIMEOUT_S = 1.0
LARGE = small_weights(bytes(20_000_000))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cold cache."""
    return tmp_path / "cache"


# The defaults, before the tests shorten them.
DEFAULTS = {
    "pause": downloads.FIRST_PAUSE_S,
    "head": downloads.HEAD_TIMEOUT_S,
    "get": downloads.TIMEOUT_S,
}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow downloads, and shorten the waits."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloads, "HEAD_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(downloads, "TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.05)


@pytest.fixture
def url(hub: HubServer) -> str:
    """Return the URL of small weights."""
    hub.files["net.pth"] = small_weights(b"any")
    return f"{hub.endpoint}/files/net.pth"


def test_the_times_of_a_hanging_server_add_up_to_less_than_a_minute() -> None:
    pauses = [DEFAULTS["pause"] * 2**attempt for attempt in range(downloads.ATTEMPTS - 1)]
    for timeout in ("head", "get"):
        assert (
            downloads.ATTEMPTS * DEFAULTS[timeout] + sum(pauses) < downloads.GIVE_UP_AFTER_S == 60
        )


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_server_that_accepts_and_never_answers_is_given_up_after_a_few_timeouts(
    method: str, hub: HubServer, url: str, cache: Path
) -> None:
    hub.faults.append(Fault(method, "net.pth", times=100, hang=True))
    started = time.monotonic()
    with pytest.raises(
        Unreachable, match=r"no connection to .*; the same command goes on from here$"
    ):
        fetch_weights(url, cache)
    assert time.monotonic() - started < downloads.ATTEMPTS * TIMEOUT_S + 0.35 + 5
    assert len(hub.asked(method, "net.pth")) == downloads.ATTEMPTS
    hub.faults.clear()
    assert fetch_weights(url, cache).read_bytes() == hub.files["net.pth"]


def test_no_further_attempt_is_made_when_those_before_have_taken_too_long(
    hub: HubServer, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "GIVE_UP_AFTER_S", TIMEOUT_S)
    hub.faults.append(Fault("HEAD", "net.pth", times=100, hang=True))
    with pytest.raises(Unreachable):
        fetch_weights(url, cache)
    assert len(hub.asked("HEAD", "net.pth")) == 1


def test_a_server_that_drips_is_given_up_and_what_came_is_kept(
    hub: HubServer, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "SPEED_WINDOW_S", 0.5)
    monkeypatch.setattr(downloads, "GIVE_UP_AFTER_S", 0.5)
    hub.files["net.pth"] = small_weights(bytes(1000))
    hub.faults.append(Fault("GET", "net.pth", drip_s=0.02))
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"\(only \d+ bytes came in [01] s\)"):
        fetch_weights(url, cache)
    assert time.monotonic() - started < 5
    assert fetch_weights(url, cache).read_bytes() == hub.files["net.pth"]
    # The resumed request is recorded first, because the slow answer is still being sent.
    assert hub.asked("GET", "net.pth")[0].range is not None


def test_a_transfer_that_goes_on_is_left_to_go_on_however_often_it_breaks(
    hub: HubServer, url: str, cache: Path
) -> None:
    hub.files["net.pth"] = LARGE
    hub.faults.append(Fault("GET", "net.pth", times=2 * downloads.ATTEMPTS, drop_after=2_000_000))
    assert fetch_weights(url, cache).read_bytes() == LARGE
    assert len(hub.downloads()) == 2 * downloads.ATTEMPTS + 1
    assert hub.body_bytes() < 1.3 * len(LARGE)


def test_a_transfer_that_always_breaks_at_its_start_is_given_up(
    hub: HubServer, url: str, cache: Path
) -> None:
    hub.files["net.pth"] = LARGE
    hub.faults.append(Fault("GET", "net.pth", times=100, drop_after=1000))
    with pytest.raises(Unreachable):
        fetch_weights(url, cache)
    assert len(hub.downloads()) == downloads.ATTEMPTS


def test_a_server_that_ignores_the_range_or_refuses_it_sends_the_file_from_its_start(
    hub: HubServer, url: str, cache: Path
) -> None:
    hub.files["net.pth"] = LARGE
    hub.faults.append(Fault("GET", "net.pth", drop_after=2_000_000))
    hub.faults.append(Fault("GET", "net.pth", ignore_range=True, drop_after=3_000_000))
    hub.faults.append(Fault("GET", "net.pth", status=416))
    assert fetch_weights(url, cache).read_bytes() == LARGE
    assert [one.status for one in hub.asked("GET", "net.pth")] == [200, 200, 416, 200]


def test_a_file_that_changes_between_two_requests_is_never_joined_from_two(
    hub: HubServer, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.append(Fault("GET", "net.pth", drop_after=4))
    other = small_weights(b"another one")

    def change(*_: object) -> None:
        hub.files["net.pth"] = other

    monkeypatch.setattr(downloads, "_sleep", change)
    assert fetch_weights(url, cache).read_bytes() == other


def test_a_wait_that_a_busy_server_asks_for_is_reported(
    hub: HubServer, url: str, cache: Path, info_log: pytest.LogCaptureFixture
) -> None:
    hub.faults.append(Fault("GET", "net.pth", status=429, retry_after=1))
    fetch_weights(url, cache)
    where = hub.endpoint.removeprefix("http://")
    assert info_log.messages == [f"{url}: {where} is busy (HTTP 429) and asks to wait 1 s"]


@pytest.mark.parametrize("asked", [900, "9" * 400])
def test_a_wait_that_is_too_long_fails_at_once_and_says_when_to_try_again(
    asked: int | str, hub: HubServer, url: str, cache: Path
) -> None:
    hub.faults.append(Fault("HEAD", "net.pth", times=9, status=503, retry_after=asked))
    started = time.monotonic()
    with pytest.raises(
        ConnectionError, match=r"is busy \(HTTP 503\) and asks to wait \w+ s; after"
    ) as caught:
        fetch_weights(url, cache)
    assert "asks to wait 900 s; " in str(caught.value) or asked != 900
    assert str(caught.value).endswith("; after that time the same command goes on from here")
    assert time.monotonic() - started < 3
    assert len(hub.asked("HEAD", "net.pth")) == 1


def test_the_waits_of_one_file_are_bounded_all_together(
    hub: HubServer, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(downloads, "_sleep", lambda pause_s, _: slept.append(pause_s))
    hub.faults.append(Fault("HEAD", "net.pth", times=9, status=503, retry_after=50))
    with pytest.raises(ConnectionError, match="asks to wait 50 s"):
        fetch_weights(url, cache)
    assert slept == [50, 50]


class Answer:
    """The part of a server's answer on which the pause depends."""

    status_code = 503

    def __init__(self, asked: str) -> None:
        self.headers = {"Retry-After": asked}


@bounded(200)
@given(st.text(max_size=40))
@example("²")
@example("-5")
@example("Wed, 21 Oct 2015 07:28:00 GMT")
def test_an_invalid_wait_is_ignored(asked: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    error = HfHubHTTPError.__new__(HfHubHTTPError)
    error.response = Answer(asked)
    wait_s = downloads._retry_after(error)
    assert wait_s is None or wait_s >= 0


def test_ctrl_c_ends_a_wait_that_a_busy_hub_asked_for(
    hub: HubServer, client_settings: dict[str, str], tmp_path: Path, published: dict[str, bytes]
) -> None:
    hub.repositories["timm/test_vit.r160_in1k"] = {"model.safetensors": published["test_vit"]}
    hub.faults.append(Fault("HEAD", "/resolve/", times=9, status=429, retry_after=100))
    (tmp_path / "mine.csv").write_text("model\ntest_vit.r160_in1k\n")
    process = start_command(
        "prefetch", "--catalog", "mine.csv", cwd=tmp_path, environment=client_settings
    )
    for _ in range(600):
        if hub.asked("HEAD", "/resolve/"):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    output = "".join(process.communicate(timeout=60))
    assert time.monotonic() - started < 10
    assert process.returncode != 0
    assert "is busy (HTTP 429) and asks to wait 100 s" in output
    assert "Traceback" not in output


def test_an_impossible_host_name_is_reported_in_one_line(cache: Path) -> None:
    with pytest.raises(ConnectionError, match="no server can have the name in this address"):
        fetch_weights(f"http://{'a' * 64}.example/net.pth", cache)
