"""The embedded layer and the transform of a builder's network."""

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from test_builders import NETS, module_name, own_entry, planned, write_catalog
from test_builders_built import built, embeddings_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.base import ImageArray
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.data_catalog.models.registry import PREPROCESSING
from dsmi_zoo.pipeline.embedding.embed import View, embed_inputs
from dsmi_zoo.pipeline.engine.graph import run_entries
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.networks.custom import BuilderError, Transformed
from dsmi_zoo.pipeline.networks.forward import Embedding, activations, evaluation_mode
from dsmi_zoo.pipeline.networks.timm import embedding_shape
from dsmi_zoo.pipeline.store.run_folder import read_row

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with a module of networks whose name no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"{module_name(tmp_path)}.py").write_text(NETS)
    return tmp_path


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
    with evaluation_mode(model):
        watched = activations(model, inputs_of(view), "body.0")
    np.testing.assert_allclose(watched, expected, rtol=1e-4, atol=1e-6)


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """A dictionary whose items are attributes too, like the outputs of the library transformers."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class LikeTransformers(torch.nn.Module):
    """A network that, like its encoder, returns a dictionary and that calls its classifier by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.classifier = torch.nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> ModelOutput:
        states = self.encoder(images)
        return ModelOutput(loss=None, logits=self.classifier(input=states.last_hidden_state[:, 0]))


class Encoder(torch.nn.Module):
    """An encoder that turns patches into tokens of four values."""

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
    with evaluation_mode(model):
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
def test_a_network_without_a_linear_layer_or_the_named_one_is_reported(
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
def test_a_wrong_transform_is_reported_with_its_builder(transform: Any, words: str) -> None:
    with pytest.raises(BuilderError, match=f"^the transform of builder nets:t,? {words}"):
        Transformed("nets:t", images(), transform).batch(0, 6, CPU)


def test_the_papers_protocol_keeps_its_crops_whatever_the_transform(
    folder: Path, cache: Path, thread_workers: Workers
) -> None:
    name = module_name(folder)
    catalog = write_catalog(
        folder, "model,builder,img_size", f"a,{name}:own,32", f"b,{name}:with_transform,32"
    )
    few: dict[str, Any] = {"subset": {"images_per_class": 3, "classes": "0,1"}}
    by_standard = embeddings_of(
        planned(catalog, cache, out=folder / "standard", **few), thread_workers
    )
    assert by_standard["a"].shape == by_standard["b"].shape == (6, 16)
    assert not np.allclose(by_standard["a"], by_standard["b"])
    by_paper = embeddings_of(
        planned(catalog, cache, out=folder / "paper", protocol="paper", **few), thread_workers
    )
    assert by_paper["a"].shape == (18, 16)
    np.testing.assert_array_equal(by_paper["a"], by_paper["b"])


def test_only_entries_with_a_builder_are_sent_the_images(
    folder: Path, cache: Path, thread_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}
    submit = thread_workers.client.submit

    def recording(function: Any, *arguments: Any, key: tuple[str, str, str], **options: Any) -> Any:
        if key[0] == "row":
            sent[key[1]] = function.__self__.images
        return submit(function, *arguments, key=key, **options)

    monkeypatch.setattr(thread_workers.client, "submit", recording)
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
    assert all(done.ok for done in run_entries(thread_workers, plan, plan.jobs))
    assert sent["timms@160"] is None
    assert sent["own@32"].names == plan.subset.images.names


def test_a_network_that_exits_in_its_forward_pass_is_a_failed_row(
    folder: Path, cache: Path, thread_workers: Workers
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
    (done,) = run_entries(thread_workers, plan, plan.jobs)
    row = read_row(folder / "out", plan.jobs[0].slug)
    assert row is not None
    assert (done.ok, row["error_type"], row["error_message"]) == (False, "SystemExit", "enough")
    assert pd.isna(row["dse_z"])
