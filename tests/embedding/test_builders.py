"""Networks that a catalogue's builder functions make, and layers other than the penultimate one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import catalog_sha256
from dsmi_zoo.jobs.runs.forecast import plan_lines
from dsmi_zoo.pipeline.config.run import RunConfig, resolve_config
from dsmi_zoo.pipeline.plan.identity import builder_hashes
from dsmi_zoo.pipeline.plan.plan import Plan, make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results

NETS = """
import os, sys, time
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(inplace=True))
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


def own(width=16):
    return Net(width)


def with_transform(width=16):
    return Net(width), dark


def dark(image):
    return pil_to_tensor(image.resize((20, 20))) / 2550


def broken():
    raise KeyError("no such thing")


def exiting():
    sys.exit("I am done")


def dying():
    os._exit(3)


def hanging():
    time.sleep(600)


def nothing():
    return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with a module of networks whose name no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{module_name(tmp_path)}.py").write_text(NETS)
    return tmp_path


def module_name(folder: Path) -> str:
    return f"nets_{re.sub(r'[^a-zA-Z0-9]', '_', folder.name)}"


def own_entry(folder: Path, function: str = "own", **fields: Any) -> ModelEntry:
    builder = f"{module_name(folder)}:{function}"
    return ModelEntry(model=function, architecture=function, builder=builder, img_size=32, **fields)


def planned(catalog: Path, cache: Path, **settings: Any) -> Plan:
    config: RunConfig = resolve_config(
        {"catalog": str(catalog), "compute": {"cache": cache}, **settings}
    )
    return make_plan(config)


def write_catalog(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


# Runs and commands with builders.


TORCHVISION = {
    "resnet18": ("torchvision.models.resnet:resnet18", 512),
    "mobilenet_v3_small": ("torchvision.models.mobilenetv3:mobilenet_v3_small", 1024),
    "shufflenet_v2_x0_5": ("torchvision.models.shufflenetv2:shufflenet_v2_x0_5", 1024),
    "squeezenet1_1": ("torchvision.models.squeezenet:squeezenet1_1", 512),
}
TIMM = {"test_resnet": 96, "test_efficientnet": 256, "test_convnext": 64, "test_nfnet": 192}


def test_networks_of_torchvision_and_of_timm_share_one_run_and_one_report(
    tmp_path: Path, cli: Command
) -> None:
    lines = ["model,builder,layer,checkpoint,model_kwargs,img_size,top1,crop_pct,mean,std"]
    classes = '"{""num_classes"": 10}"'
    usual = "1,0.5 0.5 0.5,0.5 0.5 0.5"
    for number, (name, (builder, _)) in enumerate(TORCHVISION.items()):
        layer = "features.12" if name.startswith("squeezenet") else ""
        lines.append(f"{name},{builder},{layer},,{classes},32,{50 + number},{usual}")
    for number, name in enumerate(TIMM):
        torch.manual_seed(number)
        state = timm.create_model(name, num_classes=10).state_dict()
        safetensors.torch.save_file(state, tmp_path / f"{name}.safetensors")
        lines.append(f"{name},,,{name}.safetensors,{classes},32,{60 + number},{usual}")
    write_catalog(tmp_path, *lines)
    (tmp_path / "torch.py").write_text("raise ImportError('the current directory came first')\n")
    run = ("run", "--catalog", "mine.csv", "--images-per-class", 5, "--out", "out")
    cli(*run, cwd=tmp_path, report=True)
    rows = read_results(tmp_path / "out").set_index("model")
    assert rows["embedding_dim"].to_dict() == TIMM | {
        name: width for name, (_, width) in TORCHVISION.items()
    }
    assert rows["subset_top1"].notna().all()
    families = rows["family"].to_dict()
    assert (families["resnet18"], families["test_resnet"]) == ("resnet", "resnet")
    assert families["mobilenet_v3_small"] == "mobilenetv3"
    assert rows.loc["mobilenet_v3_small", "kind"] == "convolutional"
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary["models"]["ok"] == summary["correlations"]["dsmi_z_y"]["top1"]["n"] == 8


def test_code_that_hangs_or_ends_its_process_is_a_failed_row_that_names_it(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "ending.py").write_text("import sys\nsys.exit(4)\n")
    names = ("own", "with_transform", "broken", "exiting", "dying", "hanging", "nothing")
    lines = [f"{name},nets:{name},32" for name in names]
    write_catalog(
        tmp_path, "model,builder,img_size", *lines, "ending,ending:own,32", "absent,nets:absent,32"
    )
    run = ("run", "--catalog", "mine.csv", "--images-per-class", 5, "--out", "out")
    cli(*run, "--model-timeout", "12s", cwd=tmp_path, code=1)
    rows = read_results(tmp_path / "out").set_index("model")
    assert sorted(rows.index[rows["status"] == "ok"]) == ["own", "with_transform"]
    said = (rows["error_type"] + ": " + rows["error_message"]).to_dict()
    assert said["broken"] == "BuilderError: builder nets:broken raised KeyError: 'no such thing'"
    assert said["exiting"] == "BuilderError: builder nets:exiting raised SystemExit: I am done"
    assert said["ending"] == "BuilderError: builder ending:own: its module raised SystemExit: 4"
    assert said["nothing"].startswith(
        "BuilderError: builder nets:nothing returned a NoneType, not an nn.Module"
    )
    assert said["absent"].endswith("nets.py has no function 'absent'")
    assert re.match(r"KilledWorker: .* died 3 times.*nets:dying", said["dying"])
    assert re.match(
        r"TimeoutError: took longer than --model-timeout 12 s; see .*nets:hanging", said["hanging"]
    )


def test_check_and_prefetch_cope_with_entries_that_have_a_builder(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "nets.py").write_text("raise RuntimeError('run')\n")
    write_catalog(
        tmp_path,
        "model,architecture,builder,layer,img_size",
        "own,,nets:own,,32",
        "middle,test_resnet.r160_in1k,,layer3,64",
        "wrong,test_resnet.r160_in1k,,layer9,64",
    )
    checked = cli(
        "catalog", "check", "--catalog", "mine.csv", "--workers", 1, cwd=tmp_path, code=1
    ).stdout
    assert "own: built by nets:own, whose module is there; not checked" in checked
    assert re.search(
        r"wrong@64: InputError: the model has no layer 'layer9'; did you mean .*layer", checked
    )
    assert (
        checked.splitlines()[-1]
        == "1 of 2 entries with an embedding of the declared width; 1 failed"
    )
    fetched = cli("prefetch", "--catalog", "mine.csv", "--models", "own", cwd=tmp_path).stdout
    assert "skipped 1 model with the weights that their builder makes" in fetched
    listed = cli("catalog", "list", "--catalog", "mine.csv", cwd=tmp_path).stdout.splitlines()
    assert ["own", "32", "nets:own"] in [line.split() for line in listed]
    (tmp_path / "nets.py").unlink()
    said = cli("catalog", "check", "--catalog", "mine.csv", cwd=tmp_path, code=2).stderr
    assert said.startswith(
        "dsmi-zoo: own: builder nets:own: no module 'nets' is installed, or found in"
    )


# Identities and the driver.


def test_identities_of_entries_without_builder_and_layer_are_as_ever(cache: Path) -> None:
    plan = planned(Path("digits"), cache, models=("test_vit.900x5", "test_resnet.100x3"))
    assert {job.slug: job.embedding_id for job in plan.jobs} == {
        "test_resnet-100x3-32-63147ecc87f3": "e782b9d2d615e088",
        "test_vit-900x5-32-d62438d387ad": "19b662d5ea63a85a",
    }
    assert (
        catalog_sha256("digits")
        == "80205cbc519635db9ba5a4c440650c5c2a0ca9a87f42686c15f5b4b75cea45bb"
    )


def test_builder_its_source_and_layer_make_another_embedding(folder: Path, cache: Path) -> None:
    (folder / "w.safetensors").touch()
    name = module_name(folder)
    catalog = write_catalog(
        folder,
        "model,architecture,builder,layer,checkpoint,img_size",
        f"plain,own,{name}:own,,,32",
        f"layer,own,{name}:own,body,,32",
        f"function,own,{name}:with_transform,,,32",
        f"weights,own,{name}:own,,w.safetensors,32",
    )
    before = {job.entry.model: job.embedding_id for job in planned(catalog, cache).jobs}
    assert len(set(before.values())) == 4
    assert before == {job.entry.model: job.embedding_id for job in planned(catalog, cache).jobs}
    (folder / f"{name}.py").write_text(NETS.replace("stride=2", "stride=1"))
    after = {job.entry.model: job.embedding_id for job in planned(catalog, cache).jobs}
    assert all(after[model] != before[model] for model in before)


def test_the_plan_says_how_many_networks_keep_the_weights_that_their_builder_makes(
    folder: Path, cache: Path
) -> None:
    (folder / "w.safetensors").touch()
    builder = f"{module_name(folder)}:own"
    catalog = write_catalog(
        folder, "model,builder,checkpoint", f"a,{builder},", f"b,{builder},w.safetensors"
    )
    lines = plan_lines(planned(catalog, cache))
    weights = next(line for line in lines if line.startswith("weights"))
    assert "1 local, 0 to be trained, 0 of timm's" in weights
    assert weights.endswith(", 1 as their builder makes them")


def test_the_driver_finds_a_builder_and_runs_neither_it_nor_torch(tmp_path: Path) -> None:
    for path in ("single.py", "package/__init__.py", "package/nets.py", "loose/deeper/nets.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("raise RuntimeError('run by the driver')\n")
    builders = (
        "single:a",
        "package.nets:a",
        "loose.deeper.nets:a",
        "torchvision.models.resnet:resnet18",
    )
    write_catalog(
        tmp_path, "model,builder", *(f"m{number},{name}" for number, name in enumerate(builders))
    )
    code = (
        "import sys; from pathlib import Path; from dsmi_zoo.pipeline.config.run import resolve_config\n"
        "from dsmi_zoo.pipeline.plan.plan import make_plan\n"
        "sys.path = [place for place in sys.path if place]\n"
        "jobs = make_plan(resolve_config({'catalog': 'mine.csv', 'compute': {'cache': Path('cache')}})).jobs\n"
        "print(len({job.builder_sha256 for job in jobs}))\n"
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))\n"
        "print(sys.path[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["2", "[]", str(tmp_path)]
    assert not done.stderr


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        ("nowhere_at_all:net", "no module 'nowhere_at_all' is installed, or found in"),
        ("torchvision.models.nowhere:net", "no module 'torchvision.models.nowhere' is installed"),
        ("json.decoder.deeper:net", "no module 'json.decoder.deeper'"),
        ("sys:exit", "sys has no file; put the function in a module of your own"),
        ("__main__:net", "no module '__main__'"),
    ],
)
def test_a_builder_that_cannot_be_found_is_refused_by_the_entrys_name(
    folder: Path, cache: Path, builder: str, words: str
) -> None:
    catalog = write_catalog(folder, "model,builder", f"mine,{builder}")
    with pytest.raises(
        InputError, match=f"^mine: builder {builder}: .*{re.escape(words)}"
    ) as caught:
        planned(catalog, cache)
    assert "\n" not in str(caught.value)


def test_a_builder_that_a_library_hides_is_refused_and_not_mistaken(folder: Path) -> None:
    (folder / "colorsys.py").write_text(NETS)
    entry = ModelEntry(model="mine", architecture="mine", builder="colorsys:own")
    with pytest.raises(
        InputError, match=rf"^mine: builder \S+ {folder}/colorsys.py is hidden by \S+; rename"
    ):
        builder_hashes([own_entry(folder), entry])
