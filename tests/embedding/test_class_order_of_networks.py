"""Networks whose outputs and labels differ in order: scored if the order is known, else not scored."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import timm
import torch
from conftest import Command
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from dsmi_zoo.pipeline.config.run import resolve_config
from dsmi_zoo.pipeline.networks.class_list import classes_of_checkpoint, classes_of_network
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

NETS = """
import torch
import torchvision.transforms as T

NAMES = [str(k) for k in range(12)]


class Net(torch.nn.Module):
    # The colour of an image is its number, so each of them is always right.
    def __init__(self, order):
        super().__init__()
        self.fc = torch.nn.Linear(12, 12, bias=False)
        self.fc.weight.data = torch.eye(12)[[NAMES.index(name) for name in order]]

    def forward(self, images):
        numbers = (images.mean((1, 2, 3)) * 255 / 20).round().long()
        return self.fc(torch.nn.functional.one_hot(numbers, 12).float())


def by_number():
    return Net(NAMES), T.ToTensor()


def as_text():
    return Net(sorted(NAMES)), T.ToTensor()


def listed():
    net = Net(sorted(NAMES))
    net.class_to_idx = {name: number for number, name in enumerate(sorted(NAMES))}
    return net, T.ToTensor()
"""
NUMBERS = [str(number) for number in range(12)]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Write images of 12 classes in folders, and a catalogue of networks that are always right."""
    for number in range(12):
        (tmp_path / "set" / str(number)).mkdir(parents=True)
        for copy in range(3):
            colour = (20 * number, 20 * number, 20 * number + copy)
            image = Image.new("RGB", (16, 16), colour)
            image.save(tmp_path / "set" / str(number) / f"{copy}.png")
    (tmp_path / "class_order_nets.py").write_text(NETS)
    weights = {"fc.weight": torch.eye(12)}
    by_number = {name: number for number, name in enumerate(NUMBERS)}
    torch.save({"state_dict": weights, "class_to_idx": by_number}, tmp_path / "listed.pt")
    others = [f"class {name}" for name in NUMBERS]
    torch.save(
        {"state_dict": weights, "hyper_parameters": {"classes": others}}, tmp_path / "others.pt"
    )
    lines = ["model,builder,checkpoint,img_size", "number,class_order_nets:by_number,,16"]
    lines += ["text,class_order_nets:as_text,,16", "network,class_order_nets:listed,,16"]
    lines += [f"{name},class_order_nets:as_text,{name}.pt,16" for name in ("listed", "others")]
    (tmp_path / "nets.csv").write_text("\n".join(lines))
    return tmp_path


def results(out: Path) -> pd.DataFrame:
    return read_results(out).set_index("model")


@pytest.mark.long
def test_a_right_network_is_never_wrong_by_the_order_of_its_classes(
    zoo: Path, cli: Command
) -> None:
    images = ("--catalog", "nets.csv", "--data-root", "set")
    said = cli("run", *images, "--out", "open", cwd=zoo, report=True)
    rows = results(zoo / "open")
    assert rows["subset_top1"].dropna().to_dict() == {"listed": 100, "network": 100}
    assert (rows[["nce", "leep"]] == 0).all(axis=None)  # whatever the order
    assert rows[["nce_se", "leep_se"]].isna().all(axis=None)
    reason = rows.loc["number", "undefined_scores"].partition("subset_top1: ")[2]
    assert reason == (
        "class order is ambiguous (100.0% if outputs are ordered 0, 1, 2, 3, ... by number, "
        "16.7% if 0, 1, 10, 11, ... as text): --class-order decides"
    )
    assert "100.0% if 0, 1, 10, 11, ... as text" in rows.loc["text", "undefined_scores"]
    assert (
        "classes of its checkpoint names other classes (class 0, class 1, class 2)"
        in (rows.loc["others", "undefined_scores"])
    )
    assert said.stdout.count("subset_top1 is left empty where it depends on the order") == 1
    account = read_run(zoo / "open").subset.account
    assert account is not None
    assert [reading.option for reading in account.readings] == ["--class-order"]
    page = (zoo / "open" / "report" / "index.html").read_text()
    assert "Subset top-1 (ceiling) is empty for 3 models. For number, class order is" in page

    cli("remeasure", "--out", "open", "--t", 2, "--into", "again", cwd=zoo)
    again = results(zoo / "again")
    kept = ["subset_top1", "nce", "leep"]
    assert again[kept].equals(rows[kept])
    assert again.loc["number", "undefined_scores"].count("leep_se: each class that") == 1
    assert again.loc["number", "undefined_scores"].count("subset_top1: ") == 1
    assert again.loc["number", "undefined_scores"].endswith(f"subset_top1: {reason}")

    cli("run", *images, "--class-order", "text", "--out", "text", cwd=zoo)
    given = results(zoo / "text")["subset_top1"]
    assert given["text"] == 100
    assert given["number"] == pytest.approx(100 / 6)
    refused = cli("run", *images, "--class-order", "text", "--out", "open", cwd=zoo, code=2)
    assert 'subset.class_order = null, not "text"' in refused.stderr


def test_only_an_order_that_is_given_or_found_changes_identities(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(zoo)
    cache = {"compute": {"cache": str(zoo / "cache")}}

    def planned(catalog: str = "nets.csv", **subset: str) -> tuple[set[str], dict[str, object]]:
        config = resolve_config(
            {"catalog": catalog, "subset": {"data_root": "set"} | subset} | cache
        )
        return {job.row_id for job in make_plan(config).jobs}, config.identity()["subset"]

    usual, settings = planned()
    assert "class_order" not in settings
    by_number, settings = planned(class_order="number")
    assert settings["class_order"] == "number"
    (zoo / "order.txt").write_text("\n".join(NUMBERS))
    of_file, settings = planned(class_order="order.txt")
    assert settings["class_order"] == "order.txt"
    assert of_file == by_number
    assert not of_file & usual
    (zoo / "set" / "classes.txt").write_text("\n".join(sorted(NUMBERS, reverse=True)))
    assert not planned()[0] & (usual | of_file)
    (zoo / "set" / "classes.txt").unlink()
    assert planned()[0] == usual


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"class_to_idx": {"a": 1, "b": 0}}, "class_to_idx"),
        ({"classes": ["b", "a"], "epoch": 3}, "classes"),
        ({"meta": {"CLASSES": ("b", "a")}}, "CLASSES"),
        ({"hyper_parameters": {"class_names": ["b", "a"], "lr": 0.1}}, "class_names"),
        ({"idx_to_class": {0: "b", 1: "a"}}, "idx_to_class"),
        ({"config": {"id2label": {"0": "b", "1": "a"}}}, "id2label"),
    ],
)
def test_the_classes_of_a_checkpoint_are_found_where_trainings_save_them(
    tmp_path: Path, content: dict[str, object], key: str
) -> None:
    for zipped in (True, False):
        torch.save(
            {"state_dict": {"fc.weight": torch.eye(2)}} | content,
            tmp_path / "a.pt",
            _use_new_zipfile_serialization=zipped,
        )
        found = classes_of_checkpoint(tmp_path / "a.pt")
        assert found is not None
        assert (found.key, found.outputs) == (key, {"a": 1, "b": 0})


@pytest.mark.parametrize(
    "content",
    [
        {"fc.weight": torch.eye(2)},
        {"classes": 10},
        {"class_to_idx": {0: "a"}},
        {"class_to_idx": {"a": -1}},
        {"labels": torch.arange(3)},
        {"classes": []},
        [1, 2],
    ],
)
def test_a_checkpoint_without_a_list_of_classes_has_none(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert classes_of_checkpoint(tmp_path / "a.pt") is None
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    assert classes_of_checkpoint(tmp_path / "a.pt") is None
    assert classes_of_checkpoint(tmp_path / "a.safetensors") is None


def test_the_classes_of_a_network_are_those_of_its_configuration() -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label={0: "b", 1: "a"})
    found = classes_of_network(ResNetForImageClassification(config))
    assert found is not None
    assert found.outputs == {"b": 0, "a": 1}
    network = timm.create_model("test_resnet", num_classes=2)
    assert classes_of_network(network) is None
    network.pretrained_cfg["label_names"] = ["b", "a"]
    wrapper = torch.nn.Sequential(network)
    wrapper.config = SimpleNamespace(id2label=None)
    found = classes_of_network(wrapper)
    assert found is not None
    assert found.outputs == {"b": 0, "a": 1}
