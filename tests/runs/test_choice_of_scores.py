"""The choice of scores: all but the costly ones by default, or all; folders of earlier versions have all."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from dsmi_zoo.pipeline.measures.catalog import COSTLY, NOT_BY_DEFAULT, ROW_MEASURES, parse_reasons
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

MODEL = "test_vit.900x5"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, cli: Command) -> Path:
    """Return a run of one model with all scores, recorded as before ``scores`` was a setting."""
    out = tmp_path_factory.mktemp("all") / "earlier"
    cli("run", "--models", MODEL, "--out", out, "--scores", "all")
    record = json.loads((out / "run.json").read_text())
    del record["config"]["measures"]["scores"]
    assert "scores" not in record["identity"]["measures"]
    (out / "run.json").write_text(json.dumps(record))
    return out


@pytest.fixture
def all_scores(earlier: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(earlier, tmp_path / "earlier"))


def test_costly_scores_are_empty_by_default_with_the_reason(small_run: Path) -> None:
    rows = read_results(small_run)
    assert rows[sorted(COSTLY)].isna().all(axis=None)
    for text in rows["undefined_scores"]:
        reasons = parse_reasons(text)
        assert {name for name, why in reasons.items() if why == NOT_BY_DEFAULT} == COSTLY
    others = [one.name for one in ROW_MEASURES if one.name not in COSTLY]
    assert rows[others].notna().any().all()


def test_remeasure_fills_in_all_scores_beside_the_run(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    out = Path(shutil.copytree(small_run, tmp_path / "run"))
    for path in sorted((out / "results").iterdir())[2:]:  # a row with all scores takes a second
        path.unlink()
    cli("remeasure", "--out", out, "--scores", "all")
    before, after = (read_results(folder) for folder in (out, tmp_path / "run-scores-all"))
    assert after[sorted(COSTLY)].notna().any(axis=None)
    assert not after["undefined_scores"].fillna("").str.contains("--scores all").any()
    assert set(before["row_id"]).isdisjoint(after["row_id"])
    # LogME's error has a closed form by default; with all scores it comes from halves, as in earlier versions.
    others = [one.name for one in ROW_MEASURES if one.name not in COSTLY | {"logme_se"}]
    pd.testing.assert_frame_equal(before[others], after[others])


def test_a_folder_of_an_earlier_version_goes_on_with_all_scores(
    all_scores: Path, cli: Command
) -> None:
    before = read_results(all_scores)
    again = cli("run", "--models", MODEL, "test_vit.900x2", "--out", all_scores)
    assert "holds rows with --scores all; continuing with these" in again.stdout
    assert "1 of 2 models are done already" in again.stdout
    after = read_results(all_scores).set_index("model")
    assert after.loc[MODEL, "finished_at"] == before["finished_at"].item()
    assert after["n_leep"].notna().all()
    assert read_run(all_scores).config.measures.scores == "all"


def test_another_choice_of_scores_than_the_folders_is_refused(
    all_scores: Path, cli: Command
) -> None:
    run = ("run", "--models", MODEL, "--out", all_scores, "--scores", "default")
    refused = cli(*run, code=2)
    assert "was run with --scores all; leave --scores out to continue it" in refused.stderr
    assert f"dsmi-zoo remeasure --out {all_scores} --scores default" in refused.stderr
