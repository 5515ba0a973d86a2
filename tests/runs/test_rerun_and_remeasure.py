"""``rerun`` of single entries, and ``remeasure`` of kept embeddings."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
from conftest import SMALL_ZOO, Command

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


OTHER = ("--t", 3, "--seed", 4, "--repetitions", 2)


@pytest.fixture(scope="module")
def remeasured(small_run: Path, tmp_path_factory: pytest.TempPathFactory, cli: Command) -> Path:
    """Remeasure the small run with other settings; tests only read the result."""
    out = tmp_path_factory.mktemp("remeasured") / "again"
    cli("remeasure", "--out", small_run, "--into", out, "--sigma", 2, *OTHER)
    return out


OWN = """
import numpy as np


def rank(Z, labels):
    return np.linalg.matrix_rank(Z)


def classes(Z, labels):
    return len(set(labels.tolist()))
"""


def finished(out: Path) -> pd.Series:
    return read_results(out).set_index("model")["finished_at"]


def test_rerun_redoes_the_named_models_alone_and_refreshes_the_report(
    run_copy: Path, cli: Command
) -> None:
    before, page = finished(run_copy), (run_copy / "report" / "index.html").stat().st_mtime_ns
    cli("rerun", "test_vit.900x5", "test_resnet.100x3@32", "--out", run_copy, report=True)
    after = finished(run_copy)
    assert sorted(after.index[after != before]) == ["test_resnet.100x3", "test_vit.900x5"]
    assert (run_copy / "report" / "index.html").stat().st_mtime_ns > page


def test_rerun_comes_to_the_same_numbers(run_copy: Path, small_run: Path, cli: Command) -> None:
    cli("rerun", "test_vit.900x2", "--out", run_copy)
    columns = [
        "model",
        "dse_z",
        "dsmi_z_y",
        "dsmi_z_x",
        "cse_z",
        "top1",
        "embedding_sha256",
        "row_id",
    ]
    pd.testing.assert_frame_equal(read_results(run_copy)[columns], read_results(small_run)[columns])


def test_rerun_of_a_model_that_is_not_of_the_run_is_refused(run_copy: Path, cli: Command) -> None:
    refused = cli("rerun", "test_convnext.900x5", "--out", run_copy, code=2)
    assert "no model 'test_convnext.900x5'" in refused.stderr
    refused = cli("rerun", "test_vit.900x6", "--out", run_copy, code=2)
    assert "no model 'test_vit.900x6'; did you mean test_vit.900x5?" in refused.stderr


def test_remeasure_equals_a_run_with_these_settings_from_the_start(
    remeasured: Path, tmp_path: Path, cli: Command
) -> None:
    two = ("test_vit.900x5", "test_resnet.100x3")
    cli("run", "--models", *two, "--out", tmp_path, "--sigma", 2, *OTHER)
    volatile = [
        "finished_at",
        "seconds_build",
        "seconds_embed",
        "seconds_measure",
        "embedding_file",
    ]
    again, fresh = (read_results(out).drop(columns=volatile) for out in (remeasured, tmp_path))
    assert len(again) == 6
    assert (again["sigma"] == 2).all()
    assert (again["t"] == 3).all()
    again = again[again["model"].isin(two)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, fresh)


def test_remeasure_names_its_folder_after_what_changes(run_copy: Path, cli: Command) -> None:
    before = finished(run_copy)
    done = cli("remeasure", "--out", run_copy, "--sigma", 0.5, report=True)
    beside = run_copy.with_name("run-sigma-0.5")
    assert str(beside / "report" / "index.html") in done.stdout
    assert len(read_results(beside)) == 6
    assert finished(run_copy).equals(before)
    again = cli("remeasure", "--out", run_copy, "--sigma", 0.5)
    assert "6 of 6 models are done already" in again.stdout
    chained = cli("remeasure", "--out", beside, "--bins", 7)
    assert str(run_copy.with_name("run-sigma-0.5-bins-7")) in chained.stdout
    assert read_run(run_copy.with_name("run-sigma-0.5-bins-7")).embeddings_from == run_copy


def test_measures_of_ones_own_become_columns_of_rows_and_report(
    run_copy: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "my_measures.py").write_text(OWN)
    own = ["--measure", "my_measures:rank", "--measure", "my_measures:classes"]
    cli("remeasure", "--out", run_copy, "--into", tmp_path / "own", *own, cwd=tmp_path, report=True)
    rows = read_results(tmp_path / "own")
    assert (rows["classes"] == 10).all()
    assert (rows["rank"] <= rows["embedding_dim"]).all()
    assert (rows["own_measures"] == "rank classes").all()
    assert "rank" in (tmp_path / "own" / "report" / "summary.json").read_text()
    (tmp_path / "my_measures.py").write_text(OWN.replace("matrix_rank(Z)", "matrix_rank(Z) + 1"))
    cli("remeasure", "--out", run_copy, "--into", tmp_path / "own", *own, cwd=tmp_path)
    assert ((read_results(tmp_path / "own")["rank"] - rows["rank"]) == 1).all()


def test_remeasure_refuses_what_it_cannot_do(
    small_run: Path, remeasured: Path, cli: Command
) -> None:
    assert "nothing to remeasure" in cli("remeasure", "--out", small_run, code=2).stderr
    into_itself = cli("remeasure", "--out", small_run, "--into", small_run, "--sigma", 2, code=2)
    assert "into itself" in into_itself.stderr
    assert "sigma" in cli("remeasure", "--out", small_run, "--sigma", -1, code=2).stderr
    remeasure = ("remeasure", "--out", small_run, "--into", remeasured)
    mixed = cli(*remeasure, "--sigma", 3, *OTHER, code=2)
    assert "measures.sigma = 2.0, not 3.0" in mixed.stderr
    refused = cli("run", "--models", *SMALL_ZOO, "--sigma", 2, "--out", remeasured, code=2)
    assert "was remeasured from" in refused.stderr
    refused = cli("rerun", "test_vit.900x5", "--out", remeasured, code=2)
    assert "was remeasured from" in refused.stderr


def test_an_embedding_that_was_changed_fails_its_own_entry_only(
    run_copy: Path, tmp_path: Path, cli: Command
) -> None:
    path = next((run_copy / "embeddings").glob("test_vit-900x5-*"))
    np.save(path, np.load(path) + 1)
    cli("remeasure", "--out", run_copy, "--into", tmp_path / "again", "--sigma", 2, code=1)
    rows = read_results(tmp_path / "again").set_index("model")
    assert rows.index[rows["status"] == "failed"].tolist() == ["test_vit.900x5"]
    assert (
        "not the one that its row was computed from" in rows.loc["test_vit.900x5", "error_message"]
    )
    assert rows["dse_z"].notna().sum() == 5


def test_dropped_embeddings_are_not_kept_and_cannot_be_remeasured(
    tmp_path: Path, cli: Command
) -> None:
    out = tmp_path / "out"
    cli(
        "run",
        "--models",
        "test_vit.100x3",
        "--drop-embeddings",
        "--out",
        out,
        "--images-per-class",
        5,
    )
    assert not list((out / "embeddings").iterdir())
    row = read_results(out).iloc[0]
    assert (row["n_samples"], row["n_classes"]) == (50, 10)
    assert "dropped its embeddings" in cli("remeasure", "--out", out, "--sigma", 2, code=2).stderr


def test_kept_embeddings_give_the_measures_of_other_settings(
    small_run: Path, remeasured: Path
) -> None:
    subset = pd.read_parquet(small_run / "subset.parquet")
    path = next((small_run / "embeddings").glob("test_vit-900x5-*"))
    settings = {"sigma": 2, "t": 3, "seed": 4, "repetitions": 2}
    expected = measure(
        np.load(path),
        subset["label"],
        scores="default",
        input_clusters=subset["input_cluster"],
        **settings,
    )
    row = read_results(remeasured).set_index("model").loc["test_vit.900x5"]
    assert all(row[name] == pytest.approx(value, abs=1e-9) for name, value in expected.items())


def test_rerun_finds_a_catalogue_of_ones_own_from_any_folder(
    small_run: Path, cache: Path, tmp_path: Path, cli: Command
) -> None:
    for path in (cache / "weights").glob("*.safetensors"):
        with safetensors.safe_open(path, framework="np") as file:
            if file.metadata()["model"] == "test_resnet.900x5@32":
                shutil.copy(path, tmp_path / "good.safetensors")
    (tmp_path / "mine.csv").write_text(
        "model,architecture,checkpoint,model_kwargs,img_size,top1\n"
        'good,test_resnet,good.safetensors,"{""num_classes"": 10}",32,90\n'
    )
    cli("run", "--catalog", "mine.csv", "--out", "out", cwd=tmp_path)
    before = finished(tmp_path / "out")
    cli("rerun", "good", "--out", tmp_path / "out")
    assert (finished(tmp_path / "out") > before).all()
    assert len(read_run(tmp_path / "out").catalog.sha256 or "") == 64


def test_remeasure_by_the_papers_protocol_keeps_the_clusters_of_each_size(
    tmp_path: Path, cli: Command
) -> None:
    run = (
        "run",
        "--models",
        "test_vit.100x3",
        "--protocol",
        "paper",
        "--repeats",
        2,
        "--images-per-class",
        20,
    )
    cli(*run, "--out", tmp_path / "run")
    cli(*run, "--out", tmp_path / "at-once", "--sigma", 3)
    cli("remeasure", "--out", tmp_path / "run", "--into", tmp_path / "again", "--sigma", 3)
    measured = ["dsmi_z_x", "csmi_z_x", "dsmi_z_y", "dse_z", "row_id"]
    again, at_once = (read_results(tmp_path / name)[measured] for name in ("again", "at-once"))
    pd.testing.assert_frame_equal(again, at_once)
    # Earlier versions kept no clusters and computed other numbers, so the row is measured again.
    shutil.rmtree(tmp_path / "again" / "input_clusters")
    said = cli("remeasure", "--out", tmp_path / "run", "--into", tmp_path / "again", "--sigma", 3)
    assert "1 embedding to measure" in said.stdout
