"""Rows of layers in the report: they give profiles over depth and do not count as models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_records import record_of

from dsmi_zoo.pipeline.measures.core.hits import pack_hits
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.statistics.layers import GRID, depths, of_family
from dsmi_zoo.reports.statistics.ranking import rank
from dsmi_zoo.reports.statistics.sample import further_layers, one_row_per_weights, own_rows
from dsmi_zoo.reports.statistics.summary import summarise

IMAGES = 400


def row(model: str, layer: str | None, right: int, **fields: Any) -> dict[str, Any]:
    """Return a row whose probe is right on the first ``right`` images of a random order that all rows share."""
    hits = np.random.default_rng(5).permutation(IMAGES) < right
    name = model if layer is None else f"{model}:{layer}"
    return {
        "model": name, "layer": layer, "network_id": model, "embedding_id": name, "row_id": name, "img_size": 32,
        "status": "ok", "own_measures": "", "versions": "{}", "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
        "architecture": model, "family": model[0], "n_samples": IMAGES, "n_classes": 10, "embedding_dim": 8,
        "top1": 60.0 + right / 20, "dse_z": 1 + right / 100, "dsmi_z_y": right / IMAGES, "neighbour_accuracy": 50.0,
        "probe_accuracy": 100 * right / IMAGES, "probe_low": 1.0, "probe_high": 99.0, "probe_hits": pack_hits(hits),
    } | fields  # fmt: skip


def zoo() -> pd.DataFrame:
    """Return three models: the middle of `a1` is far better than its end, `a2` is best at its end, `b` has one row."""
    rows = [
        row("a1", None, 200),
        row("a1", "early", 100, layer_depth=0.25),
        row("a1", "middle", 320, layer_depth=0.5),
        row("a2", None, 260),
        row("a2", "early", 120, layer_depth=0.2),
        row("a2", "late", 250, layer_depth=0.8),
        row("b", None, 240),
    ]
    return rows_frame(rows)


def test_further_layers_are_no_models_in_statistics_and_rankings() -> None:
    rows = zoo()
    assert own_rows(rows)["model"].tolist() == ["a1", "a2", "b"]
    assert one_row_per_weights(rows)["model"].tolist() == ["a1", "a2", "b"]
    assert [one.model for one in rank(rows).models] == ["a2", "b", "a1"]
    assert summarise(rows).sample == 3
    assert summarise(rows).models == {"total": 3, "ok": 3, "failed": 0, "missing": 0}


def test_a_network_without_its_penultimate_row_counts_by_its_deepest_layer() -> None:
    rows = zoo()
    rows = rows[rows["model"] != "a2"]
    assert own_rows(rows)["model"].tolist() == ["a1", "a2:late", "b"]


def test_a_single_row_of_a_named_layer_and_rows_of_earlier_versions_are_models() -> None:
    rows = rows_frame(
        [row("clip", "visual", 10), row("old", "norm", 9, network_id=None), row("old", None, 8)]
    )
    assert not further_layers(rows).any()


def test_a_failed_layer_is_listed_but_counts_as_no_model() -> None:
    rows = zoo()
    rows.loc[rows["model"] == "a1:early", ["status", "error_type"]] = ["failed", "InputError"]
    summary = summarise(rows)
    assert summary.models == {"total": 3, "ok": 3, "failed": 0, "missing": 0}
    assert [one["model"] for one in summary.failures] == ["a1:early"]


def test_the_best_layer_is_tested_against_the_penultimate_with_holms_correction() -> None:
    found = depths(zoo())
    assert found is not None
    first, second = found.profiles
    assert [layer.name for layer in first.layers] == ["early", "middle", None]
    assert [layer.depth for layer in second.layers] == [0.2, 0.8, 1]
    assert first.best is not None
    assert (first.best.layer, first.best.accuracy, first.best.penultimate) == ("middle", 80, 50)
    # The middle is right on 120 images more and wrong on none more; Holm corrects for two layers.
    np.testing.assert_allclose(first.best.p_holm, 2 * 2 * 0.5**120, rtol=1e-9)
    assert second.best is not None
    assert (second.best.layer, second.best.p_holm) == (None, None)
    assert second.best.chosen_on_others == second.best.penultimate


def test_choosing_the_layer_can_change_which_model_is_chosen() -> None:
    found = depths(zoo())
    assert found is not None
    assert found.choice is not None
    assert (found.choice.penultimate, found.choice.any_layer) == ("a2@32", "a1@32")
    assert not found.choice.is_same
    assert not found.choice.may_be_chance


def test_the_best_of_many_layers_of_noise_is_not_flattered_on_other_images() -> None:
    rng = np.random.default_rng(0)
    rows = [row("a", None, 0)] + [row("a", f"l{i}", 0, layer_depth=i / 99) for i in range(60)]
    for one in rows:
        hits = rng.random(IMAGES) < 0.5
        one |= {"probe_hits": pack_hits(hits), "probe_accuracy": 100 * hits.mean()}
    (profile,) = depths(rows_frame(rows)).profiles  # type: ignore[union-attr]
    assert profile.best is not None
    assert profile.best.accuracy > 54
    assert abs(profile.best.chosen_on_others - 50) < 5
    assert profile.best.p_holm is not None
    assert profile.best.p_holm > 0.05


def test_a_familys_profile_is_the_mean_where_all_its_models_have_layers() -> None:
    found = depths(zoo())
    assert found is not None
    x, y = of_family(found.profiles, "dse_z")
    np.testing.assert_allclose(x, GRID[3:])
    a1, a2 = np.interp(0.5, [0.25, 0.5, 1], [2, 4.2, 3]), np.interp(0.5, [0.2, 0.8], [2.2, 3.5])
    np.testing.assert_allclose(y[x == 0.5][0], [a1, a2])


@pytest.mark.usefixtures("without_drawing")
def test_the_page_shows_layers_only_where_there_are_rows_of_them(tmp_path: Path) -> None:
    write_page(zoo(), record_of(), tmp_path / "with")
    page = (tmp_path / "with" / "index.html").read_text()
    assert '<h2 id="layers">Layers</h2>' in page
    assert "In 1 of 2 networks another layer is shown to be better" in page
    assert "one chooses a2@32, by any layer a1@32." in page
    assert {path.stem for path in (tmp_path / "with" / "figures").glob("layers*.svg")} == {
        "layers_models",
        "layers_families",
    }
    layers = pd.read_csv(tmp_path / "with" / "layers.csv")
    assert len(layers) == 6
    numbers = json.loads((tmp_path / "with" / "summary.json").read_text())["layers"]
    assert numbers["profiles"][0]["layers"][1]["layer"] == "middle"
    assert numbers["choice"]["any_layer"] == "a1@32"
    write_page(own_rows(zoo()), record_of(), tmp_path / "without")
    assert 'id="layers"' not in (tmp_path / "without" / "index.html").read_text()
    assert not (tmp_path / "without" / "layers.csv").exists()
