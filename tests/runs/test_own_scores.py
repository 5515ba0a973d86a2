"""User-defined scores added to a finished run: in place, in seconds, without any other change."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL_ZOO, Command

from dsmi_zoo.pipeline.engine.row_content import with_own_scores
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

OWN = """
import os

import numpy as np


def spread(Z, labels):
    return float(Z.std())


def classes(Z, labels):
    return len(set(labels.tolist()))


def picky(Z, labels):
    if Z.shape[1] > 100:
        raise RuntimeError("too wide; try another")
    return 1.0


def deadly(Z, labels):
    os._exit(3)
"""


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def others(out: Path) -> pd.DataFrame:
    """Return all columns except those of the added scores."""
    added = ["spread", "classes", "picky", "deadly", "own_measures", "own_measures_code"]
    return read_results(out).drop(columns=added, errors="ignore")


def added_to(out: Path, cli: Command, *specs: str, **options: object) -> str:
    given = [word for spec in specs for word in ("--measure", f"mine:{spec}")]
    done = cli("remeasure", "--out", out, *given, cwd=out.parent, **options)
    return done.stdout + done.stderr


def test_own_scores_are_added_where_the_rows_are_and_nothing_else_of_them_changes(
    run_copy: Path, cli: Command
) -> None:
    before = others(run_copy)
    said = added_to(run_copy, cli, "spread", "classes", report=True)
    rows = read_results(run_copy)
    pd.testing.assert_frame_equal(others(run_copy), before)
    for entry in read_run(run_copy).entries:
        Z = np.load(run_copy / "embeddings" / f"{entry.slug}.npy")
        row = rows[rows["row_id"] == entry.row_id].iloc[0]
        assert (row["spread"], row["classes"]) == (float(Z.std()), 10)
    assert not list(run_copy.parent.glob("run-*"))
    page = (run_copy / "report" / "index.html").read_text()
    summary = json.loads((run_copy / "report" / "summary.json").read_text())
    assert said.splitlines()[-2:] == summary["own_scores"]
    assert re.search(
        r"spread: Spearman's rho with top-1 accuracy = .* \(.*\).* rank", summary["own_scores"][1]
    )
    for sentence in summary["own_scores"]:
        assert sentence.replace(" = ", "\u00a0=\u00a0").replace("'", "&#39;") in page


def test_the_same_run_keeps_added_scores_and_computes_no_row_again(
    run_copy: Path, cli: Command
) -> None:
    added_to(run_copy, cli, "spread")
    before = {path: path.read_bytes() for path in (run_copy / "results").iterdir()}
    said = cli("run", "--models", *SMALL_ZOO, "--out", run_copy, "--workers", 1,
               "--images-per-class", 20).stdout  # fmt: skip
    assert "6 of 6 models are done already" in said
    assert "6 of 6 models are done already" in added_to(run_copy, cli, "spread")
    assert {path: path.read_bytes() for path in (run_copy / "results").iterdir()} == before


def test_an_edited_score_is_computed_again_and_anothers_function_is_refused(
    run_copy: Path, cli: Command
) -> None:
    added_to(run_copy, cli, "spread")
    first = read_results(run_copy)["spread"]
    (run_copy.parent / "mine.py").write_text(OWN.replace("Z.std()", "Z.std() + 1"))
    added_to(run_copy, cli, "spread")
    np.testing.assert_allclose(read_results(run_copy)["spread"] - first, 1, rtol=1e-6)
    (run_copy.parent / "other.py").write_text(OWN)
    refused = cli("remeasure", "--out", run_copy, "--measure", "other:spread",
                  cwd=run_copy.parent, code=2).stderr  # fmt: skip
    assert "the column 'spread' exists already; rename the function" in refused


def test_a_score_that_raises_leaves_its_row_valid_and_says_why_there(
    run_copy: Path, cli: Command
) -> None:
    widths = read_results(run_copy)["embedding_dim"]
    limit = int(widths.median())
    (run_copy.parent / "mine.py").write_text(OWN.replace("100", str(limit)))
    before = others(run_copy)
    said = added_to(run_copy, cli, "picky", code=1)
    failing = (widths > limit).sum()
    assert 0 < failing < 6
    assert f"{failing} models without a value; the same command tries them again" in said
    rows = read_results(run_copy)
    assert (rows["status"] == "ok").all()
    assert rows["picky"].isna().sum() == failing
    reasons = rows.loc[rows["picky"].isna(), "undefined_scores"]
    assert reasons.str.endswith(
        "picky: the measure mine:picky raised RuntimeError: too wide, try another"
    ).all()
    pd.testing.assert_frame_equal(
        others(run_copy).drop(columns="undefined_scores"), before.drop(columns="undefined_scores")
    )
    (run_copy.parent / "mine.py").write_text(OWN.replace("100", "100_000"))
    added_to(run_copy, cli, "picky")
    pd.testing.assert_frame_equal(others(run_copy), before)
    assert (read_results(run_copy)["picky"] == 1).all()


def test_a_score_without_any_value_is_no_success_and_not_in_the_lead(
    run_copy: Path, cli: Command
) -> None:
    (run_copy.parent / "mine.py").write_text(OWN.replace("> 100", "> 4"))
    said = added_to(run_copy, cli, "picky", code=1, report=True)
    assert "6 models: 6 without a value of picky, 0 with one, in " in said
    assert " ok, 0 failed" not in said
    assert "own_scores" not in json.loads((run_copy / "report" / "summary.json").read_text())
    page = (run_copy / "report" / "index.html").read_text()
    assert "too wide, try another" not in page.split("Scores without a value")[0]
    assert "picky raised RuntimeError: too wide, try another</th><td>6</td>" in page


def test_a_score_that_ends_its_process_costs_no_row(run_copy: Path, cli: Command) -> None:
    for path in sorted((run_copy / "results").iterdir())[1:]:  # each death takes a second
        path.unlink()
    before = others(run_copy)
    said = added_to(run_copy, cli, "deadly", code=1)
    assert f"5 models of {run_copy} without a finished row left out" in said
    assert "1 model without a value" in said
    rows = read_results(run_copy)
    assert rows["undefined_scores"].str.contains("deadly: its worker process died").all()
    pd.testing.assert_frame_equal(
        others(run_copy).drop(columns="undefined_scores"), before.drop(columns="undefined_scores")
    )


def test_an_interrupted_addition_is_finished_by_the_same_command(
    run_copy: Path, small_run: Path, cli: Command
) -> None:
    added_to(run_copy, cli, "spread")
    whole = read_results(run_copy)
    for path in sorted((run_copy / "results").iterdir())[:2]:
        shutil.copy(small_run / "results" / path.name, path)
    assert read_results(run_copy)["spread"].isna().sum() == 2
    said = added_to(run_copy, cli, "spread")
    assert "4 of 6 models are done already" in said
    pd.testing.assert_frame_equal(read_results(run_copy), whole)


def test_added_scores_stay_when_other_settings_are_measured(run_copy: Path, cli: Command) -> None:
    added_to(run_copy, cli, "spread")
    cli("remeasure", "--out", run_copy, "--into", run_copy.parent / "two", "--sigma", 2)
    one, two = (read_results(run_copy.parent / name) for name in ("run", "two"))
    columns = ["spread", "own_measures", "own_measures_code"]
    pd.testing.assert_frame_equal(one[columns], two[columns])
    assert (one["row_id"] != two["row_id"]).all()


def test_a_run_with_a_further_score_is_refused_with_the_command_that_adds_it(
    run_copy: Path, cli: Command
) -> None:
    refused = cli("run", "--models", *SMALL_ZOO, "--out", run_copy, "--workers", 1,
                  "--images-per-class", 20, "--measure", "mine:spread",
                  cwd=run_copy.parent, code=2).stderr  # fmt: skip
    assert f"dsmi-zoo remeasure --out {run_copy} --measure mine:spread" in refused


def test_a_value_replaces_its_reason_also_where_it_shared_one() -> None:
    row = {"own_measures": "x y", "undefined_scores": "clid: few images; x, y: it broke"}
    added = with_own_scores(row, ["mine:x:abc"], {"x": 1.0}, {})
    assert added["undefined_scores"] == "clid: few images; y: it broke"
    again = with_own_scores(row, ["mine:x:abc"], {}, {"x": "it broke; twice"})
    assert again["undefined_scores"] == "clid: few images; y: it broke; x: it broke, twice"
