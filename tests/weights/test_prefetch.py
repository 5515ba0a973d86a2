"""``dsmi-zoo prefetch`` and runs with downloaded weights, in processes that use a small hub on the loopback address."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hub_server import Fault, HubServer
from processes import start_command

from dsmi_zoo.data_catalog.models.entry import Preprocessing
from dsmi_zoo.pipeline.embedding.embed import embed
from dsmi_zoo.pipeline.embedding.views import open_view, view_path
from dsmi_zoo.pipeline.store.run_folder import read_results

Command = Callable[..., subprocess.CompletedProcess[str]]
MODELS = ("test_vit", "test_resnet", "test_efficientnet")


@pytest.fixture
def command(client_settings: dict[str, str], tmp_path: Path) -> Command:
    """Return a function that runs the real command, which can reach only the tests' hub."""

    def run(*arguments: object, code: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        process = start_command(*arguments, cwd=tmp_path, environment=client_settings | settings)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == code, f"exit code {process.returncode}\n{stdout}\n{stderr}"
        return subprocess.CompletedProcess([*arguments], code, stdout, stderr)

    return run


@pytest.fixture
def catalogue(hub: HubServer, published: dict[str, bytes], tmp_path: Path) -> Path:
    """Return a catalogue of three models, by timm's names, whose weights the hub has."""
    hub.repositories = {
        f"timm/{name}.r160_in1k": {"model.safetensors": published[name]} for name in MODELS
    }
    path = tmp_path / "mine.csv"
    path.write_text("model\n" + "".join(f"{name}.r160_in1k\n" for name in MODELS))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the cold cache of a test's commands."""
    return tmp_path / "cache"


def weights_in(cache: Path) -> list[str]:
    # Not a recursive search: a lock's folder may vanish meanwhile.
    return sorted(
        path.parent.name.removeprefix("timm--").partition(".")[0]
        for path in cache.glob("pretrained/timm--*/model.safetensors")
    )


def test_prefetch_says_sizes_first_downloads_once_and_verifies(
    hub: HubServer, command: Command, catalogue: Path, cache: Path, published: dict[str, bytes]
) -> None:
    lines = command("prefetch", "--catalog", catalogue, "--models", "test_vit*").stdout.splitlines()
    assert lines[0].startswith("1 file: 0 in the cache (0 B), 1 to download (")
    lines = command("prefetch", "--catalog", catalogue).stdout.splitlines()
    megabytes = sum(len(published[name]) for name in ("test_resnet", "test_efficientnet")) / 1e6
    assert lines[0].startswith("3 files: 1 in the cache (")
    assert f"2 to download ({megabytes:.1f} MB)" in lines[0]
    assert any(line.startswith("fetched and verified 2 files in ") for line in lines)
    assert lines[-1] == f"cache: {cache}"
    assert weights_in(cache) == sorted(MODELS)
    assert len(hub.downloads()) == 3


def test_prefetch_takes_the_filters_of_a_run(
    command: Command, catalogue: Path, cache: Path
) -> None:
    lines = catalogue.read_text().splitlines()
    rows = (
        f"{line},{kind}"
        for line, kind in zip(
            lines[1:], ("transformer", "convolutional", "convolutional"), strict=True
        )
    )
    catalogue.write_text("\n".join(["model,kind", *rows]) + "\n")
    command(
        "prefetch",
        "--catalog",
        catalogue,
        "--kind",
        "convolutional",
        "--limit",
        1,
        "--cache",
        cache,
    )
    assert weights_in(cache) == ["test_resnet"]


def test_prefetch_lists_failures_with_their_reasons_and_goes_on_with_the_rest(
    hub: HubServer, command: Command, catalogue: Path, cache: Path
) -> None:
    del hub.repositories["timm/test_resnet.r160_in1k"]
    hub.announced["timm/test_vit.r160_in1k"] = "0" * 64
    done = command("prefetch", "--catalog", catalogue, code=1)
    failures = done.stdout.split("2 failures; the same command tries again:\n")[1].splitlines()
    assert len(failures) == 2
    assert "timm/test_resnet.r160_in1k" in failures[0]
    assert "no such repository" in failures[0]
    assert (
        "timm/test_vit.r160_in1k: model.safetensors arrived damaged and was deleted" in failures[1]
    )
    assert weights_in(cache) == ["test_efficientnet"]
    assert "Traceback" not in done.stderr


def test_a_hub_that_is_not_there_is_said_once_not_for_every_model(
    hub: HubServer, command: Command, catalogue: Path
) -> None:
    hub.close()
    done = command("prefetch", "--catalog", catalogue, code=2)
    assert done.stderr.count("\n") == 1
    assert f"no connection to {hub.endpoint}" in done.stderr


def test_prefetch_skips_what_needs_no_download_with_a_count(
    command: Command, tmp_path: Path, published: dict[str, bytes]
) -> None:
    assert command("prefetch").stdout == "skipped 48 models to be trained\nnothing to download\n"
    (tmp_path / "w.safetensors").write_bytes(published["test_vit"])
    (tmp_path / "own.csv").write_text(
        "model,architecture,checkpoint\nmine,test_vit,w.safetensors\n"
    )
    told = command("prefetch", "--catalog", "own.csv").stdout
    assert told == "skipped 1 model with a checkpoint of their own\nnothing to download\n"


def test_a_prefetch_that_was_killed_goes_on_where_it_was(
    hub: HubServer,
    command: Command,
    client_settings: dict[str, str],
    tmp_path: Path,
    published: dict[str, bytes],
) -> None:
    content = published["resnet18"]
    hub.repositories["timm/resnet18.a1_in1k"] = {"model.safetensors": content}
    hub.pause_s = 0.1
    (tmp_path / "big.csv").write_text("model\nresnet18.a1_in1k\n")
    arguments = ("prefetch", "--catalog", "big.csv")
    process = start_command(*arguments, cwd=tmp_path, environment=client_settings)
    for _ in range(600):
        if any(part.stat().st_size > 10_000_000 for part in (tmp_path / "cache").rglob("*.part")):
            break
        time.sleep(0.1)
    process.kill()
    process.wait(timeout=30)
    hub.pause_s = 0
    command(*arguments)
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    assert path.read_bytes() == content
    resumed = hub.downloads()[-1]
    assert resumed.status == 206
    assert resumed.body_bytes < len(content) - 10_000_000
    assert hub.body_bytes() < 1.5 * len(content)


def test_a_run_embeds_with_downloaded_weights_and_a_missing_model_is_a_failed_row(
    hub: HubServer, command: Command, catalogue: Path, tmp_path: Path, published: dict[str, bytes]
) -> None:
    del hub.repositories["timm/test_efficientnet.r160_in1k"]
    hub.faults.append(Fault("HEAD", "test_resnet", status=429, retry_after=1))
    run = ("run", "--catalog", catalogue, "--out", "out", "--images-per-class", 5)
    done = command(*run, code=1)
    assert "timm/test_efficientnet.r160_in1k" in done.stdout
    rows = read_results(tmp_path / "out").set_index("model")
    failed = rows.loc["test_efficientnet.r160_in1k"]
    assert (failed["status"], failed["error_type"]) == ("failed", "FileNotFoundError")
    assert "no such repository" in failed["error_message"]
    assert len(hub.downloads()) == 2

    assert (rows["status"].drop("test_efficientnet.r160_in1k") == "ok").all()
    timms = timm.models.get_pretrained_cfg("test_resnet.r160_in1k").to_dict()
    preprocessing = Preprocessing(**{name: timms[name] for name in Preprocessing.model_fields})
    view = view_path(tmp_path / "cache", rows["subset_hash"].iloc[0], 160, preprocessing)
    model = timm.create_model("test_resnet")
    model.load_state_dict(safetensors.torch.load(published["test_resnet"]))
    wanted = embed(model.eval(), open_view(view), preprocessing, torch.device("cpu"), 64).values
    (kept,) = (tmp_path / "out" / "embeddings").glob("test_resnet*.npy")
    np.testing.assert_allclose(np.load(kept), wanted, atol=1e-6)

    served = hub.weights_requests()
    again = command("rerun", "test_vit.r160_in1k", "--out", "out", HF_HUB_OFFLINE="1")
    assert "1 model: 1 ok" in again.stdout
    assert hub.weights_requests() == served


def test_an_offline_run_says_once_what_it_lacks_and_the_command_that_fetches_it(
    hub: HubServer, command: Command, catalogue: Path, cache: Path, tmp_path: Path
) -> None:
    run = (
        "run",
        "--catalog",
        catalogue,
        "--limit",
        3,
        "--out",
        "out",
        "--images-per-class",
        5,
        "--workers",
        1,
    )
    refused = command(*run, code=2, HF_HUB_OFFLINE="1")
    wanted = f"dsmi-zoo prefetch --catalog {catalogue} --limit 3 --cache {cache}"
    assert (
        f"the weights of 3 models are not in {cache}, and HF_HUB_OFFLINE forbids downloading"
        in refused.stderr
    )
    assert f"`{wanted}`, then the same command goes on" in refused.stderr
    assert refused.stderr.count("\n") == 1
    command("prefetch", "--catalog", catalogue, "--models", "test_vit*")
    some = command(*run, code=1, HF_HUB_OFFLINE="1")
    assert some.stdout.count("the weights of 2 models are not in") == 1
    assert read_results(tmp_path / "out")["status"].tolist() == ["ok"], (
        "no row says that the others failed"
    )
    command(*wanted.split()[1:])
    assert "3 models: 3 ok" in command(*run, HF_HUB_OFFLINE="1").stdout


def test_a_run_on_a_budget_evicts_what_it_fetched_and_never_what_was_there(
    hub: HubServer,
    client_settings: dict[str, str],
    command: Command,
    catalogue: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    command("prefetch", "--catalog", catalogue, "--models", "test_vit*")
    run = (
        "run",
        "--catalog",
        catalogue,
        "--out",
        "out",
        "--images-per-class",
        5,
        "--budget-gb",
        0.002,
    )
    process = start_command(*run, cwd=tmp_path, environment=client_settings)
    seen: set[str] = set()
    gone_too_early, most = set(), 0
    for _ in range(6000):
        finished = process.poll() is not None
        here = set(weights_in(cache)) - {"test_vit"}
        rows = {
            path.name.partition("-")[0] for path in (tmp_path / "out" / "results").glob("*.parquet")
        }
        gone_too_early |= seen - here - rows
        seen |= here
        most = max(most, len(here))
        if finished:
            break
        time.sleep(0.02)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "3 waves of at most 0.002 GB of weights each" in told
    assert seen == {"test_resnet", "test_efficientnet"}
    assert (gone_too_early, most) == (set(), 1)
    assert weights_in(cache) == ["test_vit"]
    assert (read_results(tmp_path / "out")["status"] == "ok").all()
    assert len(hub.downloads()) == 3


def test_a_budget_smaller_than_a_model_is_refused_by_its_name(
    command: Command, catalogue: Path
) -> None:
    done = command("run", "--catalog", catalogue, "--out", "out", "--budget-gb", 0.0001, code=2)
    assert re.match(r"dsmi-zoo: timm/test_vit\.r160_in1k needs \d\.\d MB, more than", done.stderr)
    assert done.stderr.count("\n") == 1
