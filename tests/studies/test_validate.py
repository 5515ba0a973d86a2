"""``dsmi-zoo validate`` at a reduced size: simulated data, real trainings, and checkpoints in ordinary runs."""

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from torchvision import datasets

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.data_catalog.models.registry import PREPROCESSING
from dsmi_zoo.jobs.tools import validate as validate_module
from dsmi_zoo.jobs.tools.validate import Validation, validate
from dsmi_zoo.pipeline.config.run import ComputeSettings
from dsmi_zoo.pipeline.embedding.train import descend
from dsmi_zoo.pipeline.embedding.views import part_view
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.studies.simulation import Cell, compute_cell, read_cells
from dsmi_zoo.pipeline.studies.trajectory import Trajectory, contrastive, train_trajectory

pytestmark = pytest.mark.long

ANSWERS = {"holds", "does not hold here", "cannot tell"}


@pytest.fixture(scope="module")
def validated(cli: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "validate"
    done = cli("validate", "--small", "--out", out, "--workers", 1)
    return out, done.stdout


@pytest.mark.slow
def test_every_claim_gets_one_of_three_answers_with_its_statistic_and_seeds(
    validated: tuple[Path, str],
) -> None:
    out, said = validated
    claims = json.loads((out / "report" / "summary.json").read_text())["claims"]
    assert len(claims) == 22
    for claim in claims:
        assert {"claim", "answer", "statistic", "p", "seeds"} <= set(claim)
        assert claim["answer"] in ANSWERS
        assert claim["seeds"] == 2
        assert f"{claim['answer']:<18} {claim['claim']}" in said
    page = (out / "report" / "index.html").read_text()
    for part in ("claims", "simulated", "dynamics", "initialisation"):
        assert f'id="{part}"' in page
    assert "Of reduced size" in page
    assert "<script" not in page
    assert all(path.stat().st_size < 400_000 for path in (out / "report" / "figures").iterdir())


@pytest.mark.slow
def test_checkpoints_are_rows_of_ordinary_runs(validated: tuple[Path, str]) -> None:
    out, _ = validated
    rows = read_results(out / "dynamics-digits")
    assert sorted(rows["epoch"].unique()) == [0, 1, 2]
    assert set(rows["group"]) == {"supervised", "contrastive", "shuffled labels"}
    assert rows["status"].eq("ok").all()
    assert rows.loc[rows["group"] == "contrastive", "top1"].isna().all()
    before = rows[rows["epoch"] == 0].groupby("training_seed")["dse_z"].nunique()
    assert before.tolist() == [1, 1], "all regimes begin with the same network"
    states = read_results(out / "initialisation")
    assert set(states["convolution_std"]) == {0.01, 0.1}


@pytest.mark.slow
def test_what_is_finished_is_not_computed_again_and_what_is_lost_is(
    validated: tuple[Path, str], cli: Command
) -> None:
    out, _ = validated
    kept, lost = sorted((out / "simulated" / "cells").glob("*.parquet"))[:2]
    made = kept.stat().st_mtime_ns
    lost.unlink()
    before = json.loads((out / "report" / "summary.json").read_text())["claims"]
    done = cli("validate", "--small", "--out", out, "--study", "simulated", "--workers", 1)
    assert "23 of 24 data sets are done already" in done.stdout
    assert kept.stat().st_mtime_ns == made
    assert lost.exists()
    after = json.loads((out / "report" / "summary.json").read_text())["claims"]
    assert [claim["answer"] for claim in after] == [claim["answer"] for claim in before]
    assert after[0] == before[0]


def test_a_study_without_its_library_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate_module, "find_spec", lambda name: None)
    study = Validation(tmp_path / "out", ComputeSettings(), datasets=("digits",))
    with pytest.raises(InputError, match=r"pip install 'dsmi-zoo\[studies\]'"):
        validate(study, ["dynamics"])
    assert not (tmp_path / "out").exists()


def test_the_driver_leaves_torch_to_the_workers() -> None:
    code = (
        "import sys, dsmi_zoo.jobs.tools.validate, dsmi_zoo.reports.studies.validation; "
        "import dsmi_zoo.pipeline.engine.graph; "
        "from dsmi_zoo.pipeline.studies.trajectory import TrainingStudy; TrainingStudy().dynamics('digits'); "
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_cell_is_the_same_whoever_computes_it(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        cell = Cell("labels", 30, 0.1, 0, points=60, mine_steps=5, out=tmp_path / name)
        assert compute_cell(cell).ok
        found.append(read_cells([cell]).drop(columns="seconds"))
    assert found[0].equals(found[1])
    assert found[0]["truth"].is_monotonic_decreasing


def trajectory(**given: object) -> Trajectory:
    fixed = {
        "dataset": "digits", "architecture": "test_resnet", "train_images": 60, "epochs": 2, "batch_size": 20,
        "learning_rate": 2e-3, "weight_decay": 0.01, "seed": 1, "checkpoints": (0, 1, 2),
    }  # fmt: skip
    return Trajectory.model_validate(fixed | given)


@pytest.mark.parametrize("regime", ["supervised", "contrastive", "shuffled labels"])
def test_an_interrupted_training_comes_to_the_same_checkpoints(tmp_path: Path, regime: str) -> None:
    recipe = trajectory(regime=regime)
    train_trajectory(recipe, tmp_path, None)
    assert recipe.is_done(tmp_path)
    paths = [recipe.checkpoint(tmp_path, epoch) for epoch in recipe.checkpoints]
    whole = [path.read_bytes() for path in paths]
    assert len(set(whole)) == 3
    paths[2].unlink()
    assert not recipe.is_done(tmp_path)
    torch.manual_seed(7)
    train_trajectory(recipe, tmp_path, None)
    assert [path.read_bytes() for path in paths] == whole


def nt_xent(projected: torch.Tensor) -> float:
    """Return the loss of Chen et al., equation 1, of two views [2n, p], computed from its definition."""
    n = len(projected) // 2
    unit = torch.nn.functional.normalize(projected.double(), dim=1)
    alike = (unit @ unit.T / 0.5).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n).roll(n)
    return float((torch.logsumexp(alike, dim=1) - alike[torch.arange(2 * n), partner]).mean())


def test_contrastive_training_brings_two_views_of_an_image_together(tmp_path: Path) -> None:
    import timm

    view, _ = part_view(tmp_path, "digits", None, "train", 32, PREPROCESSING)
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    trained, loss_of = contrastive(model, torch.from_numpy(np.array(view[:16])), PREPROCESSING)
    projections: list[torch.Tensor] = []
    trained[1].register_forward_hook(
        lambda module, inputs, output: projections.append(output.detach())
    )

    def of_the_same_views(_: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return loss_of(torch.arange(16))

    model.train()
    before = float(of_the_same_views(torch.arange(16)).detach())
    assert before == pytest.approx(nt_xent(projections[0]), rel=1e-4)
    # On fixed views any optimiser lowers the loss, however a processor's rounding affects its path.
    descend(trained, trajectory(epochs=15, batch_size=16), 16, of_the_same_views)
    after = float(of_the_same_views(torch.arange(16)).detach())
    assert after == pytest.approx(nt_xent(projections[-1]), rel=1e-4)
    assert after < before - 0.3


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_the_parts_of_a_trainable_set_are_disjoint_and_stratified(name: str) -> None:
    parts = [open_dataset(name, part=part) for part in ("train", "test", "validation")]  # type: ignore[arg-type]
    names = [set(part.names) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert all(len(np.unique(part.labels)) == 10 for part in parts)
    assert sum(map(len, names)) == {"digits": 1797, "photos": 2080}[name]


def write_mnist(root: Path) -> None:
    """Write scikit-learn's digits in the format of MNIST's files."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = open_dataset("digits", part=part)  # type: ignore[arg-type]
        pixels = np.pad(images.pixels, ((0, 0), (10, 10), (10, 10)))  # type: ignore[attr-defined]
        head = np.array([2051, *pixels.shape], dtype=">i4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([2049, len(pixels)], dtype=">i4").tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            head + images.labels.astype(np.uint8).tobytes()
        )


def test_mnist_is_read_as_torchvision_keeps_it(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    train = open_dataset("mnist", tmp_path, "train")
    test, validation = (open_dataset("mnist", tmp_path, part) for part in ("test", "validation"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(train.labels, open_dataset("digits", part="train").labels)
    assert np.asarray(train.image(0)).shape == (28, 28, 3)
    digit = np.asarray(open_dataset("digits", part="train").image(5))
    np.testing.assert_array_equal(np.asarray(train.image(5))[10:18, 10:18], digit)
    assert not set(test.names) & set(validation.names)
    assert len(test.names) + len(validation.names) == 450
    assert train.classifier_width == 10


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write random images in the format of CIFAR-10's files, and make torchvision's hash checks accept them."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    labels = [i % 10 for i in range(60)]
    content = {"data": pixels.transpose(0, 3, 1, 2).reshape(60, -1), "labels": labels}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(content))
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    md5 = hashlib.md5(meta, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5}
    )
    return pixels


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Do the same for STL-10."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{part}_y.bin").write_bytes((np.arange(60) % 10 + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    return pixels


@pytest.mark.parametrize(("name", "write"), [("cifar10", write_cifar10), ("stl10", write_stl10)])
def test_colour_sets_are_read_as_torchvision_keeps_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path, pytest.MonkeyPatch], np.ndarray],
) -> None:
    pixels = write(tmp_path, monkeypatch)
    test = open_dataset(name, tmp_path, "test")
    number = int(test.names[3].removeprefix(f"{name}-"))
    np.testing.assert_array_equal(np.asarray(test.image(3)), pixels[number])
    assert test.labels[3] == number % 10
    assert test.class_names[number % 10].startswith("class")
    assert len(test.names) == len(open_dataset(name, tmp_path).names) == 30
