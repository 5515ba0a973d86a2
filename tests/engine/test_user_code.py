"""Hostile user code in measures and builders: whatever it does, every entry ends with a row that reports it."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import Command

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.files import array_sha256
from dsmi_zoo.pipeline.measures.own import load_measure, try_measures
from dsmi_zoo.pipeline.store.embedding_file import embedding_path
from dsmi_zoo.pipeline.store.run_folder import read_results, read_run

pytestmark = pytest.mark.long

FATES = {
    "exit": "sys.exit(0)",
    "interrupt": "raise KeyboardInterrupt",
    "leave": "os._exit(0)",
    "stop": "os.kill(os.getpid(), signal.SIGSTOP)",
    "hang": "time.sleep(600)",
    "surrogate": "raise ValueError('\\udcff\\x1b[31m')",
}
FATEFUL = """
import hashlib, os, signal, sys, time

FATES = {fates!r}

def fate(Z, labels):
    mine = FATES.get(hashlib.sha256(Z.tobytes()).hexdigest(), "pass")
    exec(mine)
    return 1.0
"""
ENDS = {
    "exit": ("ValueError", "raised SystemExit: 0"),
    "interrupt": ("KeyboardInterrupt", ""),
    "leave": ("KilledWorker", "its worker process died 3 times, the last time with exit code 0"),
    "stop": ("KilledWorker", "the last time by SIGKILL, because it was suspended for 12 s"),
    "hang": ("TimeoutError", "took longer than --model-timeout 12 s; see "),
    "surrogate": ("ValueError", "\\udcff\x1b[31m"),
}


@pytest.fixture
def fates(small_run: Path, tmp_path: Path) -> dict[str, str]:
    """Write a measure that acts differently on each of the six models; return the name of each model's act."""
    entries = sorted(read_run(small_run).entries, key=lambda entry: entry.slug)
    of_model = {entry.model: fate for entry, fate in zip(entries, FATES, strict=True)}
    of_embedding = {}
    for entry in entries:
        Z = np.load(embedding_path(small_run, entry.slug))
        of_embedding[hashlib.sha256(Z.tobytes()).hexdigest()] = FATES[of_model[entry.model]]
    (tmp_path / "fateful.py").write_text(FATEFUL.format(fates=of_embedding))
    return of_model


def assert_each_has_its_fate(out: Path, of_model: dict[str, str]) -> None:
    rows = read_results(out).set_index("model")
    assert sorted(rows.index) == sorted(of_model)
    assert (rows["status"] == "failed").all()
    for model, fate in of_model.items():
        kind, words = ENDS[fate]
        assert rows.loc[model, "error_type"] == kind, fate
        assert words in rows.loc[model, "error_message"]


@pytest.mark.slow
def test_a_measure_that_exits_leaves_or_hangs_is_a_failed_row_of_remeasure(
    small_run: Path, tmp_path: Path, fates: dict[str, str], cli: Command
) -> None:
    remeasure = (
        "remeasure",
        "--out",
        small_run,
        "--into",
        tmp_path / "out",
        "--measure",
        "fateful:fate",
    )
    said = cli(*remeasure, "--model-timeout", "12s", "--workers", 2, cwd=tmp_path, code=1)
    assert "6 models: 0 ok, 6 failed" in said.stdout
    assert_each_has_its_fate(tmp_path / "out", fates)


BUILDERS = """
import os, sys
import torch

def exits(): sys.exit(0)
def interrupts(): raise KeyboardInterrupt
def leaves(): os._exit(0)
def works(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))
"""


def test_a_builder_that_exits_interrupts_or_leaves_is_a_failed_row(
    tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "hostile_builders.py").write_text(BUILDERS)
    names = ("exits", "interrupts", "leaves", "works")
    table = pd.DataFrame(
        {"model": names, "builder": [f"hostile_builders:{name}" for name in names], "img_size": 32}
    )
    table.to_csv(tmp_path / "zoo.csv", index=False)
    out = tmp_path / "out"
    cli(
        "run",
        "--catalog",
        "zoo.csv",
        "--out",
        out,
        "--share",
        "1/1",
        "--workers",
        1,
        cwd=tmp_path,
        code=1,
    )
    rows = read_results(out).set_index("model")
    assert rows["status"].to_dict() == {
        "exits": "failed",
        "interrupts": "failed",
        "leaves": "failed",
        "works": "ok",
    }
    assert "raised SystemExit" in rows.loc["exits", "error_message"]
    assert rows.loc["interrupts", "error_type"] == "KeyboardInterrupt"
    assert rows.loc["leaves", "error_type"] == "KilledWorker"


def test_exit_code_0_is_not_said_when_a_row_was_removed_meanwhile(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "thief.py").write_text(
        "from pathlib import Path\n\n"
        "def steal(Z, labels):\n"
        "    for row in Path('out/results').glob('*.parquet'):\n"
        "        row.unlink()\n"
        "    return 0.0\n"
    )
    remeasure = (
        "remeasure",
        "--out",
        small_run,
        "--into",
        "out",
        "--measure",
        "thief:steal",
        "--workers",
        1,
    )
    said = cli(*remeasure, cwd=tmp_path, code=1)
    assert "6 models: 1 ok, 0 failed, 5 missing" in said.stdout
    assert "has no row: not computed yet" in said.stdout
    assert "5 rows missing at the end; the same command computes them" in said.stdout


def test_a_measure_cannot_change_the_embedding_that_others_see_and_that_is_kept(
    tmp_path: Path,
) -> None:
    module = tmp_path / "in_place.py"
    module.write_text("def centred(Z, labels):\n    Z -= Z.mean(0)\n    return 0.0\n")
    Z = np.arange(12.0).reshape(4, 3)
    before = array_sha256(Z)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "path", sys.path.copy())
        measure = load_measure("in_place:centred")
        with pytest.raises(ValueError, match=r"in_place:centred raised ValueError: .*read-only"):
            measure.value(Z, np.arange(4))
    assert array_sha256(Z) == before
    assert Z.flags.writeable


IN_SPITE_OF_NUMPY = """
import os

def centred(Z, labels):
    import torch
    t = torch.from_numpy(Z)
    t -= t.mean(0)
    torch.from_numpy(labels).clamp_(0, 1)
    Z.flags.writeable = True
    Z[0] = 0
    torch.set_default_dtype(torch.float64)
    return 0.0

def forked(Z, labels):
    os.fork()
    return 1.0

def first_coordinate(Z, labels):
    return float(Z[:, 0].mean())

def classes(Z, labels):
    return len(set(labels.tolist()))
"""


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_what_a_measure_does_to_torch_or_by_force_is_not_seen_by_others(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "forced.py").write_text(IN_SPITE_OF_NUMPY)
    names = ("centred", "forked", "first_coordinate", "classes")
    measures = [part for name in names for part in ("--measure", f"forced:{name}")]
    out = tmp_path / "out"
    cli("remeasure", "--out", small_run, "--into", out, *measures, "--workers", 1, cwd=tmp_path)
    rows = read_results(out).set_index("model")
    assert (rows["status"] == "ok").all()
    assert (rows["classes"] == 10).all()
    for entry in read_run(small_run).entries:
        Z = np.load(embedding_path(small_run, entry.slug))
        assert rows.loc[entry.model, "first_coordinate"] == pytest.approx(float(Z[:, 0].mean()))
    right = read_results(small_run).set_index("model")
    assert rows["dse_z"].to_dict() == right["dse_z"].to_dict()
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(0)", r"the import ends its process \(exit code 0\)"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            r"the import ends its process \(exit code -11\)",
        ),
        ("import time; time.sleep(600)", r"the import takes longer than --model-timeout 5 s"),
        ("import sys; sys.exit(0)", r"cannot import hostile_import \(SystemExit: 0\)"),
        ("raise KeyboardInterrupt", r"KeyboardInterrupt"),
    ],
)
def test_a_module_that_ends_or_holds_up_who_imports_it_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    (tmp_path / "hostile_import.py").write_text(f"{code}\n\ndef f(Z, labels): return 0.0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as refused:
        try_measures(["hostile_import:f"], timeout_s=5)
    assert "\n" not in str(refused.value)
    assert "hostile_import" not in sys.modules


def test_a_measure_that_leaves_on_import_does_not_end_a_command_with_code_0(
    small_run: Path, tmp_path: Path, cli: Command
) -> None:
    (tmp_path / "leaver.py").write_text("import os; os._exit(0)\n\ndef f(Z, labels): return 0.0\n")
    remeasure = (
        "remeasure",
        "--out",
        small_run,
        "--into",
        tmp_path / "out",
        "--measure",
        "leaver:f",
    )
    assert (
        "measure 'leaver:f': the import ends its process"
        in cli(*remeasure, cwd=tmp_path, code=2).stderr
    )
