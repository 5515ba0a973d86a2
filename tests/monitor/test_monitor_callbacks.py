"""The monitor in Lightning's Trainer and in Hugging Face's: the real ones, each with its own way to count and log."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_monitor import inputs
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dsmi_zoo import LightningMonitor, TrainerMonitor
from dsmi_zoo.pipeline.monitor.file import read_monitor

SETTINGS = {"every": 4, "n": 60}


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation", 8)


@pytest.fixture(autouse=True)
def complaints_of_others_pass() -> Iterator[None]:
    """The two libraries warn of the machine: few processors, no accelerator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )


def fit(
    monitor: LightningMonitor,
    folder: Path,
    steps: int,
    resume: str | None = None,
    accumulate: int = 1,
) -> Any:
    """Fit a network on the digits for so many optimiser steps, and return the trainer."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger

    class Digits(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    trainer = Trainer(
        max_steps=steps, accumulate_grad_batches=accumulate, callbacks=[monitor], logger=CSVLogger(folder / "csv"),
        default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(
        Digits(), DataLoader(TensorDataset(*inputs("train", 8)), batch_size=32), ckpt_path=resume
    )
    return trainer


def test_a_lightning_module_is_measured_every_so_many_optimiser_steps_and_resumed(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    monitor = LightningMonitor(*held_out, network="net", out=tmp_path / "curves", **SETTINGS)
    trainer = fit(monitor, tmp_path, 10, accumulate=2)
    rows, _ = read_monitor(tmp_path / "curves")
    assert rows["step"].tolist() == [0, 4, 8, 10]
    assert rows["embedding_dim"].tolist() == [32] * 4, "the input of the last linear layer"
    assert rows["loss"].notna().tolist() == [False, True, True, True]
    logged = pd.read_csv(Path(trainer.logger.log_dir) / "metrics.csv")
    assert logged["dsmi-zoo/dsmi_z_y"].dropna().tolist() == pytest.approx(rows["dsmi_z_y"].tolist())

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = LightningMonitor(*held_out, network="net", out=tmp_path / "curves", **SETTINGS)
    fit(again, tmp_path, 14, str(tmp_path / "last.ckpt"), accumulate=2)
    assert read_monitor(tmp_path / "curves")[0]["step"].tolist() == [0, 4, 8, 10, 12, 14]


class Digits(Dataset[dict[str, torch.Tensor]]):
    """What Hugging Face's models for images take."""

    def __init__(self) -> None:
        self.images, self.labels = inputs("train", 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.images[i], "labels": self.labels[i]}


def test_a_hugging_face_trainer_is_measured_with_what_it_logs(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=10,
    )  # fmt: skip
    passed = []
    monitor = TrainerMonitor(
        *held_out,
        out=tmp_path / "curves",
        log=lambda numbers, step: passed.append((step, numbers)),
        **SETTINGS,
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"), max_steps=10, per_device_train_batch_size=32, logging_steps=2,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        ViTForImageClassification(config), arguments, train_dataset=Digits(), callbacks=[monitor]
    ).train()
    rows, _ = read_monitor(tmp_path / "curves")
    assert rows["step"].tolist() == [0, 4, 8, 10]
    assert rows["embedding_dim"].tolist() == [16] * 4, "what the classifier is given"
    assert rows["loss"].notna().tolist() == [False, True, True, True]
    assert [step for step, _ in passed] == [0, 4, 8, 10]
    assert {"dsmi_z_y", "loss", "learning_rate"} <= set(passed[2][1])
