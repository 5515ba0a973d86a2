"""Runs with random weights: the real code path, no downloads, and rows that never mix with rows of real weights."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.config.run import RunConfig
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

ZOO = """model,img_size,top1,imagenet_r_top1,pretraining_images,gmacs,weights
test_vit.r160_in1k,160,40,20,1281167,0.1,timm/test_vit.r160_in1k
test_resnet.r160_in1k,160,30,10,1281167,0.1,timm/test_resnet.r160_in1k
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, cli: Command) -> Path:
    """Run two published models with random weights; the catalogue and the cache are in the parent folder."""
    folder = tmp_path_factory.mktemp("tried")
    (folder / "zoo.csv").write_text(ZOO)
    (folder / "cache").mkdir()
    run = (
        "run",
        "--catalog",
        "zoo.csv",
        "--random-weights",
        "--images-per-class",
        3,
        "--cache",
        folder / "cache",
    )
    cli(*run, "--out", folder / "out", cwd=folder, report=True)
    return folder / "out"


def test_models_are_measured_without_weights_and_without_any_accuracy(
    tried: Path, cli: Command
) -> None:
    rows = read_results(tried)
    assert list(rows["status"]) == ["ok", "ok"], list(rows["error_message"])
    assert rows["random_weights"].all()
    assert rows[["top1", "top5", "pretraining"]].isna().all(axis=None)
    assert not {"imagenet_r_top1", "pretraining_images"} & set(rows)
    assert list(rows["gmacs"]) == [0.1, 0.1]
    assert not (tried.parent / "cache" / "weights").exists()
    summary = json.loads((tried / "report" / "summary.json").read_text())
    assert summary["lead"].startswith("These networks have random weights")
    assert not any(summary["correlations"].values())
    page = (tried / "report" / "index.html").read_text()
    assert page.index("These networks have random weights") < page.index(
        "2 of 2 models ran without an error"
    )
    cli(
        "rerun",
        "test_vit.r160_in1k",
        "--out",
        tried,
        "--workers",
        1,
        "--no-report",
        cwd=tried.parent,
    )
    again = read_results(tried)
    pd.testing.assert_series_equal(again["embedding_sha256"], rows["embedding_sha256"])
    assert again["random_weights"].all()
    assert again["finished_at"].ne(rows["finished_at"]).sum() == 1


def test_they_never_mix_with_others(tried: Path, tmp_path: Path, cli: Command) -> None:
    folder = tried.parent
    run = ("run", "--catalog", "zoo.csv", "--images-per-class", 3, "--cache", folder / "cache")
    said = cli(*run, "--out", tried, cwd=folder, code=2).stderr
    assert (
        "belongs to another configuration: random_weights = true, not null; choose another --out"
        in said
    )
    other = tmp_path / "other"
    shutil.copytree(tried, other)
    record = read_run(other)
    content = json.loads((other / "run.json").read_text())
    del content["identity"]["random_weights"], content["config"]["random_weights"]
    (other / "run.json").write_text(json.dumps(content))
    assert read_run(other).identity != record.identity
    said = cli("merge", tried, other, "--out", tmp_path / "merged", cwd=tmp_path, code=2).stderr
    assert "random_weights" in said


def test_random_weights_have_identities_of_their_own_and_change_no_others(
    small_run: Path, cache: Path
) -> None:
    record = read_run(small_run)
    assert "random_weights" not in record.identity
    compute = record.config.compute.model_copy(update={"cache": cache})
    same, other = (
        make_plan(record.config.model_copy(update={"compute": compute, "random_weights": random}))
        for random in (False, True)
    )
    assert {job.slug: job.row_id for job in same.jobs} == {
        entry.slug: entry.row_id for entry in record.entries
    }
    assert not {job.embedding_id for job in same.jobs} & {job.embedding_id for job in other.jobs}
    assert all(job.weights is None and job.entry.recipe is None for job in other.jobs)


def test_what_makes_no_sense_without_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to download and nothing to choose"):
        RunConfig.model_validate({"random_weights": True, "compute": {"budget": "1h"}})
    (tmp_path / "own.py").write_text("def net(): ...\n")
    (tmp_path / "zoo.csv").write_text("model,builder,img_size\nmine,own:net,32\n")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with pytest.raises(
            InputError,
            match=r"--random-weights is for networks of timm; mine@32 is made by own:net",
        ):
            make_plan(RunConfig(catalog="zoo.csv", random_weights=True))
    finally:
        os.chdir(before)
