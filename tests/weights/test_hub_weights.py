"""Published weights, fetched by the real Hugging Face client from a small hub on the loopback address."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Fault, HubServer, small_weights
from processes import start_script

from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.weights.cache import remote_weights

Script = Callable[..., str]
VIT = "timm/test_vit.r160_in1k"
FETCH = """
import sys
from pathlib import Path
from dsmi_zoo.pipeline.weights.cache import fetch_weights
try:
    print(fetch_weights(sys.argv[1], Path(sys.argv[2])))
except (OSError, ValueError) as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def script(client_settings: dict[str, str], tmp_path: Path) -> Script:
    """Return a function that runs a script in a process that reads HF_ENDPOINT as a worker, and returns its output."""

    def run(code: str, *arguments: object, **settings: str) -> str:
        if not settings:
            process = start_script(code, *arguments, environment=client_settings)
            stdout, stderr = process.communicate(timeout=120)
            assert process.returncode == 0, stderr
            return stdout.strip()
        # The client reads its settings when it is imported.
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
            env=client_settings | settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cold cache."""
    return tmp_path / "cache"


def notes(cache: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(cache.rglob("*.json"))]


def test_weights_arrive_whole_and_once_and_the_token_stays_with_the_hub(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    hub.repositories[VIT] = {
        "model.safetensors": published["test_vit"],
        "pytorch_model.bin": b"not wanted",
    }
    path = Path(script(FETCH, VIT, cache))
    assert path.read_bytes() == published["test_vit"]
    assert path.name == "model.safetensors"
    assert script(FETCH, VIT, cache) == str(path)
    assert len(hub.downloads()) == 1
    (note,) = notes(cache)
    assert note["sha256"] == hashlib.sha256(published["test_vit"]).hexdigest()
    tokens = (
        {one.token for one in hub.served if "/resolve/" in one.path},
        {one.token for one in hub.downloads()},
    )
    assert tokens == ({"Bearer mine"}, {None})
    assert sorted(p.name for p in cache.rglob("*") if p.is_file()) == [
        "model.safetensors",
        "model.safetensors.json",
    ]


def test_a_pinned_revision_and_an_older_format_are_fetched_too(
    hub: HubServer, script: Script, cache: Path
) -> None:
    new, old = small_weights(b"new"), small_weights(b"old")
    hub.repositories = {
        "me/net": {"pytorch_model.bin": new},
        "me/net@v1": {"pytorch_model.bin": old},
    }
    assert Path(script(FETCH, "me/net@v1", cache)).read_bytes() == old
    assert Path(script(FETCH, "me/net", cache)).read_bytes() == new
    assert (
        script(FETCH, "me/net@v2", cache)
        == "FileNotFoundError: me/net@v2: the repository has no such revision"
    )


def test_a_file_that_the_hub_lacks_is_reported_in_one_line(
    hub: HubServer, script: Script, cache: Path
) -> None:
    hub.repositories["me/empty"] = {"README.md": b""}
    told = script(FETCH, "me/nothing", cache)
    assert told.startswith(
        f"FileNotFoundError: me/nothing: {hub.endpoint} has no such repository, or it is private"
    )
    told = script(FETCH, "me/empty", cache)
    assert (
        told
        == "FileNotFoundError: me/empty: the repository holds none of model.safetensors, pytorch_model.bin"
    )
    told = script(FETCH, f"{hub.endpoint}/files/gone.pth", cache)
    assert told.startswith(f"FileNotFoundError: {hub.endpoint}/files/gone.pth: ")
    assert "no such file (HTTP 404)" in told
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_a_connection_that_breaks_half_way_is_resumed_where_it_broke(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    content = published["resnet18"]
    hub.repositories["timm/resnet18.a1_in1k"] = {"model.safetensors": content}
    hub.faults.append(Fault("GET", "/blobs/", drop_after=len(content) // 2))
    assert Path(script(FETCH, "timm/resnet18.a1_in1k", cache)).read_bytes() == content
    first, second = hub.downloads()
    assert (first.status, second.status) == (200, 206)
    assert first.range is None
    assert len(content) <= hub.body_bytes() < 1.3 * len(content)


def test_damaged_weights_are_deleted_and_named(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    hub.repositories[VIT] = {"model.safetensors": published["test_vit"]}
    hub.announced[VIT] = "0" * 64
    told = script(FETCH, VIT, cache)
    assert told.startswith(
        f"ValueError: {VIT}: model.safetensors arrived damaged and was deleted: the checksum is "
    )
    assert [p for p in cache.rglob("*") if p.is_file()] == []
    hub.announced.clear()
    assert Path(script(FETCH, VIT, cache)).read_bytes() == published["test_vit"]


@pytest.mark.parametrize("request_kind", [("HEAD", "/resolve/"), ("GET", "/blobs/")])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again_after_the_pause_that_it_wants(
    hub: HubServer,
    script: Script,
    cache: Path,
    published: dict[str, bytes],
    request_kind: tuple[str, str],
    status: int,
) -> None:
    hub.repositories[VIT] = {"model.safetensors": published["test_vit"]}
    hub.faults.append(Fault(*request_kind, status=status, retry_after=2))
    assert Path(script(FETCH, VIT, cache)).read_bytes() == published["test_vit"]
    first, second = hub.asked(*request_kind)
    assert first.status == status
    assert second.time - first.time >= 1.9


def test_a_hub_that_stays_busy_is_given_up_after_a_bounded_number_of_requests(
    hub: HubServer, script: Script, cache: Path
) -> None:
    hub.repositories["me/net"] = {"model.safetensors": b"x"}
    hub.faults.append(Fault("HEAD", "/resolve/", times=1000, status=503, retry_after=0))
    assert "refuses (HTTP 503); try again later" in script(FETCH, "me/net", cache)
    assert hub.weights_requests() == 4


def test_offline_a_warm_cache_serves_and_a_cold_one_says_what_to_do(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    hub.repositories[VIT] = {"model.safetensors": published["test_vit"]}
    told = script(FETCH, VIT, cache, HF_HUB_OFFLINE="1")
    assert told == (
        f"Offline: {VIT}: not in the cache, and HF_HUB_OFFLINE forbids downloading it; "
        "run `dsmi-zoo prefetch` on a node with internet"
    )
    url = f"{hub.endpoint}/files/net-0123abcd.pth"
    assert "run `dsmi-zoo prefetch`" in script(FETCH, url, cache, HF_HUB_OFFLINE="1")
    assert hub.weights_requests() == 0
    path = script(FETCH, VIT, cache)
    before = hub.weights_requests()
    assert script(FETCH, VIT, cache, HF_HUB_OFFLINE="1") == path
    assert hub.weights_requests() == before


def test_what_the_hubs_own_client_downloaded_before_is_not_downloaded_again(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    hub.repositories[VIT] = {"model.safetensors": published["test_vit"]}
    client = "import sys, huggingface_hub; print(huggingface_hub.hf_hub_download(sys.argv[1], 'model.safetensors'))"
    path = script(client, VIT)
    assert script(FETCH, VIT, cache) == path
    assert len(hub.downloads()) == 1


def test_a_damaged_file_of_the_hubs_own_client_is_not_used(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    hub.repositories[VIT] = {"model.safetensors": published["test_vit"]}
    client = "import sys, huggingface_hub; print(huggingface_hub.hf_hub_download(sys.argv[1], 'model.safetensors'))"
    theirs = Path(script(client, VIT))
    theirs.write_bytes(published["test_vit"][:-1] + b"?")
    ours = Path(script(FETCH, VIT, cache))
    assert cache in ours.parents
    assert ours.read_bytes() == published["test_vit"]


def test_processes_that_want_the_same_file_at_once_download_it_once(
    hub: HubServer, client_settings: dict[str, str], cache: Path, published: dict[str, bytes]
) -> None:
    content = published["resnet18"]
    hub.repositories["me/net"] = {"model.safetensors": content}
    hub.pause_s = 0.02
    command = [sys.executable, "-c", FETCH, "me/net", str(cache)]
    processes = [
        subprocess.Popen(command, env=client_settings, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == content
    assert hub.body_bytes() == len(content)


def test_a_url_is_fetched_resumed_and_checked_against_the_hash_in_its_name(
    hub: HubServer, script: Script, cache: Path, published: dict[str, bytes]
) -> None:
    content, without_hash = published["resnet18"], small_weights(b"no hash in this name")
    good, bad = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth", "net-0123abcd.pth"
    hub.files = {good: content, bad: small_weights(b"other"), "ijepa-300e.pth.tar": without_hash}
    hub.faults.append(Fault("GET", good, drop_after=len(content) // 2))
    path = Path(script(FETCH, f"{hub.endpoint}/files/{good}", cache))
    assert path.read_bytes() == content
    assert path.name == good
    assert hub.body_bytes() < 1.3 * len(content)
    assert "net-0123abcd.pth arrived damaged" in script(FETCH, f"{hub.endpoint}/files/{bad}", cache)
    assert (
        Path(script(FETCH, f"{hub.endpoint}/files/ijepa-300e.pth.tar", cache)).read_bytes()
        == without_hash
    )


def test_a_url_whose_server_allows_no_head_request_is_fetched_all_the_same(
    hub: HubServer, script: Script, cache: Path
) -> None:
    hub.files["net.pth"] = small_weights(b"some")
    hub.faults.append(Fault("HEAD", "net.pth", status=405))
    assert (
        Path(script(FETCH, f"{hub.endpoint}/files/net.pth", cache)).read_bytes()
        == hub.files["net.pth"]
    )


BUILD_BOTH_WAYS = """
import json, sys
from pathlib import Path
import timm, torch
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.weights.cache import fetch_weights
from dsmi_zoo.pipeline.networks.timm import build_model, with_timm_defaults
name, kwargs = sys.argv[1], json.loads(sys.argv[2])
(entry,) = with_timm_defaults([ModelEntry(model=name, architecture=name, model_kwargs=kwargs)])
ours = build_model(entry, fetch_weights(entry.weights, Path(sys.argv[3])))
timms = timm.create_model(name, pretrained=True, **kwargs).eval()
states = [model.state_dict() for model in (ours, timms)]
assert list(states[0]) == list(states[1])
assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
image = torch.rand(1, 3, *([kwargs["img_size"]] * 2 if "img_size" in kwargs else [160, 160]))
assert torch.equal(ours(image), timms(image))
print("equal", len(states[0]))
"""


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("test_vit.r160_in1k", {}),
        ("test_vit.r160_in1k", {"img_size": 96, "num_classes": 0}),
        ("test_resnet.r160_in1k", {"in_chans": 3, "num_classes": 0}),
        ("test_efficientnet.r160_in1k", {}),
    ],
    ids=str,
)
def test_a_model_from_the_fetched_file_equals_the_one_that_timm_loads_itself(
    hub: HubServer,
    script: Script,
    cache: Path,
    published: dict[str, bytes],
    name: str,
    kwargs: dict[str, Any],
) -> None:
    hub.repositories[f"timm/{name}"] = {"model.safetensors": published[name.partition(".")[0]]}
    assert script(BUILD_BOTH_WAYS, name, json.dumps(kwargs), cache).startswith("equal ")


def test_weights_that_carry_code_are_refused(
    hub: HubServer, script: Script, cache: Path, tmp_path: Path
) -> None:
    torch.save({"state_dict": hashlib.sha256}, tmp_path / "w.bin")
    hub.repositories[VIT] = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    build = BUILD_BOTH_WAYS.replace("ours = ", "try:\n    ").split("timms =")[0]
    told = script(
        build + "except ValueError as error:\n    print(error)",
        VIT.partition("/")[2],
        "{}",
        cache,
    )
    assert "holds an object of _hashlib.openssl_sha256" in told


def test_an_entry_with_weights_of_its_own_downloads_nothing(tmp_path: Path) -> None:
    entry = ModelEntry(model="a", architecture="test_vit", weights="me/net")
    assert remote_weights(entry) == "me/net"
    assert (
        remote_weights(entry.model_copy(update={"checkpoint": tmp_path / "w.safetensors"})) is None
    )


EVICT = """
import sys
from pathlib import Path
from dsmi_zoo.pipeline.weights.cache import evict_weights, fetch_weights
cache, kept, borrowed = Path(sys.argv[1]), "me/kept", "me/borrowed"
if sys.argv[2:] == ["fetch"]:
    fetch_weights(kept, cache, keep=False)
    fetch_weights(kept, cache)  # now it must stay
    fetch_weights(kept, cache, keep=False)
    fetch_weights(borrowed, cache, keep=False)
print(evict_weights(kept, cache), evict_weights(borrowed, cache), evict_weights("me/users", cache))
"""


def test_only_what_a_run_fetched_itself_and_can_fetch_again_is_evicted(
    hub: HubServer, script: Script, cache: Path
) -> None:
    file = small_weights(b"12345")
    hub.repositories = {
        name: {"model.safetensors": file} for name in ("me/kept", "me/borrowed", "me/users")
    }
    users = cache / "pretrained" / "me--users" / "model.safetensors"
    users.parent.mkdir(parents=True)
    users.write_bytes(b"put there by hand")
    fetch = EVICT.replace("print(evict", "None and print(evict")
    script(fetch, cache, "fetch")
    assert script(EVICT, cache, HF_HUB_OFFLINE="1") == "0 0 0"
    assert script(EVICT, cache) == f"0 {len(file)} 0"
    left = sorted(path.parent.name for path in cache.rglob("model.safetensors"))
    assert left == ["me--kept", "me--users"]


def test_a_cached_file_of_the_wrong_size_is_fetched_again(
    hub: HubServer, script: Script, cache: Path
) -> None:
    content = small_weights(b"12345")
    hub.repositories["me/net"] = {"model.safetensors": content}
    path = Path(script(FETCH, "me/net", cache))
    path.write_bytes(b"123")
    assert script(FETCH, "me/net", cache) == str(path)
    assert path.read_bytes() == content
