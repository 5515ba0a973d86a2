"""Pooling of embeddings: the column ``pooling``, and ``--pool`` for backbones without a classifier."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.networks.layers import forward
from dsmi_zoo.pipeline.networks.timm import pooling_of, repool
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

ZOO = """model,architecture,checkpoint,model_kwargs,img_size
backbone,test_vit,backbone.safetensors,"{""num_classes"": 0}",160
classifier,test_vit,classifier.safetensors,"{""num_classes"": 10}",160
no-token,test_resnet,no-token.safetensors,"{""num_classes"": 0}",160
"""


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        ("test_vit", "token"),
        ("test_resnet", "avg"),
        ("test_convnext", "avg"),
        ("hiera_tiny_224", None),
    ],
)
def test_a_network_tells_its_pooling_where_timm_does(
    architecture: str, pooling: str | None
) -> None:
    with torch.device("meta"):
        assert pooling_of(timm.create_model(architecture)) == pooling


@torch.inference_mode()
@pytest.mark.parametrize("pool", ["token", "avg", "max", "avgmax"])
def test_another_pooling_is_that_of_the_tokens_after_the_norm(pool: str) -> None:
    model = timm.create_model("test_vit", num_classes=0).eval()
    images = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    tokens = model.forward_features(images)
    of_patches = tokens[:, model.num_prefix_tokens :]
    expected = {
        "token": tokens[:, 0],
        "avg": of_patches.mean(dim=1),
        "max": of_patches.max(dim=1).values,
        "avgmax": (of_patches.mean(dim=1) + of_patches.max(dim=1).values) / 2,
    }
    repool(model, pool)
    embedding, logits = forward(model, images, None, logits=True)
    torch.testing.assert_close(embedding, expected[pool])
    assert pooling_of(model) == pool
    assert logits is None


def test_a_network_with_a_classifier_keeps_its_pooling() -> None:
    model = timm.create_model("test_vit", num_classes=10)
    repool(model, "avg")
    assert pooling_of(model) == "token"
    assert model.head.out_features == 10


@pytest.mark.parametrize(
    ("architecture", "pool", "reason"),
    [
        ("test_resnet", "token", "Invalid pool type: token"),
        ("test_vit", "map", "Cannot currently add attention"),
    ],
)
def test_a_pooling_that_a_network_does_not_have_is_refused_in_one_line(
    architecture: str, pool: str, reason: str
) -> None:
    with pytest.raises(
        InputError, match=rf"cannot pool by {pool}: {reason}[^\n]*; leave it out, or --pool$"
    ):
        repool(timm.create_model(architecture, num_classes=0), pool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a catalogue of two backbones without a classifier and one network with one, and their weights."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "zoo.csv").write_text(ZOO)
    torch.manual_seed(0)
    for name, architecture, classes in (
        ("backbone", "test_vit", 0),
        ("classifier", "test_vit", 10),
        ("no-token", "test_resnet", 0),
    ):
        network = timm.create_model(architecture, num_classes=classes)
        safetensors.torch.save_file(network.state_dict(), folder / f"{name}.safetensors")
    return folder


def test_a_run_pools_as_asked_and_its_rows_say_so(folder: Path, cli: Command) -> None:
    run = ("run", "--catalog", "zoo.csv", "--images-per-class", 3)
    cli(*run, "--out", "as-is", cwd=folder)
    as_is = read_results(folder / "as-is").set_index("model")
    assert as_is["pooling"].to_dict() == {
        "backbone": "token",
        "classifier": "token",
        "no-token": "avg",
    }
    assert "pool" not in read_run(folder / "as-is").identity

    cli(*run, "--pool", "avg", "--out", "avg", cwd=folder)
    averaged = read_results(folder / "avg").set_index("model")
    assert averaged["pooling"].to_dict() == {
        "backbone": "avg",
        "classifier": "token",
        "no-token": "avg",
    }
    assert not set(averaged["embedding_id"]) & set(as_is["embedding_id"])

    def embeddings(name: str) -> list[np.ndarray]:
        entry = ModelEntry(model=name, architecture=name, img_size=160)
        return [np.load(embedding_path(folder / out, entry.slug)) for out in ("as-is", "avg")]

    assert not np.allclose(*embeddings("backbone"), atol=1e-3)
    assert np.array_equal(*embeddings("classifier"))
    assert np.array_equal(*embeddings("no-token"))

    said = cli(*run, "--out", "avg", cwd=folder, code=2).stderr
    assert 'belongs to another configuration: pool = "avg", not null; choose another --out' in said


def test_a_network_without_such_a_pooling_is_a_failed_row(folder: Path, cli: Command) -> None:
    cli(
        *("run", "--catalog", "zoo.csv", "--images-per-class", 3, "--pool", "token", "--out", "token"),
        cwd=folder, code=1,
    )  # fmt: skip
    rows = read_results(folder / "token").set_index("model")
    assert rows["status"].to_dict() == {"backbone": "ok", "classifier": "ok", "no-token": "failed"}
    assert "cannot pool by token: Invalid pool type" in rows.loc["no-token", "error_message"]
