"""A catalogue of one training's checkpoints: the example of docs/monitor.md, run verbatim."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import Command
from pages import DOCS, code_blocks
from test_monitor import inputs

from dsmi_zoo.data_catalog.datasets.registry import open_dataset
from dsmi_zoo.pipeline.measures import diffusion_spectral_entropy
from dsmi_zoo.pipeline.store.run_folder import read_results, rows_frame
from dsmi_zoo.reports.figures.curves import over_epochs

pytestmark = pytest.mark.slow  # a training, and a run with its report


def example() -> str:
    page = (DOCS / "monitor.md").read_text(encoding="utf-8")
    return next(content for _, content in code_blocks(page) if "train_one_epoch" in content)


def train_one_epoch(model: torch.nn.Module) -> None:
    images, labels = inputs("train")
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in torch.randperm(len(labels)).split(50):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimiser.step()


def computed_by_timm(weights: Path) -> tuple[np.ndarray, float]:
    """Return a checkpoint's penultimate embedding [n, d] and accuracy in percent, with timm's own preprocessing."""
    digits = open_dataset("digits")
    model = timm.create_model("test_resnet", num_classes=10).eval()
    model.load_state_dict(safetensors.torch.load_file(weights))
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    )
    images = torch.stack([transform(digits.image(i)) for i in range(len(digits.labels))])
    with torch.no_grad():
        embedding = model.forward_head(model.forward_features(images), pre_logits=True)
        hits = model(images).argmax(dim=1).numpy() == digits.labels
    return embedding.numpy(), 100 * float(hits.mean())


def test_the_pages_example_measures_a_training_epoch_by_epoch(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(example(), {"train_one_epoch": train_one_epoch})
    run = ("run", "--catalog", "checkpoints.csv", "--out", "runs/checkpoints")
    cli(*run, cwd=tmp_path, report=True, images_per_class=None)
    rows = read_results(tmp_path / "runs" / "checkpoints").sort_values("epoch")
    assert rows["status"].tolist() == ["ok"] * 3
    assert rows["epoch"].tolist() == [0, 1, 2]
    for _, row in rows.iterrows():
        embedding, accuracy = computed_by_timm(tmp_path / f"epoch{row['epoch']:.0f}.safetensors")
        assert row["subset_top1"] == pytest.approx(accuracy, abs=0.5), "one image in a tie"
        assert row["dse_z"] == pytest.approx(diffusion_spectral_entropy(embedding), abs=1e-3)
    assert rows["dse_z"].nunique() == 3, "each checkpoint was measured with its own weights"
    report = tmp_path / "runs" / "checkpoints" / "report"
    page = (report / "index.html").read_text()
    assert 'id="epochs"' in page
    assert (report / "figures" / "epochs.png").is_file()


def test_curves_over_epochs_need_two_of_them() -> None:
    rows = rows_frame(
        [
            {"model": f"m{i}", "architecture": "a", "status": "ok", "dse_z": float(i)}
            for i in range(6)
        ]
    )
    assert over_epochs(rows) is None
    assert over_epochs(rows.assign(epoch=1)) is None
    assert over_epochs(rows.assign(epoch=[0, 1, 2, 0, 1, 2])) is not None
