"""A training's checkpoints are a catalogue: the README's example, run as it stands there."""

from pathlib import Path

import pytest
import torch
from conftest import Command
from test_monitor import inputs
from test_readme import README

from dsmi_zoo.pipeline.store import read_results, rows_frame
from dsmi_zoo.reports.curves import over_epochs


def example() -> str:
    return next(block for block in README.split("```python\n") if "train_one_epoch" in block).split("```")[0]


def train_one_epoch(model: torch.nn.Module) -> None:
    images, labels = inputs("train")
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in torch.randperm(len(labels)).repeat(3).split(50):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimiser.step()


def test_the_readmes_example_measures_a_training_epoch_by_epoch(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(example(), {"train_one_epoch": train_one_epoch})
    cli("run", "--catalog", "checkpoints.csv", "--out", "runs/checkpoints", cwd=tmp_path)
    rows = read_results(tmp_path / "runs" / "checkpoints").sort_values("epoch")
    assert rows["status"].tolist() == ["ok"] * 3
    assert rows["epoch"].tolist() == [0, 1, 2]
    assert rows["subset_top1"].iloc[2] > rows["subset_top1"].iloc[0] + 10
    report = tmp_path / "runs" / "checkpoints" / "report"
    page = (report / "index.html").read_text()
    assert 'id="epochs"' in page
    assert "Over training" in (report / "report.md").read_text()
    assert (report / "figures" / "epochs.png").is_file()


def test_curves_over_epochs_need_two_of_them() -> None:
    rows = rows_frame([{"model": f"m{i}", "architecture": "a", "status": "ok", "dse_z": float(i)} for i in range(6)])
    assert over_epochs(rows) is None
    assert over_epochs(rows.assign(epoch=1)) is None
    assert over_epochs(rows.assign(epoch=[0, 1, 2, 0, 1, 2])) is not None
