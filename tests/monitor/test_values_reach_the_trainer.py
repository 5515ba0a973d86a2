"""A monitor's values in the training loop, Lightning's callbacks, and Hugging Face's history and metrics."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_monitor import Small, inputs
from test_monitor_callbacks import (  # noqa: F401 the fixture
    complaints_of_others_pass,
    network,
    train_with,
)
from torch.utils.data import DataLoader, TensorDataset

from dsmi_zoo import LightningMonitor, RepresentationMonitor, TrainerMonitor
from dsmi_zoo.pipeline.monitor.file import read_monitor

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation", 8)


def test_a_step_returns_what_it_measured_and_last_keeps_it(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with RepresentationMonitor(Small(), *held_out, every=2, out=tmp_path / "m", n=40) as monitor:
        assert monitor.last is None
        assert monitor.step(loss=3.0) is None
        measured = monitor.step(loss=1.0)
        assert measured is not None
        assert monitor.step() is None
        assert monitor.last == measured
    rows, _ = read_monitor(tmp_path / "m")
    row = rows[rows["step"] == 2].iloc[0].dropna().to_dict()
    assert measured == pytest.approx(row, rel=0.2)
    assert (measured["step"], measured["loss"]) == (2, 2.0)
    assert monitor.last is not None
    assert monitor.last["step"] == 3


def test_lightnings_early_stopping_and_checkpoints_use_a_measured_value(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Epochs have ten steps. Both callbacks need a value when the first ends, so step 10 is measured before step 15."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    class Digits(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    stop = EarlyStopping("dsmi_z_y", mode="max", min_delta=100.0, patience=2)
    keep = ModelCheckpoint(tmp_path / "best", monitor="dsmi_z_y", mode="max")
    monitor = LightningMonitor(
        *held_out, network="net", out=tmp_path / "m", every=15, n=60, log=lambda *_: None
    )
    trainer = Trainer(
        max_epochs=9, callbacks=[stop, keep, monitor], logger=False, default_root_dir=tmp_path, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    images, labels = inputs("train", 8)
    trainer.fit(Digits(), DataLoader(TensorDataset(images[:320], labels[:320]), batch_size=32))
    rows, _ = read_monitor(tmp_path / "m")
    assert trainer.current_epoch == 3, "the first epoch's value was never surpassed by 100"
    assert rows["step"].tolist() == [0, 10, 15, 30]
    values = dict(zip(rows["step"], rows["dsmi_z_y"], strict=True))
    assert stop.best_score == pytest.approx(values[10])
    assert keep.best_model_score == pytest.approx(max(values[10], values[15], values[30]))
    assert trainer.callback_metrics["dsmi_z_y"] == pytest.approx(values[30])
    assert "loss" not in trainer.callback_metrics


def test_hugging_faces_history_metrics_and_best_model_have_the_values(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    from transformers import EarlyStoppingCallback, TrainerCallback

    seen: list[dict[str, float]] = []

    class Later(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
            seen.append(dict(metrics))

    monitor = TrainerMonitor(*held_out, out=tmp_path / "m", every=4, n=60)
    trainer = train_with(
        monitor, tmp_path / "t", more=[Later(), EarlyStoppingCallback(3, 100.0)], max_steps=40,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True,
        metric_for_best_model="dsmi_z_y", greater_is_better=True,
    )  # fmt: skip
    rows, _ = read_monitor(tmp_path / "m")
    values = dict(zip(rows["step"], rows["dsmi_z_y"], strict=True))
    history = {entry["step"]: entry for entry in trainer.state.log_history if "dsmi_z_y" in entry}
    assert list(history) == rows["step"].tolist()[1:]
    assert list(history) == [2, 4, 6, 8], "each evaluation is measured, and the stop counts them"
    for step, entry in history.items():
        assert entry["dsmi_z_y"] == pytest.approx(values[step])
    assert [one["eval_dsmi_z_y"] for one in seen] == pytest.approx(
        [values[step] for step in history]
    )
    assert trainer.state.best_metric == pytest.approx(max(values[step] for step in history))
