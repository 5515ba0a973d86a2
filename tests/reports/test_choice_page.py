"""The page of a run on the user's own images: the winner first, what a budget left out, and how to load the best."""

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
from packed_parts import unpacked
from PIL import Image
from run_records import record_of
from test_reports_ranking import models, row

from dsmi_zoo import embedding
from dsmi_zoo.data_catalog.datasets.base import NOTHING_LEFT_OUT
from dsmi_zoo.data_catalog.datasets.class_order import ClassOrders, orders_by_name, with_open_order
from dsmi_zoo.data_catalog.models.entry import ModelEntry, Preprocessing
from dsmi_zoo.pipeline.measures.catalog import format_reasons
from dsmi_zoo.pipeline.networks.timm import loading_code
from dsmi_zoo.pipeline.store.record import NO_TIME, Dropped, RunRecord, SearchHistory, SearchStage
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run, rows_frame
from dsmi_zoo.pipeline.store.subset_file import write_subset
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.choice import is_choice, lead_of_choice, ranking_lead, ranking_table
from dsmi_zoo.reports.page.classes import quantity_of
from dsmi_zoo.reports.page.provenance import warnings_of_images
from dsmi_zoo.reports.statistics.comparison import compare
from dsmi_zoo.reports.statistics.ranking import images_to_separate, rank

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("without_drawing")]

PREPROCESSING = Preprocessing(
    crop_pct=0.95, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def on(dataset: str, search: SearchHistory | None = None) -> RunRecord:
    record = record_of()
    folder = Path("/home/me/some photos")
    subset = record.config.subset.model_copy(update={"dataset": dataset, "data_root": folder})
    config = record.config.model_copy(update={"subset": subset})
    catalog = record.catalog.model_copy(update={"name": "/home/me/zoo.csv"})
    images = record.subset.model_copy(
        update={"n_images": 200, "n_classes": 4, "n_largest_class": 60}
    )
    return record.model_copy(
        update={"config": config, "search": search, "catalog": catalog, "subset": images}
    )


def headline(rows: pd.DataFrame) -> str:
    """Return the first sentences of the page of these rows."""
    run = on("csv")
    return ranking_lead(rows, rank(rows, quantity_of(rows, run, None)), run)


def pair(*models: tuple[str, int, float | None]) -> pd.DataFrame:
    """Return rows of models given by name, number of hits (the first of 200 images) and parameters in millions."""
    hits = [np.arange(200) < count for _, count, _ in models]
    rows = [
        row(name, of_model, params_m=size)
        for (name, _, size), of_model in zip(models, hits, strict=True)
    ]
    return rows_frame(rows)


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
    assert "<h1>Which model suits “some photos”?</h1>" in page
    assert "<title>some photos: which model suits these images?</title>" in page
    assert "some photos · 200 images in 4 classes · 5 of 5 models measured" in " ".join(
        page.split()
    )
    assert summary["lead"].startswith("On some photos (200 images, 4 classes), choose net0: its ")
    assert page.index('id="ranking"') < page.index('id="correlations"')
    assert page.count('id="ranking"') == 1
    settings = json.loads(page.split('id="explorer-settings">')[1].split("</script>")[0])
    assert (settings["ranked"], settings["start"]) == ("y", ["throughput", "probe_accuracy"]), (
        "accuracy over its cost"
    )
    assert '"name":"LogScale"' in unpacked(page, "explorer-models")


def test_a_choice_page_compares_several_runs_and_no_values_of_other_images(tmp_path: Path) -> None:
    rows, run = models(), on("csv")
    others = run.model_copy(update={"subset": run.subset.model_copy(update={"hash": "f" * 64})})
    # On the other images the order is reversed.
    reversed_rows = rows.assign(
        probe_accuracy=rows["probe_accuracy"].to_numpy()[::-1],
        dsmi_z_y=rows["dsmi_z_y"].to_numpy()[::-1],
    )
    comparisons = [
        compare(rows, run, rows, run, "again"),
        compare(rows, run, reversed_rows, others, "<winter>"),
    ]
    page = write_page(rows, run, tmp_path, comparisons).read_text()
    again, winter = page.split('<h2 id="compared">')[1].split('<h2 id="compared_2">')
    winter = winter.split("</section>")[0]
    assert "net0 has the highest accuracy in both." in again
    assert "Median change" in again
    assert "<figure" in again
    words = " ".join(winter.split())
    assert "Compared with &lt;winter&gt;" in words
    assert "These are different images, so orders of models and correlations can be" in words
    assert "net0 has the highest accuracy here, net4 in &lt;winter&gt;;" in words
    assert "Median change" not in winter
    assert "<figure" not in winter
    assert 'href="#compared_2"' in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [one["is_same_images"] for one in summary["compared"]] == [True, False]
    assert {s["score"]: s["agreement"] for s in summary["compared"][1]["scores"]}[
        "probe_accuracy"
    ] == pytest.approx(-1)


@pytest.mark.parametrize("dataset", ["imagenet", "digits"])
def test_images_of_the_published_accuracies_get_the_page_of_correlations(
    dataset: str, tmp_path: Path
) -> None:
    page, _ = said(with_accuracies(), on(dataset), tmp_path)
    assert "<h1>How well do representation measures predict accuracy?</h1>" in page
    assert "<title>zoo.csv: representation measures and accuracy</title>" in page
    assert "/home/me" not in page.split('<nav aria-label="Sections">')[0]
    assert page.index('id="correlations"') < page.index('id="ranking"')


def test_a_ranker_that_looks_at_no_image_says_what_it_would_have_taken(tmp_path: Path) -> None:
    page, _ = said(with_accuracies(), on("csv"), tmp_path / "other")
    accuracy = rank(with_accuracies()).models[4].accuracy
    assert "By published top-1 accuracy alone, one would choose net4, which has " in page
    assert f"{accuracy:.1f}% here" in page
    assert "Baseline: always naming the largest class is right for 30.0%." in page


def test_no_model_is_praised_for_its_size_alone() -> None:
    rows = models().assign(top1=np.nan, gmacs=[1.0, 2.0, 3.0, 4.0, 9.0], params_m=5.0)
    sentences = lead_of_choice(rows, rank(rows), on("csv"), ())
    assert "one would choose" not in " ".join(sentences)


def test_tied_models_are_answered_with_the_smallest_and_what_would_separate_them() -> None:
    lead = headline(pair(("b1", 196, 5.4), ("b0", 193, 4.7)))
    more = (images_to_separate(3, 0, 200) - 200) / 4
    assert lead == (
        "On some photos (200 images, 4 classes), the 2 models cannot be told apart by their probe accuracies: "
        "b1 (98.0%) and b0 (96.5%). The smallest of them is b0. "
        f"About {float(f'{more:.2g}'):,.0f} more images per class would separate them."
    )
    lead = headline(pair(("b1", 199, 5.4), ("b2", 199, 6.1), ("b0", 199, 4.7), ("weak", 90, 1.0)))
    assert "3 of 4 models cannot be told apart" in lead
    assert "highest" not in lead
    assert "The smallest of them is b0. All are right on the same images" in lead
    equal = pair(("b1", 196, 5.4), ("b2", 196, 6.1), ("b0", 193, 4.7))
    assert "would separate the 2 best, which are equally accurate, from the others." in headline(
        equal
    )
    lead = headline(pair(("b1", 199, None), ("b0", 198, 4.7)))
    assert "smallest" not in lead, "the size of the other is unknown"


def test_models_no_better_than_the_largest_class_are_not_recommended() -> None:
    lead = headline(pair(("b1", 66, 5.4), ("b0", 64, 4.7)))
    assert lead.startswith(
        "On some photos (200 images, 4 classes), none of 2 models is shown to be better than always naming the "
        "largest class, 30.0%: the probe accuracy of the best, b1, is 33.0%"
    )
    assert "smallest" not in lead


def test_own_images_have_the_choice_page_without_any_accuracy_and_its_reasons(
    tmp_path: Path,
) -> None:
    reason = "class stray has one image (x.png), an accuracy needs two images of each class"
    rows = with_accuracies().assign(
        probe_accuracy=np.nan,
        probe_hits=None,
        undefined_scores=format_reasons({"probe_accuracy": reason, "gbc": "too few"}),
    )
    page, summary = said(rows, on("imagefolder"), tmp_path / "single")
    assert "<h1>Which model suits “some photos”?</h1>" in page
    assert (
        f"no model can be ranked, because no probe accuracy has a value: {reason}."
        in summary["lead"]
    )
    table = " ".join(page.split('id="undefined"')[1].split("</section>")[0].split())
    assert f"{reason}</th><td>5</td>" in table
    assert 'too few</th><td>5</td><td class="l message">gbc' in table
    failed = rows.assign(status="failed", error_type="OSError", error_message="gone")
    assert "none of 5 models was measured" in headline(failed)
    assert is_choice(on("imagefolder"), rank(failed), ())


def test_no_title_holds_a_path_of_this_machine(tmp_path: Path) -> None:
    named = on("csv")
    subset = named.config.subset.model_copy(update={"name": "Cats & <dogs>"})
    named = named.model_copy(update={"config": named.config.model_copy(update={"subset": subset})})
    page, summary = said(with_accuracies(), named, tmp_path / "named")
    assert "<h1>Which model suits “Cats &amp; &lt;dogs&gt;”?</h1>" in page
    assert "/home/me" not in page.split('<nav aria-label="Sections">')[0]
    assert summary["lead"].startswith("On Cats & <dogs> (200 images")
    assert named.config.identity() == on("csv").config.identity()


def test_a_budget_that_was_too_short_is_said_before_the_winner(tmp_path: Path) -> None:
    gone = Dropped(model="weak@224", accuracy=20.0, low=10.0, high=30.0, reason="below")
    stage = SearchStage(images=50, models=6, seconds=3.0, dropped=[gone])
    search = SearchHistory(budget_s=60, left_out=["big@448", "bigger@448"], stages=[stage])
    page, summary = said(with_accuracies(), on("csv", search), tmp_path)
    assert summary["lead"].startswith(
        "The budget was too short to say which model suits best: 2 of 8 were not tried"
    )
    assert "1 more model was dropped after fewer images." in page
    assert "5 of 5 models measured, 1 dropped by the search, 2 not tried" in " ".join(page.split())


def test_the_page_says_how_likely_the_best_was_dropped_and_what_that_costs(tmp_path: Path) -> None:
    gone = Dropped(model="weak@224", accuracy=20.0, low=10.0, high=30.0, reason="clearly worse")
    late = Dropped(model="slow@224", reason=NO_TIME)
    counts = {"contenders": 6, "contenders_alone": 4}
    stage = SearchStage(images=50, models=7, seconds=3.0, dropped=[gone, late], **counts)
    search = SearchHistory(budget_s=60, stages=[stage], metric="accuracy", error_rate=5.0)
    page, _ = said(with_accuracies(), on("csv", search), tmp_path / "new")
    page = page.replace("&#39;", "'")
    assert (
        "as good as the best on all images, by accuracy, was dropped as clearly worse is at most 5%"
        in page
    )
    assert (
        "after 50 images 6 were left, with a test at 5% in each stage it would have been 4" in page
    )
    assert "1 model dropped for lack of time is not covered" in page
    before = {"budget_s": 60, "stages": [{"images": 50, "models": 7, "seconds": 3.0}]}
    old = SearchHistory.model_validate(before)
    assert (old.metric, old.error_rate, old.stages[0].contenders) == (None, None, None)
    page, _ = said(with_accuracies(), on("csv", old), tmp_path / "old")
    assert "7 models on 50 images" in page
    assert "at most 5%, over all stages" not in page


def test_balanced_accuracy_without_the_list_of_images_is_said_and_not_guessed(
    tmp_path: Path,
) -> None:
    run = on("csv")
    run = run.model_copy(
        update={"config": run.config.model_copy(update={"metric": "balanced_accuracy"})}
    )
    page, summary = said(with_accuracies(), run, tmp_path)
    assert "Models are ranked by accuracy: balanced accuracy needs subset.parquet" in page
    assert summary["metric"] == "accuracy"
    n = np.arange(200)
    table = pd.DataFrame({"image": [f"{i}.png" for i in n], "label": n % 2, "number": n})
    table = table.assign(repeat=0, input_cluster=0)
    write_subset(tmp_path, table)
    rows = with_accuracies()
    ranking = rank(rows, quantity_of(rows, run, tmp_path))
    assert ranking_table(ranking, rows)["head"] == "Balanced probe (%; largest class: 25.0)"
    assert "its balanced probe accuracy, " in ranking_lead(rows, ranking, run)


def test_those_tied_with_the_best_are_named_with_costs_and_loading_code(tmp_path: Path) -> None:
    rows = with_accuracies(
        params_m=25.6, loading_code="import timm\nmodel = timm.create_model('<net>')"
    )
    # The same hits: no difference at all.
    rows["probe_hits"] = rows.loc[rows["model"] == "net0", "probe_hits"].iloc[0]
    page, summary = said(rows, on("csv"), tmp_path)
    assert "the 5 models cannot be told apart" in summary["lead"]
    assert page.count("<summary>Load net") == 5
    assert "timm.create_model(&#39;&lt;net&gt;&#39;)" in page
    assert "Parameters (M)" in page


def test_an_open_order_is_said_where_an_accuracy_is_empty_for_it() -> None:
    names = ("1", "10", "2")
    account = with_open_order(
        NOTHING_LEFT_OUT, ClassOrders(names, orders_by_name(names), is_open=True)
    )
    images, rows = on("csv").subset.model_copy(update={"account": account}), with_accuracies()
    assert warnings_of_images(images, rows) == []
    rows["undefined_scores"] = (
        "subset_top1: class order is ambiguous (90.0% if outputs are ordered by number): --class-order decides"
    )
    (warning,) = warnings_of_images(images, rows)
    assert "subset_top1 is left empty where it depends on the order of the classes" in warning


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
            {"checkpoint": "/somewhere/w/mine.pth", "checkpoint_in_catalog": "w/mine.pth"},
            "# a path relative to the folder of the catalogue model = timm.create_model('test_vit', "
            "checkpoint_path='w/mine.pth')",
        ),
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
    (tmp_path / "weights").mkdir()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights" / "mine.safetensors")
    (tmp_path / "zoo.csv").write_text(
        "model,architecture,checkpoint,model_kwargs,img_size\n"
        'mine,test_vit,weights/mine.safetensors,"{""num_classes"": 4}",128\n'
    )
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = generator.integers(0, 256, (150, 200, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "stray").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "photos" / "stray" / "x.png")
    said = cli("run", "--catalog", "zoo.csv", "--data-root", "photos", "--out", "out", cwd=tmp_path)
    (row,) = read_results(tmp_path / "out").to_dict("records")
    assert (row["dataset"], row["n_samples"], row["n_classes"]) == ("imagefolder", 6, 2)
    assert row["probe_hits"] is not None
    left_out = "7 found = 6 images used + 1 left out: 1 alone in a class (stray/x.png)"
    assert left_out in said.stdout + said.stderr
    recorded = read_run(tmp_path / "out").subset
    assert (recorded.n_images, recorded.n_largest_class) == (6, 3)
    assert recorded.classes == ("cat", "dog")
    kept = embedding(tmp_path / "out", "mine")
    assert kept.files.tolist() == [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
    assert kept.labels.tolist() == [0, 0, 0, 1, 1, 1]
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(row["loading_code"], made)  # the code that users are given
    images = [
        Image.open(path).convert("RGB")
        for path in sorted((tmp_path / "photos").glob("[cd]*/*.png"))
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
    assert "one worker's forward passes (cpu)" in " ".join(page.replace("&#39;", "'").split())
    for speed in ("2,000", "1,000", "500", "250", "125"):
        assert f"<td>{speed}</td>" in page
