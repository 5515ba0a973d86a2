"""The page of a run on images of one's own: the winner first, what a budget left out, and how to load the best."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
from conftest import Command
from PIL import Image
from run_records import record_of
from test_reports_ranking import models

from dsmi_zoo import embedding
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.pipeline.networks.timm import loading_code
from dsmi_zoo.pipeline.store.record import Dropped, Passed, RunRecord, SearchNote
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.statistics.ranking import rank

pytestmark = pytest.mark.long

PREPROCESSING = Preprocessing(
    crop_pct=0.95, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def on(dataset: str, search: SearchNote | None = None) -> RunRecord:
    record = record_of()
    subset = record.config.subset.model_copy(update={"dataset": dataset})
    return record.model_copy(
        update={"config": record.config.model_copy(update={"subset": subset}), "search": search}
    )


def with_accuracies(**columns: Any) -> pd.DataFrame:
    rows = models()
    return rows.assign(top1=rows["model"].map({f"net{i}": 70.0 + i for i in range(5)}), **columns)


def said(rows: pd.DataFrame, run: RunRecord, folder: Path) -> tuple[str, dict[str, Any]]:
    page = write_page(rows, run, folder).read_text()
    return page, json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("dataset", ["imagefolder", "csv", "timm:hfds/owner/pets"])
def test_images_of_ones_own_get_the_choice_page_whatever_the_catalogue_knows(
    dataset: str, tmp_path: Path
) -> None:
    page, summary = said(with_accuracies(), on(dataset), tmp_path)
    assert "<h1>Which model suits these images?</h1>" in page
    assert summary["lead"].startswith("Of 5 models, net0 at 224 pixels has the highest")
    assert page.index('id="ranking"') < page.index('id="correlations"')
    assert page.count('id="ranking"') == 1
    settings = json.loads(page.split('id="explorer-settings">')[1].split("</script>")[0])
    assert (settings["ranked"], settings["start"]) == ("y", ["throughput", "probe_accuracy"]), (
        "accuracy over its cost"
    )
    assert '"name":"LogScale"' in page


@pytest.mark.parametrize("dataset", ["imagenet", "digits"])
def test_images_of_the_published_accuracies_get_the_page_of_correlations(
    dataset: str, tmp_path: Path
) -> None:
    page, _ = said(with_accuracies(), on(dataset), tmp_path)
    assert "<h1>How well do representation measures predict accuracy?</h1>" in page
    assert page.index('id="correlations"') < page.index('id="ranking"')


def test_a_ranker_that_looks_at_no_image_says_what_it_would_have_taken(tmp_path: Path) -> None:
    page, _ = said(with_accuracies(), on("csv"), tmp_path / "other")
    accuracy = rank(with_accuracies()).models[4].accuracy
    assert (
        "By published top-1 accuracy alone, without looking at these images, one would choose net4, which has "
        in page
    )
    assert f"{accuracy:.1f}% here" in page
    gmacs = models().assign(gmacs=[1.0, 2.0, 3.0, 4.0, 9.0])
    gmacs["gmacs"] = gmacs["model"].map({f"net{i}": 9.0 - i for i in range(5)})
    page, _ = said(gmacs, on("csv"), tmp_path / "same")
    assert (
        "By GMACs alone, without looking at these images, one would choose the same model." in page
    )


def test_a_budget_that_was_too_short_is_said_before_the_winner(tmp_path: Path) -> None:
    gone = Dropped(model="weak@224", accuracy=20.0, low=10.0, high=30.0, reason="below")
    stage = Passed(images=50, models=6, seconds=3.0, dropped=[gone])
    search = SearchNote(budget_s=60, left_out=["big@448", "bigger@448"], stages=[stage])
    page, summary = said(with_accuracies(), on("csv", search), tmp_path)
    assert summary["lead"].startswith(
        "The budget was too short to say which model suits best: 2 of 8 were not tried"
    )
    assert "1 more model was dropped after fewer images." in page
    assert "5 of 5 models measured, 1 dropped by the search, 2 not tried" in " ".join(page.split())


def test_those_tied_with_the_best_are_named_with_costs_and_loading_code(tmp_path: Path) -> None:
    rows = with_accuracies(
        params_m=25.6, loading_code="import timm\nmodel = timm.create_model('<net>')"
    )
    # The same hits: no difference at all.
    rows["probe_hits"] = rows.loc[rows["model"] == "net0", "probe_hits"].iloc[0]
    page, summary = said(rows, on("csv"), tmp_path)
    assert "net1, net2, net3 and 1 more are tied with it" in summary["lead"]
    assert page.count("<summary>Load net") == 5
    assert "timm.create_model(&#39;&lt;net&gt;&#39;)" in page
    assert "Parameters (M)" in page


def test_a_trial_with_random_weights_promises_no_choice(tmp_path: Path) -> None:
    run = on("csv")
    run = run.model_copy(update={"config": run.config.model_copy(update={"random_weights": True})})
    page, _ = said(models(), run, tmp_path)
    assert "A dry run with untrained weights" in page
    assert "Which model suits" not in page


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"weights": "timm/test_vit"}, "timm.create_model('test_vit', pretrained=True).eval()"),
        ({"weights": "owner/other"}, "pretrained_cfg_overlay={'hf_hub_id': 'owner/other'}"),
        (
            {"weights": "https://a.b/w.pth"},
            "pretrained_cfg_overlay={'url': 'https://a.b/w.pth', 'hf_hub_id': None}",
        ),
        ({"checkpoint": "/somewhere/mine.pth"}, "checkpoint_path='mine.pth'"),
        (
            {"model_kwargs": {"num_classes": 3, "no name": 1}},
            "num_classes=3, pretrained=True, **{'no name': 1}",
        ),
        ({"img_size": 192}, "img_size=192, pretrained=True"),
    ],
)
def test_the_code_names_the_weights_that_were_measured(
    entry: dict[str, Any], expected: str
) -> None:
    given = {
        "model": "m",
        "architecture": "test_vit",
        "img_size": 160,
        "preprocessing": PREPROCESSING,
        **entry,
    }
    code = loading_code(ModelEntry.model_validate(given))
    assert code is not None
    assert expected in " ".join(code.split()).replace("( ", "(").replace(", )", ")")
    compile(code, "code", "exec")


def test_the_code_of_a_row_gives_the_embedding_of_the_row(
    tmp_path: Path, cli: Command, monkeypatch: Any
) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=4, img_size=128)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "mine.safetensors")
    (tmp_path / "zoo.csv").write_text(
        "model,architecture,checkpoint,model_kwargs,img_size\n"
        'mine,test_vit,mine.safetensors,"{""num_classes"": 4}",128\n'
    )
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = generator.integers(0, 256, (150, 200, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    cli("run", "--catalog", "zoo.csv", "--data-root", "photos", "--out", "out", cwd=tmp_path)
    (row,) = read_results(tmp_path / "out").to_dict("records")
    assert row["dataset"] == "imagefolder"
    assert read_run(tmp_path / "out").subset.classes == ("cat", "dog")
    kept = embedding(tmp_path / "out", "mine")
    assert kept.files.tolist() == [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
    assert kept.labels.tolist() == [0, 0, 0, 1, 1, 1]
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(row["loading_code"], made)  # what users are told to run
    images = [
        Image.open(path).convert("RGB") for path in sorted((tmp_path / "photos").rglob("*.png"))
    ]
    with torch.inference_mode():
        batch = torch.stack([made["transform"](image) for image in images])
        found = made["model"].forward_head(made["model"].forward_features(batch), pre_logits=True)
    np.testing.assert_allclose(found.numpy(), kept.Z, rtol=1e-3, atol=1e-4)


def test_the_page_shows_the_speed_that_was_measured_beside_the_published_one(
    tmp_path: Path,
) -> None:
    rows = with_accuracies(seconds_embed=[0.5, 1, 2, 4, 8], n_samples=1000, device="cpu")
    page, _ = said(rows, on("imagefolder"), tmp_path)
    assert page.count("Measured here (images/s)") == 2, "of the winners, and of all"
    assert "one worker's forward passes (cpu)" in page.replace("&#39;", "'")
    for speed in ("2,000", "1,000", "500", "250", "125"):
        assert f"<td>{speed}</td>" in page
