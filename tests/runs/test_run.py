"""`dsmi-zoo run` as a user runs it, with real processes, models and faults."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import safetensors
import safetensors.torch
import torch
from conftest import IMAGES_PER_CLASS, SMALL_ZOO, Command
from processes import forked, start_command

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run


def snapshot(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        p.name: (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted((out / "results").glob("*.parquet"))
    }


def weights_of(cache: Path, model: str) -> Path:
    """Return the trained weights of a digits model, which ``small_run`` left in the cache."""
    for path in (cache / "weights").glob("*.safetensors"):
        with safetensors.safe_open(path, framework="np") as file:
            if file.metadata()["model"] == model:
                return path
    raise LookupError(model)


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run, which a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def mine(small_run: Path, cache: Path, tmp_path: Path) -> Path:
    """Return a user's catalogue with one good model."""
    shutil.copy(weights_of(cache, "test_resnet.900x5@32"), tmp_path / "good.safetensors")
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,architecture,checkpoint,model_kwargs,img_size,top1\n"
        'good,test_resnet,good.safetensors,"{""num_classes"": 10}",32,90\n'
    )
    return path


def test_a_run_leaves_one_row_and_one_embedding_an_entry_and_a_report(small_run: Path) -> None:
    rows = read_results(small_run)
    assert sorted(rows["model"]) == sorted(
        f"{a}.{b}" for a in ("test_resnet", "test_vit") for b in ("100x3", "900x2", "900x5")
    )
    assert (rows["status"] == "ok").all()
    assert rows["top1"].between(5, 100).all()
    # Five standard errors of the difference of two samples' shares, in percent.
    five_errors = 5 * np.sqrt(2 * 50 * 50 / 200)
    assert (rows["subset_top1"] - rows["top1"]).abs().max() < five_errors
    assert rows["nce"].between(-np.log(10), -1e-9).all()
    # The shortest training; of the ViTs, which barely learn, the worst is another one on some processors.
    resnets = rows[rows["architecture"] == "test_resnet"].set_index("model")
    assert resnets["nce"].idxmin() == "test_resnet.100x3"
    # LEEP's probabilities are softer than NCE's predicted labels, so they carry less information.
    assert (rows["leep"] <= rows["nce"]).all()
    assert rows["leep"].between(-np.log(10) - 0.01, -1e-9).all()
    assert (rows["leep_se"] > 0).all(), rows[["leep", "leep_se", "nce", "nce_se"]]
    assert (rows["n_samples"] == 200).all()
    measured = [
        "dse_z",
        "dsmi_z_y",
        "dsmi_z_y_null",
        "dsmi_z_x",
        "cse_z",
        "csmi_z_y",
        "csmi_z_x",
        "embedding_rms",
    ]
    assert rows[[*measured, "sigma", "median_distance_over_sigma"]].notna().all(axis=None)
    assert rows["embedding_id"].nunique() == rows["row_id"].nunique() == 6
    assert len(list((small_run / "embeddings").iterdir())) == 6
    for name in ("index.html", "summary.json"):
        assert (small_run / "report" / name).stat().st_size > 500
    summary = json.loads((small_run / "report" / "summary.json").read_text())
    assert summary["models"]["total"] == summary["models"]["ok"] == 6
    assert summary["correlations"]["dsmi_z_y"]["top1"]["n"] == 6
    record = read_run(small_run)
    assert record.subset.n_samples == 200
    assert record.versions["timm"]
    assert len(record.entries) == 6


def test_a_rows_measures_are_those_of_its_kept_embedding(small_run: Path) -> None:
    subset = pd.read_parquet(small_run / "subset.parquet")
    for _, row in read_results(small_run).iterrows():
        path = next((small_run / "embeddings").glob(f"{row['model'].replace('.', '-')}-*.npy"))
        again = measure(
            np.load(path),
            subset["label"],
            scores="default",
            input_clusters=subset["input_cluster"],
        )
        for name, value in again.items():
            assert row[name] == pytest.approx(value, abs=1e-9), name


def test_a_second_run_computes_nothing_and_starts_no_cluster(run_copy: Path, cli: Command) -> None:
    before = snapshot(run_copy)
    done = cli("run", "--models", *SMALL_ZOO, "--out", run_copy)
    assert "6 of 6 models are done already" in done.stdout
    assert "worker" not in done.stdout
    assert snapshot(run_copy) == before


def test_a_run_says_where_its_dashboard_and_its_report_are(
    tmp_path: Path, small_run: Path, cli: Command
) -> None:
    done = cli("run", "--models", "test_vit.900x5", cwd=tmp_path, report=True)
    assert re.search(
        r"^1 worker at tls://127\.0\.0\.1:\d+; Dask dashboard: http://127\.0\.0\.1:\d+/status$",
        done.stdout,
        re.M,
    )
    assert re.search(r"^\[1/1\] test_vit\.900x5@32 in ", done.stdout, re.M)
    assert done.stdout.rstrip().endswith(
        str(tmp_path / "runs" / "digits" / "report" / "index.html")
    )
    assert "\x1b" not in done.stdout


def test_a_run_without_a_report_says_what_writes_it(run_copy: Path, cli: Command) -> None:
    page = run_copy / "report" / "index.html"
    shutil.rmtree(page.parent)
    done = cli("run", "--models", *SMALL_ZOO, "--out", run_copy, "--no-report")
    assert not page.parent.exists()
    assert done.stdout.rstrip().endswith(f"dsmi-zoo report --out {run_copy}")
    cli("report", "--out", run_copy)
    assert page.is_file()


def test_more_models_join_an_existing_run(run_copy: Path, cli: Command) -> None:
    before = snapshot(run_copy)
    cli("run", "--models", "test_byobnet.100x3", "--out", run_copy)
    after = snapshot(run_copy)
    assert len(after) == 7
    assert {name: after[name] for name in before} == before
    assert len(read_run(run_copy).entries) == 7


def test_a_run_that_was_killed_half_way_goes_on_and_rewrites_no_finished_row(
    tmp_path: Path, cache: Path, small_run: Path, cli: Command
) -> None:
    out = tmp_path / "killed"
    arguments = [
        *("run", "--models", *SMALL_ZOO, "--images-per-class", str(IMAGES_PER_CLASS)),
        *("--out", str(out), "--workers", "1", "--no-report"),
    ]
    others = forked()
    driver = start_command(*arguments, environment={"DSMI_ZOO_CACHE": str(cache)})
    deadline = time.monotonic() + 120
    while (
        not 2 <= len(list((out / "results").glob("*.parquet"))) < 6 and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    workers = forked() - others
    driver.kill()
    finished = snapshot(out)
    assert 2 <= len(finished) < 6
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "workers outlived their driver"
    finished = snapshot(out)

    cli(*arguments)
    rows = read_results(out)
    assert len(rows) == len(rows[["model", "img_size"]].drop_duplicates()) == 6
    assert (rows["status"] == "ok").all()
    after = snapshot(out)
    assert {name: after[name] for name in finished} == finished


def test_broken_and_foreign_files_are_reported_and_the_broken_one_computed_again(
    run_copy: Path, cli: Command
) -> None:
    cut, *others = sorted((run_copy / "results").glob("*.parquet"))
    whole = pd.read_parquet(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    (run_copy / "results" / "notes.txt").write_text("mine")
    kept = {path: path.stat().st_mtime_ns for path in others}
    status = cli("status", "--out", run_copy)
    assert "5 ok, 0 failed, 1 missing" in status.stdout
    assert "notes.txt: not a Parquet file" in status.stdout
    done = cli("run", "--models", *SMALL_ZOO, "--out", run_copy)
    assert f"not a row: {cut}" in done.stdout
    assert "notes.txt" in done.stdout
    assert "1 model to measure" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in others} == kept
    assert (run_copy / "results" / "notes.txt").read_text() == "mine"
    again = pd.read_parquet(cut)
    assert again["embedding_sha256"].equals(whole["embedding_sha256"])
    assert again["dsmi_z_y"].equals(whole["dsmi_z_y"])


def test_settings_that_change_a_number_are_refused_on_the_same_out(
    run_copy: Path, cli: Command
) -> None:
    before = snapshot(run_copy)
    refused = cli("run", "--models", *SMALL_ZOO, "--out", run_copy, "--sigma", 3, code=2)
    assert "measures.sigma = sqrt(d), not 3.0" in refused.stderr
    refused = cli("run", "--out", run_copy, "--images-per-class", 5, code=2)
    assert f"subset.images_per_class = {IMAGES_PER_CLASS}, not 5" in refused.stderr
    assert snapshot(run_copy) == before


def test_failing_models_become_rows_and_the_others_go_on(
    mine: Path, tmp_path: Path, cli: Command
) -> None:
    state = safetensors.torch.load_file(tmp_path / "good.safetensors")
    infinite = {
        name: torch.full_like(t, float("inf")) if "conv1.weight" in name else t
        for name, t in state.items()
    }
    safetensors.torch.save_file(infinite, tmp_path / "inf.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:1000])
    with mine.open("a") as file:
        file.write('infinite,test_resnet,inf.safetensors,"{""num_classes"": 10}",32,50\n')
        file.write('other shape,test_resnet,good.safetensors,"{""num_classes"": 3}",32,50\n')
        file.write('cut,test_resnet,cut.safetensors,"{""num_classes"": 10}",32,\n')
        file.write(
            '<b>../../up</b>,test_resnet,good.safetensors,"{""num_classes"": 10, ""no_such"": 1}",32,\n'
        )
    out = tmp_path / "out"
    done = cli("run", "--catalog", mine, "--out", out, code=1, report=True)
    assert "Traceback" not in done.stdout + done.stderr
    assert "5 models: 1 ok, 4 failed" in done.stdout
    rows = read_results(out).set_index("model")
    assert rows["status"].to_dict() == {
        "good": "ok", "infinite": "failed", "other shape": "failed", "cut": "failed", "<b>../../up</b>": "failed",
    }  # fmt: skip
    assert (
        "infinite" in rows.loc["infinite", "error_message"]
        or "NaN" in rows.loc["infinite", "error_message"]
    )
    assert 'set model_kwargs to {"num_classes": 10}' in rows.loc["other shape", "error_message"]
    assert rows.loc["<b>../../up</b>", "error_type"] == "TypeError"
    assert rows.loc["good", "top1"] == 90
    assert rows["dse_z"].notna().tolist() == (rows["status"] == "ok").tolist()
    assert "<b>../../up" not in (out / "report" / "index.html").read_text()

    status = cli("status", "--out", out, code=1)
    assert "1 ok, 4 failed, 0 missing" in status.stdout
    assert "other shape@32: InputError" in status.stdout

    before = snapshot(out)
    assert "worker" not in cli("run", "--catalog", mine, "--out", out, code=1).stdout
    assert snapshot(out) == before
    shutil.copy(tmp_path / "good.safetensors", tmp_path / "cut.safetensors")
    assert "1 model to measure" in cli("run", "--catalog", mine, "--out", out, code=1).stdout
    assert (
        "3 models to measure"
        in cli("run", "--catalog", mine, "--out", out, "--retry-failed", code=1).stdout
    )
    assert read_results(out).set_index("model").loc["cut", "status"] == "ok"


def test_new_facts_in_a_catalogue_reach_the_rows_without_computing_anything(
    mine: Path, tmp_path: Path, cli: Command
) -> None:
    out = tmp_path / "out"
    cli("run", "--catalog", mine, "--out", out)
    first = read_results(out).iloc[0]
    mine.write_text(mine.read_text().replace("top1\n", "top1,v2_top1\n").replace(",90", ",91,81"))
    again = cli("run", "--catalog", mine, "--out", out, report=True)
    assert "worker" not in again.stdout
    second = read_results(out).iloc[0]
    assert (second["top1"], second["v2_top1"]) == (91, 81)
    assert second["finished_at"] == first["finished_at"]
    assert second["dsmi_z_y"] == first["dsmi_z_y"]
    assert (
        "v2_top1"
        in json.loads((out / "report" / "summary.json").read_text())["correlations"]["dsmi_z_y"]
    )


def test_names_that_would_leave_out_or_clash_get_rows_of_their_own_inside_it(
    mine: Path, tmp_path: Path, cli: Command
) -> None:
    names = ["../../escape", "/abs/olute", "..", "a/b", "a-b", "a b", "x" * 300, "x" * 299 + "y"]
    header, good, *_ = mine.read_text().splitlines()
    mine.write_text(
        "\n".join([header, *(good.replace("good,", f"{name},", 1) for name in names)]) + "\n"
    )
    out = tmp_path / "deep" / "er" / "out"
    before = {path for path in tmp_path.rglob("*") if "deep" not in path.parts}
    cli("run", "--catalog", mine, "--out", out)
    assert sorted(read_results(out)["model"]) == sorted(names)
    assert {path for path in tmp_path.rglob("*") if "deep" not in path.parts} == before


def test_the_driver_never_imports_torch_or_timm(
    tmp_path: Path, cache: Path, small_run: Path
) -> None:
    code = (
        "import sys\n"
        "from dsmi_zoo.jobs.cli.main import cli\n"
        f"cli.main(['run', '--models', 'test_vit.900x5', '--no-report', '--out', {str(tmp_path)!r}], "
        "standalone_mode=False)\n"
        "print(sorted({'torch', 'timm', 'torchvision', 'sklearn', 'scipy', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"DSMI_ZOO_CACHE": str(cache)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "['distributed']"


@pytest.mark.parametrize(
    "asked", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "the end of a batch job"]
)
def test_an_interrupt_ends_the_run_in_one_line_and_leaves_no_process(
    tmp_path: Path, cache: Path, small_run: Path, asked: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\n\ndef wait(Z, labels):\n    time.sleep(1)\n    return 0.0\n"
    )
    others = forked()
    driver = start_command(
        *("run", "--models", *SMALL_ZOO, "--measure", "slow:wait", "--out", "out", "--workers", 1),
        cwd=tmp_path,
        environment={"DSMI_ZOO_CACHE": str(cache)},
    )
    deadline = time.monotonic() + 120
    while "[1/6]" not in driver.stdout():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = forked() - others
    driver.send_signal(asked)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Traceback" not in errors
    assert errors.strip().endswith(
        "dsmi-zoo: stopped; what is finished is kept, and the same command goes on from here"
    )
    assert workers
    assert not psutil.wait_procs(workers, timeout=30)[1]


@pytest.mark.long
def test_an_interrupt_in_the_first_seconds_ends_it_in_one_line_and_leaves_no_process(
    tmp_path: Path, cache: Path
) -> None:
    program = str(Path(sys.executable).with_name("dsmi-zoo"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for number, after_s in enumerate((0.3, 0.9, 1.5, 2.1, 3.0, 4.0)):
        mark = {"DSMI_ZOO_TEST": f"{tmp_path}-{number}", "DSMI_ZOO_CACHE": str(cache)}
        command = [program, "run", "--out", str(tmp_path / f"{number}"), "--workers", "1"]
        with subprocess.Popen(
            command, env=os.environ | mark, text=True, start_new_session=True, **pipes
        ) as driver:
            time.sleep(after_s)
            if number % 2:
                driver.terminate()
            else:
                os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
            _, errors = driver.communicate(timeout=60)
        assert driver.returncode in (130, -signal.SIGINT, -signal.SIGTERM), (
            after_s,
            driver.returncode,
            errors,
        )
        assert len(errors.strip().splitlines()) <= 1, (after_s, errors)
        left = [
            process for process in psutil.process_iter() if _has(process, mark["DSMI_ZOO_TEST"])
        ]
        assert not psutil.wait_procs(left, timeout=15)[1], after_s


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("DSMI_ZOO_TEST") == mark
    except psutil.Error:
        return False
