"""Networks that a catalogue's own code makes, and layers other than the penultimate one."""

import json
import random
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from conftest import Command
from distributed import Client, LocalCluster

from dsmi_zoo.data_catalog import InputError, ModelEntry
from dsmi_zoo.data_catalog.images import ImageArray
from dsmi_zoo.data_catalog.models import catalog_sha256
from dsmi_zoo.data_catalog.trained_zoos import PREPROCESSING
from dsmi_zoo.jobs.forecast import described
from dsmi_zoo.pipeline.activations import activations, defaults_kept, undisturbed
from dsmi_zoo.pipeline.builder import BuilderError, Built, Transformed, build
from dsmi_zoo.pipeline.builder_defaults import with_builder_defaults
from dsmi_zoo.pipeline.config import RunConfig, resolve_config
from dsmi_zoo.pipeline.embed import Embedding, View, embed_inputs
from dsmi_zoo.pipeline.graph import run_entries
from dsmi_zoo.pipeline.plan import Plan, builder_hashes, make_plan
from dsmi_zoo.pipeline.store import embedding_path, read_results, read_row
from dsmi_zoo.pipeline.users_modules import find_module
from dsmi_zoo.pipeline.workers import Workers
from dsmi_zoo.pipeline.zoo import embedding_shape

CPU = torch.device("cpu")
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
    """The current directory, with a module of networks of a name that no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{module_name(tmp_path)}.py").write_text(NETS)
    return tmp_path


def module_name(folder: Path) -> str:
    return f"nets_{re.sub(r'[^a-zA-Z0-9]', '_', folder.name)}"


def own_entry(folder: Path, function: str = "own", **fields: Any) -> ModelEntry:
    builder = f"{module_name(folder)}:{function}"
    return ModelEntry(model=function, architecture=function, builder=builder, img_size=32, **fields)


def built(entry: ModelEntry, weights: Path | None = None) -> Built:
    assert entry.builder is not None
    return build(entry, find_module(entry.builder.partition(":")[0], "a test").sha256, weights)


def torchvision_network(name: str, **kwargs: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = torchvision.models.get_model(name, num_classes=10, **kwargs)
    return network.eval()


@pytest.fixture(scope="module")
def view() -> View:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    return View(pixels, PREPROCESSING)


def inputs_of(view: View) -> torch.Tensor:
    return view.batch(0, len(view), CPU)


@pytest.fixture(scope="module")
def here() -> Iterator[Workers]:
    """A Dask worker that is a thread of this process, and sees what it patches."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Workers(client)


def planned(catalog: Path, cache: Path, **settings: Any) -> Plan:
    config: RunConfig = resolve_config(
        {"catalog": str(catalog), "compute": {"cache": cache}, **settings}
    )
    return make_plan(config)


def write_catalog(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def embeddings_of(plan: Plan, here: Workers) -> dict[str, np.ndarray]:
    """Run the plan here and read what each of its entries was embedded as."""
    for name in ("results", "embeddings"):
        (plan.config.folder / name).mkdir(parents=True, exist_ok=True)
    done = list(run_entries(here, plan, plan.jobs))
    assert all(entry.ok for entry in done), done
    return {
        job.entry.model: np.load(embedding_path(plan.config.folder, job.slug)) for job in plan.jobs
    }


# What a run of torchvision's networks beside timm's looks like.


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
    cli("run", "--catalog", "mine.csv", "--images-per-class", 5, "--out", "out", cwd=tmp_path)
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
    cli(*run, "--model-timeout", "40s", cwd=tmp_path, code=1)
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
        r"TimeoutError: took longer than --model-timeout 40 s; see .*nets:hanging", said["hanging"]
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


# Identities, and what the driver does.


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
    lines = described(planned(catalog, cache))
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
        "import sys; from pathlib import Path; from dsmi_zoo.pipeline.config import resolve_config\n"
        "from dsmi_zoo.pipeline.plan import make_plan\n"
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


def test_a_builders_entry_is_filled_by_habit_and_keeps_what_it_says() -> None:
    entry = ModelEntry(
        model="mine", architecture="mine", builder="torchvision.models.vision_transformer:vit_b_16"
    )
    filled = with_builder_defaults(entry)
    assert (filled.family, filled.kind, filled.img_size) == (
        "vision_transformer",
        "transformer",
        224,
    )
    assert filled.preprocessing is not None
    assert filled.preprocessing.model_dump() == {
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    told = entry.model_copy(
        update={"family": "f", "kind": "MLP", "img_size": 48, "preprocessing": PREPROCESSING}
    )
    assert with_builder_defaults(told) == told


# What a worker builds.


def test_random_weights_are_the_same_each_time_and_nobodys_random_state_changes(
    folder: Path,
) -> None:
    def drawn() -> list[float]:
        return [float(torch.rand(1)), float(np.random.rand()), random.random()]  # noqa: NPY002

    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    expected = drawn()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    first = built(own_entry(folder)).model
    assert drawn() == expected
    second = built(own_entry(folder)).model
    assert not first.training
    assert all(
        torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_model_kwargs_are_the_builders_arguments(folder: Path) -> None:
    assert built(own_entry(folder, model_kwargs={"width": 5})).model.get_parameter(
        "head.weight"
    ).shape == (10, 5)
    with pytest.raises(BuilderError, match=r"builder \S+:own raised TypeError: .*colour"):
        built(own_entry(folder, model_kwargs={"colour": 5}))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_is_loaded_strictly_into_what_was_built(folder: Path, suffix: str) -> None:
    torch.manual_seed(9)
    state = {
        name: torch.randn_like(value)
        for name, value in built(own_entry(folder)).model.state_dict().items()
    }
    path = folder / f"w{suffix}"

    def save() -> None:
        safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(
            state, path
        )

    save()
    loaded = built(own_entry(folder), path).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    del state["head.bias"]
    save()
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.bias"):
        built(own_entry(folder), path)
    with pytest.raises(InputError, match="a checkpoint must be one of"):
        built(own_entry(folder), path.with_suffix(".pkl"))


def test_a_module_edited_since_the_plan_is_refused_and_after_a_new_plan_read_anew(
    folder: Path,
) -> None:
    entry, file = own_entry(folder), folder / f"{module_name(folder)}.py"
    planned_with = find_module(file.stem, "a test").sha256
    assert build(entry, planned_with, None).model.get_parameter("head.weight").shape[1] == 16
    file.write_text(NETS.replace("width=16", "width=12"))
    with pytest.raises(
        BuilderError, match=r"is not as it was when the run was planned; start the run again"
    ):
        build(entry, planned_with, None)
    assert built(entry).model.get_parameter("head.weight").shape[1] == 12


def test_a_function_that_its_file_no_longer_holds_is_no_builder(folder: Path) -> None:
    entry, file = own_entry(folder), folder / f"{module_name(folder)}.py"
    built(entry)
    file.write_text(NETS.replace("def own(", "def other("))
    with pytest.raises(BuilderError, match=r"has no function 'own'"):
        built(entry)


def test_what_a_network_changes_of_torchs_defaults_is_gone_for_the_next_one(folder: Path) -> None:
    changing = (
        NETS
        + """
def changing():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    raise KeyError("too late")
"""
    )
    (folder / f"{module_name(folder)}.py").write_text(changing)
    state = (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
    )
    with pytest.raises(BuilderError, match="too late"), defaults_kept():
        built(own_entry(folder, "changing"))
    assert (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
    ) == state
    assert torch.empty(0).device.type == "cpu"


def test_a_network_that_leaves_other_defaults_behind_changes_no_row_but_its_own(
    folder: Path, cache: Path, here: Workers
) -> None:
    module = module_name(folder)
    changing = "def changing():\n    torch.set_default_dtype(torch.float64)\n    return Net(16)\n"
    (folder / f"{module}.py").write_text(f"{NETS}\n{changing}")
    lines = [
        f"{name},{module}:{function},32"
        for name, function in (("a", "own"), ("b", "changing"), ("c", "own"))
    ]
    catalog = write_catalog(folder, "model,builder,img_size", *lines)
    embeddings = embeddings_of(
        planned(catalog, cache, out=folder / "out", subset={"images_per_class": 3}), here
    )
    np.testing.assert_array_equal(embeddings["a"], embeddings["c"])
    assert torch.get_default_dtype() == torch.float32


# What is embedded.


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc"), ("mobilenet_v3_small", "classifier.3"), ("shufflenet_v2_x0_5", "fc")],
)
def test_a_torchvision_network_is_embedded_by_the_input_of_its_classifier(
    name: str, head: str, view: View
) -> None:
    model = torchvision_network(name)
    embedding = embed_inputs(model, view, CPU, batch_size=4)
    assert embedding.predictions is not None
    with torch.inference_mode():
        logits = model(inputs_of(view))
        model.set_submodule(head, torch.nn.Identity())
        headless = model(inputs_of(view))
    np.testing.assert_allclose(embedding.values, headless.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embedding.predictions, logits.argmax(1).numpy())
    assert embedding.n_logits == 10


def test_another_layer_of_a_timm_model_is_averaged_over_its_map_and_predictions_stay(
    view: View,
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    embedding, usual = (embed_inputs(model, view, CPU, layer=layer) for layer in ("layer2", None))
    with torch.inference_mode():
        stem = model.maxpool(model.act1(model.bn1(model.conv1(inputs_of(view)))))
        maps = model.layer2(model.layer1(stem))
    np.testing.assert_allclose(embedding.values, maps.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(embedding.predictions, usual.predictions)
    entry = ModelEntry(model="a", architecture="test_resnet", img_size=32, layer="layer2")
    assert embedding_shape(entry)[0] == (1, embedding.values.shape[1])
    headless = timm.create_model("test_resnet", num_classes=0).eval()
    assert embed_inputs(headless, view, CPU, layer="layer2").predictions is None


def test_the_tokens_of_a_transformers_layer_are_averaged(view: View) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=10, img_size=32, patch_size=8).eval()
    embedding = embed_inputs(model, view, CPU, layer="norm")
    with torch.inference_mode():
        tokens = model.forward_features(inputs_of(view))
    np.testing.assert_allclose(embedding.values, tokens.mean(1).numpy(), rtol=1e-4, atol=1e-5)


def test_a_layers_output_is_what_it_gave_and_not_what_came_after_in_its_place(
    folder: Path, view: View
) -> None:
    model = built(own_entry(folder)).model
    with torch.inference_mode():
        expected = model.get_submodule("body.0")(inputs_of(view)).mean((2, 3)).numpy()
    np.testing.assert_allclose(
        embed_inputs(model, view, CPU, layer="body.0").values, expected, rtol=1e-4, atol=1e-6
    )
    with undisturbed(model):
        watched = activations(model, inputs_of(view), "body.0")
    np.testing.assert_allclose(watched, expected, rtol=1e-4, atol=1e-6)


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As the outputs of the library transformers are: a dictionary whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class LikeTransformers(torch.nn.Module):
    """Its encoder and itself give dictionaries; the classifier is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.classifier = torch.nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> ModelOutput:
        states = self.encoder(images)
        return ModelOutput(loss=None, logits=self.classifier(input=states.last_hidden_state[:, 0]))


class Encoder(torch.nn.Module):
    """Patches become tokens of four values."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: torch.Tensor) -> ModelOutput:
        return ModelOutput(
            attention=None, last_hidden_state=self.patches(images).flatten(2).transpose(1, 2)
        )


@pytest.mark.parametrize("layer", [None, "encoder"])
def test_outputs_like_dictionaries_give_embedding_and_predictions(
    view: View, layer: str | None
) -> None:
    torch.manual_seed(0)
    model = LikeTransformers().eval()
    embedding = embed_inputs(model, view, CPU, layer=layer)
    with torch.inference_mode():
        tokens = model.encoder(inputs_of(view)).last_hidden_state
        logits = model(inputs_of(view)).logits
    expected = tokens[:, 0] if layer is None else tokens.mean(1)
    np.testing.assert_allclose(embedding.values, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(embedding.predictions, logits.argmax(1).numpy())
    with undisturbed(model):
        np.testing.assert_array_equal(activations(model, inputs_of(view), layer), embedding.values)


def test_a_network_in_half_precision_gets_its_images_so(view: View) -> None:
    model = torchvision_network("mobilenet_v3_small").to(torch.bfloat16)
    assert embed_inputs(model, view, CPU).values.shape == (6, 1024)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (None, "no nn.Linear ran, so the penultimate layer is unknown"),
        ("features.99", r"the model has no layer 'features.99'; did you mean .*features"),
        ("classifier.9", "the model has no layer"),
    ],
)
def test_a_network_without_a_linear_layer_or_the_one_named_is_told(
    view: View, layer: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        embed_inputs(torchvision_network("squeezenet1_1"), view, CPU, layer=layer)


def test_a_backbone_without_its_classifier_must_say_which_layer_is_meant(view: View) -> None:
    backbone = torchvision.models.vit_b_16(image_size=32)
    backbone.heads = torch.nn.Identity()
    with pytest.raises(
        InputError,
        match=r"'encoder\.layers\.encoder_layer_11\.mlp\.3', lies within the network; name",
    ):
        embed_inputs(backbone.eval(), view, CPU)
    assert embed_inputs(backbone, view, CPU, layer=".").values.shape == (len(view), 768)
    without = torchvision_network("resnet18")
    without.fc = torch.nn.Identity()
    with pytest.raises(InputError, match=r"no nn\.Linear ran"):
        embed_inputs(without, view, CPU)
    whole = embed_inputs(without, view, CPU, layer=".").values
    np.testing.assert_array_equal(whole, embed_inputs(without, view, CPU, layer="avgpool").values)


# Transforms.


def images(n: int = 6) -> ImageArray:
    pixels = np.random.default_rng(1).integers(0, 256, (n, 24, 24, 3), dtype=np.uint8)
    return ImageArray("some", tuple(f"image-{i}" for i in range(n)), np.arange(n) % 2, pixels)


def test_a_transform_of_the_builders_own_replaces_the_view(folder: Path) -> None:
    model, transform = (
        built(own_entry(folder, "with_transform")).model,
        built(own_entry(folder, "with_transform")),
    )
    assert transform.transform is not None
    inputs = Transformed("nets:with_transform", images(), transform.transform)
    assert (len(inputs), inputs.pixels) == (6, 400)
    embedding: Embedding = embed_inputs(model, inputs, CPU, batch_size=4)
    with torch.inference_mode():
        batch = torch.stack([transform.transform(images().image(number)) for number in range(6)])
        expected = model.get_submodule("body")(batch).mean((2, 3))
    np.testing.assert_allclose(embedding.values, expected.numpy(), rtol=1e-4, atol=1e-6)


def growing(image: Any) -> torch.Tensor:
    return torch.zeros(3, 4, int(np.asarray(image).sum()) % 7 + 1)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (np.asarray, "gives a ndarray, not a float tensor"),
        (
            lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8),
            r"gives a uint8 tensor \[3, 4, 4\], not a float",
        ),
        (
            lambda image: torch.zeros(1, 3, 4, 4),
            r"gives a float32 tensor \[1, 3, 4, 4\], not a",
        ),
        (growing, r"gives \[3, 4, \d\] for one image and \[3, 4, \d\] for image-"),
        (lambda image: image.no_such_thing, "of image image-0, raised AttributeError"),
        (lambda image: sys.exit(2), "of image image-0, raised SystemExit: 2"),
    ],
)
def test_a_wrong_transform_is_told_with_its_builder(transform: Any, words: str) -> None:
    with pytest.raises(BuilderError, match=f"^the transform of builder nets:t,? {words}"):
        Transformed("nets:t", images(), transform).batch(0, 6, CPU)


def test_the_papers_protocol_keeps_its_crops_whatever_the_transform(
    folder: Path, cache: Path, here: Workers
) -> None:
    name = module_name(folder)
    catalog = write_catalog(
        folder, "model,builder,img_size", f"a,{name}:own,32", f"b,{name}:with_transform,32"
    )
    few: dict[str, Any] = {"subset": {"images_per_class": 3, "classes": "0,1"}}
    by_standard = embeddings_of(planned(catalog, cache, out=folder / "standard", **few), here)
    assert by_standard["a"].shape == by_standard["b"].shape == (6, 16)
    assert not np.allclose(by_standard["a"], by_standard["b"])
    by_paper = embeddings_of(
        planned(catalog, cache, out=folder / "paper", protocol="paper", **few), here
    )
    assert by_paper["a"].shape == (18, 16)
    np.testing.assert_array_equal(by_paper["a"], by_paper["b"])


def test_only_entries_with_a_builder_are_sent_the_images(
    folder: Path, cache: Path, here: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}
    submit = here.client.submit

    def recording(function: Any, *arguments: Any, key: tuple[str, str, str], **options: Any) -> Any:
        if key[0] == "row":
            sent[key[1]] = function.args[-1]
        return submit(function, *arguments, key=key, **options)

    monkeypatch.setattr(here.client, "submit", recording)
    torch.manual_seed(0)
    safetensors.torch.save_file(
        timm.create_model("test_vit", num_classes=2).state_dict(), folder / "w.safetensors"
    )
    catalog = write_catalog(
        folder,
        "model,architecture,builder,checkpoint,family,crop_pct,mean,std,model_kwargs,img_size",
        f"own,,{module_name(folder)}:own,,,1,0 0 0,1 1 1,,32",
        'timms,test_vit,,w.safetensors,vit,1,0 0 0,1 1 1,"{""num_classes"": 2}",160',
    )
    plan = planned(
        catalog, cache, out=folder / "out", subset={"images_per_class": 3, "classes": "0,1"}
    )
    for part in ("results", "embeddings"):
        (folder / "out" / part).mkdir(parents=True)
    assert all(done.ok for done in run_entries(here, plan, plan.jobs))
    assert sent["timms@160"] is None
    assert sent["own@32"].names == plan.subset.images.names


def test_a_network_that_exits_in_its_forward_pass_is_a_failed_row(
    folder: Path, cache: Path, here: Workers
) -> None:
    file = folder / f"{module_name(folder)}.py"
    file.write_text(
        NETS.replace("return self.head(", "sys.exit('enough')\n        return self.head(")
    )
    catalog = write_catalog(folder, "model,builder,img_size", f"a,{module_name(folder)}:own,32")
    plan = planned(
        catalog, cache, out=folder / "out", subset={"images_per_class": 3, "classes": "0,1"}
    )
    for part in ("results", "embeddings"):
        (folder / "out" / part).mkdir(parents=True)
    (done,) = run_entries(here, plan, plan.jobs)
    row = read_row(folder / "out", plan.jobs[0].slug)
    assert row is not None
    assert (done.ok, row["error_type"], row["error_message"]) == (False, "SystemExit", "enough")
    assert pd.isna(row["dse_z"])
