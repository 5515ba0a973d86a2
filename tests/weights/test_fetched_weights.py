"""Fetched weights: other content is refused, damage is noticed, and files that cannot be loaded are named."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch
from hub_server import HubServer, small_weights
from pydantic import ValidationError

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import file_sha256, hash_problem
from dsmi_zoo._util.locks import boot_id
from dsmi_zoo._util.user_code import find_module
from dsmi_zoo.data_catalog.models.entry import SOURCES, ModelEntry, sources_problem
from dsmi_zoo.pipeline.networks.custom import build
from dsmi_zoo.pipeline.networks.timm import build_model
from dsmi_zoo.pipeline.weights.cache import (
    content_problem,
    evict_weights,
    fetch_weights,
    local_weights,
)
from dsmi_zoo.pipeline.weights.hub import Stopped


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cold cache."""
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow downloads even if the environment forbids them; the tests use only the loopback address."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that forbids downloads."""
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def damage(path: Path, at: int = -1, *, unseen: bool = False) -> None:
    """Change one byte but not the file's size nor, if ``unseen``, its modification time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    time_ns = before.st_mtime_ns + (0 if unseen else 1_000_000_000)
    os.utime(path, ns=(before.st_atime_ns, time_ns))


def saved(state: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def archived() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return file.getvalue()


def as_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=np.zeros(3))
    return file.getvalue()


STATE = {"weight": torch.zeros(3)}


@pytest.mark.parametrize(
    "content",
    [
        safetensors.torch.save(STATE),
        saved(STATE),
        saved(STATE, _use_new_zipfile_serialization=False),
        as_npz(),
        archived(),
    ],
    ids=["safetensors", "torch", "old torch", "npz", "tar"],
)
def test_every_format_that_is_loaded_passes_for_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert content_problem(tmp_path / "file") == ""


NO_WEIGHTS = {
    b"": "an empty file",
    b"\n <!DOCTYPE html><html><body>Log in</body></html>": "text ('<!DOCTYPE html><html><body>Log in</bod')",
    b"\xef\xbb\xbf<HTML>": "text ('<HTML>')",
    b'{"error": "no such file"}': """text ('{"error": "no such file"}')""",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "text ('version https://git-lfs.github.com/spec/')",
    b"Not Found": "text ('Not Found')",
}


@pytest.mark.parametrize(("content", "kind"), NO_WEIGHTS.items(), ids=range(len(NO_WEIGHTS)))
def test_a_file_that_is_not_weights_is_refused_by_its_url_and_deleted(
    content: bytes, kind: str, hub: HubServer, cache: Path
) -> None:
    hub.files["net.pth"] = content
    url = f"{hub.endpoint}/files/net.pth"
    with pytest.raises(ValueError, match="instead of weights; check the address") as caught:
        fetch_weights(url, cache)
    assert str(caught.value).startswith(f"{url}: the server sent {kind} instead")
    assert len(str(caught.value).splitlines()) == 1
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def fetched(hub: HubServer, cache: Path, content: bytes, name: str = "net.pth") -> tuple[str, Path]:
    hub.files[name] = content
    url = f"{hub.endpoint}/files/{name}"
    return url, fetch_weights(url, cache)


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def test_the_note_beside_a_file_holds_its_size_and_hash_also_where_none_is_published(
    hub: HubServer, cache: Path
) -> None:
    _, path = fetched(hub, cache, small_weights(b"any"))
    note = json.loads(note_of(path).read_text())
    assert (note["size"], note["sha256"]) == (29, file_sha256(path))


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again_with_one_warning(
    hub: HubServer, cache: Path, info_log: pytest.LogCaptureFixture
) -> None:
    content = small_weights(b"any")
    url, path = fetched(hub, cache, content)
    damage(path)
    assert local_weights(url, cache) == path  # the size is right, and a driver checks no more
    assert fetch_weights(url, cache) == path
    assert path.read_bytes() == content
    (record,) = info_log.records
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"{path} is damaged: its SHA-256 is ")
    assert record.message.endswith("; it is fetched again")
    info_log.clear()
    path.write_bytes(content[:3])
    assert local_weights(url, cache) is None
    assert fetch_weights(url, cache).read_bytes() == content
    assert info_log.messages == [
        f"{path} is damaged: it has 3 bytes, not 29 as noted; it is fetched again"
    ]


def test_offline_a_damaged_file_is_named_with_what_to_do(
    hub: HubServer, cache: Path, offline: Callable[[], None]
) -> None:
    url, path = fetched(hub, cache, small_weights(b"any"))
    damage(path)
    offline()
    with pytest.raises(FileNotFoundError, match="or delete the file") as caught:
        fetch_weights(url, cache)
    assert str(caught.value).startswith(f"{path} is damaged: its SHA-256 is ")
    assert "run `dsmi-zoo prefetch` on a node with internet" in str(caught.value)


def test_a_file_that_must_stay_stays_so_when_it_is_fetched_again(
    hub: HubServer, cache: Path
) -> None:
    url, path = fetched(hub, cache, small_weights(b"any"))
    damage(path)
    fetch_weights(url, cache, keep=False)
    assert evict_weights(url, cache) == 0


@pytest.mark.parametrize(
    "note", [{"checksum": "", "size": 29, "keep": True}, None], ids=["old note", "no note"]
)
def test_files_with_an_old_note_or_none_are_trusted(
    hub: HubServer, cache: Path, note: dict[str, object] | None
) -> None:
    url, path = fetched(hub, cache, small_weights(b"any"))
    damage(path)
    note_of(path).unlink()
    if note is not None:
        note_of(path).write_text(json.dumps(note))
    before = path.read_bytes()
    assert fetch_weights(url, cache).read_bytes() == before


@pytest.mark.parametrize("note", ['{"sha256": 5}', '{"size": "7"}', '{"sha256": [], "size": null}'])
def test_an_invalid_note_costs_a_download_and_no_more(
    hub: HubServer, cache: Path, note: str
) -> None:
    content = small_weights(b"any")
    url, path = fetched(hub, cache, content)
    note_of(path).write_text(note)
    assert fetch_weights(url, cache).read_bytes() == content
    assert json.loads(note_of(path).read_text())["sha256"] == file_sha256(path)


def an_hour_old(path: Path) -> None:
    """Set the file's times back by an hour, because a recently changed file is read every time."""
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


def test_a_file_is_read_once_a_process_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    an_hour_old(path)
    wanted = file_sha256(path)
    assert hash_problem(path, wanted) == ""
    damage(path, unseen=True)
    assert hash_problem(path, wanted) == ""
    damage(path)
    assert hash_problem(path, wanted) == ""  # read again: two changes of one byte cancel out
    damage(path)
    assert hash_problem(path, wanted).startswith(
        f"its SHA-256 is {file_sha256(path)[:12]}..., not {wanted[:12]}"
    )


def entry_of(url: str | None = None, **fields: object) -> ModelEntry:
    return ModelEntry.model_validate(
        {"model": "mine", "architecture": "test_vit", "weights": url} | fields
    )


def test_a_file_that_arrived_wrong_is_named_and_stays(hub: HubServer, cache: Path) -> None:
    url, path = fetched(hub, cache, saved({"other": torch.zeros(3)}))
    with pytest.raises(InputError, match=r"cannot be loaded: it holds none of .*'other'") as caught:
        build_model(entry_of(url), path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 400
    assert path.exists()


def test_a_wrong_argument_of_the_network_is_not_blamed_on_the_file(
    hub: HubServer, cache: Path, published: dict[str, bytes]
) -> None:
    url, path = fetched(hub, cache, published["test_vit"], "net.safetensors")
    with pytest.raises(TypeError, match="no_such"):
        build_model(entry_of(url, model_kwargs={"no_such": 1}), path)


def test_a_file_that_does_not_fit_what_a_builder_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_of_a_test.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(2, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "w.pth"
    torch.save({"bias": torch.zeros(2)}, path)
    entry = entry_of(builder="nets_of_a_test:net")
    with pytest.raises(
        InputError, match=r"cannot be loaded: .* lacks 1 of 2 tensors \('weight'\)"
    ) as caught:
        build(entry, find_module("nets_of_a_test", "it").sha256, path)
    assert str(caught.value).startswith(str(path))
    del sys.modules["nets_of_a_test"]


@pytest.mark.parametrize(
    "model_kwargs",
    [
        {"pretrained": True},
        {"pretrained_cfg": {"url": "http://127.0.0.1:9/net.pth"}},
        {"pretrained_cfg_overlay": {"hf_hub_id": "me/net"}},
        {"num_classes": 3, "checkpoint_path": "/etc/passwd", "cache_dir": "/tmp"},
    ],
    ids=lambda kwargs: " ".join(kwargs),
)
def test_arguments_that_would_make_timm_load_other_weights_are_refused(
    model_kwargs: dict[str, object],
) -> None:
    with pytest.raises(
        ValidationError, match=r"model_kwargs may not hold .*column weights or checkpoint"
    ):
        entry_of(model_kwargs=model_kwargs)
    entry = entry_of().model_copy(update={"model_kwargs": model_kwargs})  # skips validation
    with pytest.raises(
        InputError, match=r"^mine: model_kwargs may not hold .*column weights or checkpoint$"
    ) as caught:
        build_model(entry, None)
    assert all(f"'{name}'" in str(caught.value) for name in model_kwargs if name in SOURCES)


def test_arguments_that_shape_a_network_are_not_refused() -> None:
    assert sources_problem({"num_classes": 10, "img_size": 64, "global_pool": "avg"}) == ""


OFFLINE = """
import sys
asked = []
sys.addaudithook(lambda event, arguments: asked.append(event) if event.startswith("socket.") else None)
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.networks.timm import build_model
asked.clear()
for architecture, weights in (
    ("test_vit.r160_in1k", None), ("test_vit", "me/net"), ("test_vit", "http://127.0.0.1:9/net.pth"),
    ("legacy_seresnet18.in1k", None),  # which is not on the hub
):
    try:
        build_model(ModelEntry(model="mine", architecture=architecture, weights=weights), None)
    except OSError as error:
        print(type(error).__name__)
    except Exception as error:
        print(type(error), error)
print(asked)
"""


def test_offline_no_model_opens_a_socket(client_settings: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE],
        cwd=tmp_path,
        env=client_settings | {"HF_HUB_OFFLINE": "1", "TORCH_HOME": str(tmp_path / "torch")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *kinds, asked = done.stdout.splitlines()
    assert asked == "[]"
    assert kinds == [
        "LocalEntryNotFoundError",
        "LocalEntryNotFoundError",
        "Offline",
        "Offline",
    ]


def left_by_a_power_cut(
    hub: HubServer, cache: Path, content: bytes, monkeypatch
) -> tuple[str, Path]:
    """Leave a partial file of full size from before a restart, whose last blocks never reached the disk."""
    hub.files["net.pth"] = content
    url = f"{hub.endpoint}/files/net.pth"

    def stop(arrived: int) -> None:
        if arrived:
            raise Stopped

    with pytest.raises(Stopped):
        fetch_weights(url, cache, stop)
    (part,) = cache.rglob("*.part")
    part.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    monkeypatch.setattr("dsmi_zoo.pipeline.weights.cache.boot_id", lambda: "another")
    return url, part


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_partial_file_from_before_a_restart_is_not_taken_for_whole(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    content = saved(STATE, _use_new_zipfile_serialization=is_zip)
    url, _ = left_by_a_power_cut(hub, cache, content, monkeypatch)
    assert fetch_weights(url, cache).read_bytes() == content
    assert not list(cache.rglob("*.part"))


def test_a_partial_file_that_ends_in_zeros_is_fetched_again_from_its_beginning(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch, info_log: pytest.LogCaptureFixture
) -> None:
    content = saved(STATE)
    url, _ = left_by_a_power_cut(hub, cache, content, monkeypatch)
    monkeypatch.setattr("dsmi_zoo.pipeline.weights.cache.boot_id", boot_id)
    assert fetch_weights(url, cache).read_bytes() == content
    assert "arrived incomplete and was deleted: a zip archive without its end" in info_log.text


@pytest.mark.parametrize("content", [safetensors.torch.save(STATE)[:-4], saved(STATE)[:-4]])
def test_weights_that_are_cut_off_are_refused_though_no_size_was_announced(
    content: bytes, hub: HubServer, cache: Path
) -> None:
    hub.files["net.pth"] = content
    with pytest.raises(
        ValueError, match=r"net\.pth arrived incomplete and was deleted: .*; fetch it again"
    ):
        fetch_weights(f"{hub.endpoint}/files/net.pth", cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
