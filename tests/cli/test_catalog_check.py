"""`catalog check`, `list` and `show`, and an embedding from every timm module in the tables."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
import timm
import torch
from conftest import Command
from processes import forked, start_command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import load_models
from dsmi_zoo.data_catalog.models.timm_registry import pretrained_models, timm_config
from dsmi_zoo.pipeline.engine.attempts import call_in_child
from dsmi_zoo.pipeline.networks.timm import build_model, embedding_shape, with_timm_defaults

pytestmark = pytest.mark.long


def smallest_of_every_module() -> list[ModelEntry]:
    """Return the model with the fewest parameters of each timm module in the tables, at each listed size."""
    entries = [*load_models("imagenet-2023"), *load_models("imagenet-2025")]
    chosen: dict[str, str] = {}
    for entry in sorted(entries, key=lambda e: (e.params_m or 0, e.model), reverse=True):
        assert entry.family is not None
        chosen[entry.family] = entry.model
    names = set(chosen.values())
    return list({str(e): e for e in entries if e.model in names}.values())


@pytest.mark.slow
def test_the_smallest_model_of_every_module_passes_the_real_check(cli: Command) -> None:
    entries = smallest_of_every_module()
    assert len({e.family for e in entries}) == 84
    names = sorted({e.model for e in entries})
    done = cli("catalog", "check", "--catalog", "imagenet-2025", "--models", *names)
    last = done.stdout.splitlines()[-1]
    assert (
        last
        == f"{len(entries)} of {len(entries)} entries with an embedding of the declared width; 0 failed"
    )


def test_check_says_which_entries_fail_and_why_and_exits_with_1(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "mine.csv").write_text(
        "model,architecture,img_size,model_kwargs\n"
        "good,test_resnet.r160_in1k,64,\n"
        "nameless,no_such_network,64,\n"
        'odd,test_resnet.r160_in1k,64,"{""colour"": 1}"\n'
        "fixed,efficientformer_l1.snap_dist_in1k,256,\n"
    )
    done = cli("catalog", "check", "--catalog", "mine.csv", "--workers", 1, cwd=tmp_path, code=1)
    lines = done.stdout.splitlines()
    assert lines[-1] == "1 of 4 entries with an embedding of the declared width; 3 failed"
    failures = dict(line.split(": ", 1) for line in lines[-4:-1])
    assert list(failures) == ["fixed@256", "nameless@64", "odd@64"]
    assert "made for 224 pixels, it does not take 256" in failures["fixed@256"]
    assert "no architecture 'no_such_network'" in failures["nameless@64"]
    assert "colour" in failures["odd@64"]


def test_the_workers_of_a_check_that_is_killed_end_with_it(server: None) -> None:
    others = forked()
    driver = start_command("catalog", "check", "--catalog", "imagenet-2023", "--workers", 1)
    deadline = time.monotonic() + 60
    while not driver.stdout():  # until the first model is checked, so a worker runs
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = forked() - others - {psutil.Process(driver.pid)}
    driver.kill()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert gone
    assert not alive


def test_an_attention_network_is_built_for_the_size_of_its_entry() -> None:
    entry = ModelEntry(
        model="a", architecture="vit_tiny_patch16_224.augreg_in21k_ft_in1k", img_size=96
    )
    assert embedding_shape(entry) == ((1, 192), 192)
    named = entry.model_copy(update={"img_size": None, "model_kwargs": {"img_size": 96}})
    assert embedding_shape(named) == ((1, 192), 192)


def test_a_convolutional_network_takes_any_size_as_it_is() -> None:
    for size in (96, 224, 288):
        assert (
            embedding_shape(
                ModelEntry(model="a", architecture="test_convnext.r160_in1k", img_size=size)
            )[0][0]
            == 1
        )


def test_a_network_of_one_size_only_is_refused_at_another() -> None:
    with pytest.raises(InputError, match="made for 224 pixels, it does not take 256"):
        embedding_shape(
            ModelEntry(model="a", architecture="efficientformer_l1.snap_dist_in1k", img_size=256)
        )


def shape_and_peak_memory(model: str) -> tuple[object, int]:
    (entry,) = load_models("imagenet-2023", [model])
    return embedding_shape(entry), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_model_of_four_gigabytes_is_checked_without_its_memory(server: None) -> None:
    found, peak = call_in_child(shape_and_peak_memory, "eva_giant_patch14_336.clip_ft_in1k")
    assert found == ((1, 1408), 1408)
    assert peak * (1 if sys.platform == "darwin" else 1024) < 2 * 2**30


def test_published_parameters_are_those_of_the_network_that_timm_builds() -> None:
    for entry in smallest_of_every_module()[::4]:
        with torch.device("meta"):
            model = timm.create_model(entry.architecture)
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert count == pytest.approx(entry.params_m, abs=0.011), entry.model


def test_preprocessing_is_timms_but_for_published_crop_and_interpolation() -> None:
    for entry in smallest_of_every_module():
        config = timm_config(entry.architecture)
        assert entry.preprocessing is not None
        assert entry.preprocessing.mean == tuple(config.mean)
        assert entry.preprocessing.std == tuple(config.std)
        assert entry.preprocessing.crop_mode == config.crop_mode
        assert entry.img_size in (config.input_size[-1], (config.test_input_size or (0,))[-1])
        assert entry.preprocessing.crop_pct in (round(config.crop_pct, 3), config.test_crop_pct)


def test_timms_registry_is_a_catalogue_with_backbones_that_have_no_classifier() -> None:
    entries = {e.model: e for e in pretrained_models()}
    assert len(entries) > 1500
    assert {e.kind for e in entries.values()} == {"convolutional", "transformer", "hybrid", "MLP"}
    backbone = entries["vit_small_patch14_dinov2.lvd142m"]
    assert (backbone.img_size, backbone.top1, backbone.extra_data) == (518, None, True)
    for name in ("vit_small_patch14_dinov2.lvd142m", "vit_base_patch16_siglip_224.webli"):
        shape, width = embedding_shape(entries[name])
        assert shape == (1, width)
    assert not any(name.split(".")[0].endswith("_enc") for name in entries)


def test_timms_registry_can_be_listed_by_the_command(cli: Command) -> None:
    lines = cli(
        "catalog", "list", "--catalog", "timm-pretrained", "--models", "*dinov2*", "--limit", 3
    ).stdout
    assert lines.splitlines()[-1] == "3 entries"


def test_a_users_entry_without_facts_gets_timms() -> None:
    (filled,) = with_timm_defaults([ModelEntry(model="a", architecture="resnet50.a1_in1k")])
    (known,) = load_models("imagenet-2023", ["resnet50.a1_in1k"])
    names = ("family", "kind", "weights", "pretraining", "extra_data", "license")
    assert [getattr(filled, name) for name in names] == [getattr(known, name) for name in names]


def test_weights_that_an_entry_names_are_loaded_instead_of_timms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = timm.create_model("test_resnet").state_dict()
    torch.save(theirs, tmp_path / "weights-of-ours.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/weights-of-ours.pth"
        entry = ModelEntry(model="a", architecture="test_resnet.r160_in1k", weights=url)
        loaded = build_model(entry, None).state_dict()
        server.shutdown()
    assert all(torch.equal(loaded[name], value) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ("--kind mlp --kind hybrid", lambda e: e.kind in ("MLP", "hybrid")),
        ("--kind MLP --max-gmacs 5", lambda e: e.kind == "MLP" and e.extras["gmacs"] <= 5),
        ("--max-params 2", lambda e: e.params_m <= 2),
        (
            "--license bsd-3-clause --img-size 224",
            lambda e: e.license == "bsd-3-clause" and e.img_size == 224,
        ),
        (
            "--models resnet18* --limit 3",
            lambda e: e.model in ("resnet18.a1_in1k", "resnet18.a2_in1k", "resnet18.a3_in1k"),
        ),
    ],
)
def test_filters_choose_entries_by_what_is_known_of_them(
    cli: Command, options: str, holds: Callable[[ModelEntry], bool]
) -> None:
    lines = cli(
        "catalog", "list", "--catalog", "imagenet-2023", *options.split()
    ).stdout.splitlines()
    expected = [e.model for e in load_models("imagenet-2023") if holds(e)]
    assert expected
    assert [line.split()[0] for line in lines[1:-1]] == expected
    assert lines[-1] == f"{len(expected)} entries"


def test_show_prints_all_that_is_known_at_every_size(cli: Command) -> None:
    text = cli("catalog", "show", "resnet50.a1_in1k").stdout
    blocks = [
        dict(line.split(maxsplit=1) for line in block.splitlines()) for block in text.split("\n\n")
    ]
    assert [block["img_size"] for block in blocks] == ["224", "288"]
    assert blocks[0]["catalogue"] == "imagenet-2025"
    assert blocks[1]["v2_top1"] == "69.69"
    assert blocks[1]["weights"] == "timm/resnet50.a1_in1k"
    assert blocks[0]["extra_data"] == "no"
    one = cli("catalog", "show", "resnet50.a1_in1k@288", "--catalog", "imagenet-2025").stdout
    assert one.strip() == text.split("\n\n")[1].strip()
    assert "learning_rate" in cli("catalog", "show", "test_vit.900x5").stdout
