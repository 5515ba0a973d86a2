"""Published ImageNet weights on real photographs: the whole path from image files to rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Command
from real_weights import LITE, crops, lite_weights, photograph

from dsmi_zoo.data_catalog.datasets.folders import ImageFiles
from dsmi_zoo.data_catalog.datasets.imagenet import synsets
from dsmi_zoo.data_catalog.datasets.subset import select_subset
from dsmi_zoo.data_catalog.models.entry import ModelEntry
from dsmi_zoo.pipeline.embedding.embed import embed
from dsmi_zoo.pipeline.embedding.views import make_view, open_view
from dsmi_zoo.pipeline.networks.timm import build_model, with_timm_defaults
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

ESPRESSO, TRIPOD, EGYPTIAN_CAT, MOPED = 967, 872, 285, 665
CATS = {281, 282, 285}
PHOTOGRAPHS = {"coffee": ESPRESSO, "camera": TRIPOD, "chelsea": EGYPTIAN_CAT, "motorcycle": MOPED}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    lines = ["model,architecture,checkpoint"]
    for number in LITE:
        lines.append(
            f"lite{number},tf_efficientnet_lite{number},{lite_weights(number, folder).name}"
        )
    (folder / "lite.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 32 crops of four photographs."""
    return validation_images(tmp_path_factory.mktemp("imagenet"), 8)


def validation_images(root: Path, of_each: int) -> Path:
    """Write crops of the photographs into synset folders, in the layout of ImageNet's validation images."""
    for name, label in PHOTOGRAPHS.items():
        crops(name, of_each, root / synsets()[label])
    return root


def test_published_weights_see_what_is_in_the_photographs(weights: Path, tmp_path: Path) -> None:
    names = ("coffee", "camera", "chelsea")
    for name in names:
        photograph(name).save(tmp_path / f"{name}.png")
    images = ImageFiles(
        "photographs", tmp_path, tuple(f"{n}.png" for n in names), np.array([0, 1, 2]), {}
    )
    (entry,) = with_timm_defaults(
        [ModelEntry(model="m", architecture="tf_efficientnet_lite0", checkpoint=weights)]
    )
    assert entry.img_size == 224
    assert entry.preprocessing is not None
    view = make_view(
        tmp_path / "view.npy", select_subset(images), entry.img_size, entry.preprocessing
    )
    model = build_model(entry, weights / "lite0.safetensors")
    embedding = embed(model, open_view(view), entry.preprocessing, torch.device("cpu"), 2)
    assert embedding.predictions is not None
    assert embedding.predictions[:2].tolist() == [ESPRESSO, TRIPOD]
    assert embedding.predictions[2] in CATS
    assert embedding.values.shape == (3, 1280)


@pytest.fixture(scope="module")
def standard_run(
    weights: Path, validation: Path, cli: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run") / "standard"
    data = ["--dataset", "imagenet", "--data-root", validation]
    cli("run", "--catalog", weights / "lite.csv", "--models", "lite0", "lite1", *data, "--out", out)
    return out


def test_a_run_over_published_weights_gives_good_rows_with_their_own_accuracy(
    standard_run: Path,
) -> None:
    rows = read_results(standard_run).set_index("model")
    assert (rows["status"] == "ok").all()
    assert rows.index.tolist() == ["lite0", "lite1"]
    assert (rows["embedding_dim"] == 1280).all()
    assert (rows["n_samples"] == 32).all()
    assert (rows["n_classes"] == 4).all()
    assert rows["img_size"].tolist() == [LITE[0], LITE[1]]
    assert (rows["subset_top1"] > 50).all()
    assert (rows["dsmi_z_y"] > rows["dsmi_z_y_null"] + 0.1).all()
    assert rows["dsmi_z_x"].notna().all()
    assert read_run(standard_run).subset.n_classes == 4


def test_the_papers_protocol_embeds_three_crops_of_every_image(
    weights: Path, cli: Command, tmp_path: Path
) -> None:
    few = validation_images(tmp_path / "imagenet", 4)
    data = ["--dataset", "imagenet", "--data-root", few, "--protocol", "paper"]
    arguments = ["run", "--catalog", weights / "lite.csv", "--models", "lite0", *data]
    cli(*arguments, "--out", tmp_path / "a")
    row = read_results(tmp_path / "a").iloc[0]
    assert (row["status"], row["n_samples"], row["n_classes"]) == ("ok", 48, 4)
    subset = pd.read_parquet(tmp_path / "a" / "subset.parquet")
    assert subset["repeat"].tolist()[:4] == [0, 1, 2, 0]
    assert np.load(tmp_path / "a" / "input_clusters" / "224.npy").shape == (48,)
    cli("remeasure", "--out", tmp_path / "a", "--into", tmp_path / "b", "--repetitions", 6)
    again = read_results(tmp_path / "b").iloc[0]
    assert again["dsmi_z_x"] == pytest.approx(row["dsmi_z_x"], abs=0.2)
    refused = cli(*arguments[:-2], "--repeats", 3, "--out", tmp_path / "c", code=2)
    assert "repeats" in refused.stderr


def test_a_labelled_folder_of_ones_own_needs_no_published_accuracy(
    weights: Path, cli: Command, tmp_path: Path
) -> None:
    for name in ("coffee", "camera"):
        crops(name, 5, tmp_path / "mine" / name)
    arguments = [
        "run",
        "--catalog",
        weights / "lite.csv",
        "--models",
        "lite0",
        "--dataset",
        "imagefolder",
    ]
    cli(*arguments, "--data-root", tmp_path / "mine", "--out", tmp_path / "out")
    row = read_results(tmp_path / "out").iloc[0]
    assert (row["status"], row["n_samples"], row["dataset"]) == ("ok", 10, "imagefolder")
    assert np.isnan(row["subset_top1"])
    (tmp_path / "mine" / "coffee" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    refused = cli(*arguments, "--data-root", tmp_path / "mine", "--out", tmp_path / "other", code=2)
    assert "coffee/bad.jpg" in refused.stderr
    assert "--skip-bad-images" in refused.stderr
    cli(
        *arguments,
        "--data-root",
        tmp_path / "mine",
        "--out",
        tmp_path / "skipped",
        "--skip-bad-images",
    )
    assert read_results(tmp_path / "skipped").iloc[0]["n_samples"] == 10
