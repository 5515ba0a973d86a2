"""``dsmi-zoo convert``: an exported file computes what the network computes; one that differs is not written."""

import copy
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.jobs.tools.convert import PROOF_IMAGES, _blocks, convert, difference, head_of
from dsmi_zoo.pipeline.embedding.embed import embed_inputs
from dsmi_zoo.pipeline.networks import deployed as exporting
from dsmi_zoo.pipeline.networks.deployed import Deployed, reader_of, write
from dsmi_zoo.pipeline.networks.forward import TensorInputs
from dsmi_zoo.pipeline.store.kept import KeptEmbedding, embedding

ENTRY = ModelEntry(model="mine", architecture="mine", builder="my_nets:build", img_size=8)
MODEL = "test_resnet.900x5"
OF_ONNX = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in exporting.ONNX),
    reason="needs pip install 'dsmi-zoo[onnx]'",
)
FORMATS = [pytest.param("onnx", marks=OF_ONNX), "pt2", "safetensors"]


class Mine(torch.nn.Module):
    """A network that is not timm's; ``is_awkward`` makes it branch on values, which no exporter can trace."""

    def __init__(self, is_awkward: bool = False) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.hidden = torch.nn.Linear(4, 6)
        self.last = torch.nn.Linear(6, 3)
        self.is_awkward = is_awkward

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of three classes."""
        maps = self.conv(images)
        if self.is_awkward and maps.sum() > 0:
            maps = -maps
        return self.last(self.hidden(maps.mean(dim=(2, 3))).relu())


def of_mine(layer: str | None, width: int, **settings: bool) -> tuple[Deployed, torch.Tensor]:
    torch.manual_seed(0)
    images = torch.rand(5, 3, 8, 8)
    weights = np.arange(2.0 * width).reshape(width, 2)
    network = Mine(**settings).eval()
    return Deployed(network, layer, weights, np.ones(2), images[:2]).eval(), images


@pytest.mark.long
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_exported_network_computes_the_embedding_of_the_run(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    file = tmp_path / f"network.{suffix}"
    assert convert(small_run, MODEL, file) == 0
    assert "file and run:     largest difference" in capsys.readouterr().out
    note = json.loads((tmp_path / f"network.{suffix}.json").read_text())
    assert note["classes"] == [str(digit) for digit in range(10)]
    assert note["transform"]["img_size"] == 32
    assert note["proof"]["file and run"]["predictions"] == 0
    assert note["proof"]["file and run"]["images"] == 200
    arguments = {"num_classes": 10}
    read = reader_of(file, "test_resnet", arguments)
    with torch.inference_mode():
        scores, values = read(torch.zeros(3, 3, 32, 32))
    assert scores.shape == (3, 10), "any number of images"
    assert values.shape == (3, embedding(small_run, MODEL).Z.shape[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, f"{file.name}.json"]


@pytest.mark.long
@pytest.mark.parametrize("part", ["network", "head"])
def test_a_sabotaged_export_is_caught_and_not_written(
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    info_log: pytest.LogCaptureFixture,
    part: str,
) -> None:
    def sabotaged(model: Deployed, *arguments: Any) -> None:
        other = copy.deepcopy(model)
        if part == "network":
            weight = next(other.network.parameters())
            weight.data *= 1.01
        else:
            other.head.weight.data = other.head.weight.data.roll(1, dims=0)
        write(other, *arguments)

    monkeypatch.setattr(exporting, "write", sabotaged)
    assert convert(small_run, MODEL, tmp_path / "network.safetensors") == 1
    assert "so it is not written" in info_log.text
    assert list(tmp_path.iterdir()) == []


def test_a_difference_passes_only_if_embedding_and_predictions_agree() -> None:
    rng = np.random.default_rng(0)
    Z, truth = rng.normal(size=(200, 8)), rng.integers(0, 2, 200)
    scores = np.eye(2)[truth]
    same = difference(Z, Z, scores, scores, truth, 1e-3)
    assert (same.embedding, same.predictions, same.mcnemar_p, same.passes) == (0, 0, 1, True)
    assert not difference(Z + 0.01, Z, scores, scores, truth, 1e-3).passes
    broken = np.where(np.arange(200)[:, None] == 3, np.nan, Z)
    assert not difference(broken, Z, scores, scores, truth, 1e-3).passes, "NaN is no agreement"
    wrong = scores.copy()
    wrong[:10] = 1 - wrong[:10]
    ten = difference(Z, Z, wrong, scores, truth, 1e-3)
    assert ten.predictions == 10
    assert ten.mcnemar_p == pytest.approx(2 * 0.5**10)
    assert not ten.passes
    with pytest.raises(InputError, match=r"an embedding \[200, 7\], not \[200, 8\]"):
        difference(Z[:, :7], Z, scores, scores, truth, 1e-3)


def test_the_head_is_the_probe_of_the_run_fitted_to_all_images() -> None:
    rng = np.random.default_rng(0)
    for n, d in ((60, 8), (20, 30)):
        labels = rng.permutation(np.arange(n) % 3)
        Z = (rng.normal(size=(n, d)) + 2 * labels[:, None] + 100).astype(np.float32)
        weights, intercepts = head_of(KeptEmbedding(Z, labels, np.arange(n).astype(str)))
        targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
        scatter = np.square(Z.astype(float) - Z.astype(float).mean(axis=0)).sum() / min(n, d)
        errors = []
        for penalty in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0):
            ridge = Ridge(alpha=penalty * scatter).fit(Z.astype(float), targets)
            errors.append(
                max(np.abs(ridge.coef_.T - weights).max(), abs(ridge.intercept_ - intercepts).max())
            )
        assert min(errors) < 1e-6, "one of the probe's penalties"


@pytest.mark.parametrize(("layer", "width"), [(None, 6), ("hidden", 6), ("conv", 4), (".", 3)])
def test_any_layer_of_any_network_is_deployed_as_the_run_embeds_it(
    layer: str | None, width: int, tmp_path: Path
) -> None:
    model, images = of_mine(layer, width)
    wanted = embed_inputs(
        Mine().eval(), TensorInputs(images), torch.device("cpu"), layer=layer
    ).values.shape
    with torch.inference_mode():
        scores, values = model(images)
    assert values.shape == wanted
    torch.manual_seed(0)
    torch.rand(5, 3, 8, 8)
    same = embed_inputs(Mine().eval(), TensorInputs(images), torch.device("cpu"), layer=layer)
    np.testing.assert_allclose(values.numpy(), same.values, rtol=1e-5, atol=1e-6)
    file = tmp_path / "mine.pt2"
    write(model, file, images[:2], {"é": 1}, ENTRY)
    found = reader_of(file, "mine", {})(images)
    np.testing.assert_allclose(found[0], scores.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], values.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_that_is_refused_is_one_line(tmp_path: Path, suffix: str) -> None:
    model, images = of_mine(None, 6, is_awkward=True)
    with pytest.raises(InputError) as refused:
        write(model, tmp_path / f"mine.{suffix}", images[:2], {}, ENTRY)
    line = str(refused.value)
    assert line.startswith("mine@8: ")
    assert "\n" not in line
    assert len(line) < 300
    if suffix == "safetensors":
        assert line.endswith("choose .onnx or .pt2")
    else:
        assert line.startswith(f"mine@8: cannot be exported as .{suffix} (")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (f"{MODEL} --to a.tflite", "--to a.tflite: the name must end in .onnx, .pt2, .safetensors"),
        (f"{MODEL} --to there.pt2", "--to there.pt2 exists; move it away, or choose another name"),
        ("resnet --to a.pt2", "run has no model 'resnet'"),
        ("test_vit.900x5 --to a.pt2", "the run dropped its embeddings"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    small_run: Path, tmp_path: Path, refused: Callable[[str, Path], str], arguments: str, line: str
) -> None:
    left_out = shutil.ignore_patterns("report", "test_vit-900x5*.npy")
    shutil.copytree(small_run, tmp_path / "run", ignore=left_out)
    (tmp_path / "there.pt2").touch()
    error = refused(f"convert {arguments} --out run", tmp_path)
    assert line in error
    assert error.count("\n") == 1


def test_a_missing_library_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(exporting, "ONNX", ("onnx_of_nobody",))
    with pytest.raises(InputError, match=r"needs onnx_of_nobody; pip install 'dsmi-zoo\[onnx\]'"):
        convert(tmp_path, "a", tmp_path / "a.onnx")


def test_of_very_many_images_evenly_spaced_ones_are_compared() -> None:
    assert list(_blocks(20)) == [(0, 8), (8, 16), (16, 20)]
    blocks = list(_blocks(50_000))
    assert sum(stop - start for start, stop in blocks) == PROOF_IMAGES
    assert (blocks[0][0], blocks[-1][1]) == (0, 50_000)
