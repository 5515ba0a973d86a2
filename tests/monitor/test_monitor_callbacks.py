"""The monitor in the real Trainers of Lightning and Hugging Face, each with its own way to count and log."""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from test_monitor import inputs
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dsmi_zoo import LightningMonitor, TrainerMonitor
from dsmi_zoo.pipeline.monitor.file import NUMBERS, read_monitor

SETTINGS = {"every": 4, "n": 60}


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation", 8)


@pytest.fixture(autouse=True)
def complaints_of_others_pass() -> Iterator[None]:
    """Ignore the two libraries' warnings about the machine: few processors, no accelerator."""
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
    """Fit a network on the digits for ``steps`` optimiser steps, and return the trainer."""
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
    """The digits in the form that Hugging Face's image models take."""

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
    rows, facts = read_monitor(tmp_path / "curves")
    assert facts["own_numbers"] == "logged"
    assert rows["step"].tolist() == [0, 4, 8, 10]
    assert rows["embedding_dim"].tolist() == [16] * 4, "what the classifier is given"
    assert rows["loss"].notna().tolist() == [False, True, True, True]
    assert [step for step, _ in passed] == [0, 4, 8, 10]
    assert {"dsmi_z_y", "loss", "learning_rate"} <= set(passed[2][1])


def lightning_module(form: str, seen: list[float]) -> Any:
    """Return a module on the digits that logs its loss and appends the loss of each batch to ``seen``."""
    from lightning.pytorch import LightningModule

    class Logging(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.automatic_optimization = not form.startswith("manual")

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]).float(), batch[1])
            if form == "sometimes None" and number % 3 == 1:
                return None
            self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
            seen.append(float(loss.detach()))
            if form.startswith("manual"):
                self.step_by_hand(loss, number)
            return {"tensor": loss, "dict": {"loss": loss, "other": 1}}.get(form, loss)

        def step_by_hand(self, loss: torch.Tensor, number: int) -> None:
            self.manual_backward(loss / 2)
            if form == "manual, two optimisers" or number % 2 == 1:
                for optimizer in self.optimizers():
                    optimizer.step()
                    optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            if not form.startswith("manual"):
                return torch.optim.SGD(self.parameters(), lr=0.05)
            return [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in self.net[1::2]]

    return Logging()


@pytest.mark.parametrize(
    ("form", "accumulate", "precision", "batches_a_step", "steps_a_batch"),
    [
        ("tensor", 1, "32-true", 1, 1),
        ("tensor", 4, "32-true", 4, 1),
        ("dict", 4, "bf16-mixed", 4, 1),
        ("tensor", 3, "64-true", 3, 1),
        ("sometimes None", 2, "32-true", 0, 1),
        ("manual, two optimisers", 1, "32-true", 1, 2),
        ("manual, accumulated", 1, "32-true", 2, 2),
    ],
)
def test_the_loss_of_a_lightning_module_is_the_one_that_lightning_logs(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, form: str, accumulate: int, precision: Any,
    batches_a_step: int, steps_a_batch: int,
) -> None:  # fmt: skip
    """An epoch has ten batches, so the last accumulation of four has only two."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import CSVLogger

    seen: list[float] = []
    steps = -(-10 // max(batches_a_step, 2 if form == "sometimes None" else 1)) * steps_a_batch
    rows = {}
    for every in (1, steps):
        seen.clear()
        monitor = LightningMonitor(
            *held_out, network="net", out=tmp_path / str(every), every=every, n=60
        )
        trainer = Trainer(
            max_epochs=2, accumulate_grad_batches=accumulate, callbacks=[monitor], logger=CSVLogger(tmp_path),
            default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, precision=precision,
        )  # fmt: skip
        images, labels = inputs("train", 8)
        data = TensorDataset(
            images[:320].to(trainer.precision_plugin.convert_input(images).dtype), labels[:320]
        )
        trainer.fit(lightning_module(form, seen), DataLoader(data, batch_size=32))
        rows[every] = read_monitor(tmp_path / str(every))[0]
    logged = pd.read_csv(Path(trainer.logger.log_dir) / "metrics.csv")["loss"].dropna().tolist()
    of_epochs = rows[steps]
    assert of_epochs["step"].tolist() == [0, steps, 2 * steps]
    assert of_epochs["loss"][1:].tolist() == pytest.approx(logged, rel=1e-5)
    if batches_a_step:
        epochs = [seen[:10], seen[10:]]
        groups = [
            epoch[i : i + batches_a_step] for epoch in epochs for i in range(0, 10, batches_a_step)
        ]
        means = [sum(group) / len(group) for group in groups for _ in range(steps_a_batch)]
        assert rows[1]["loss"][1:].tolist() == pytest.approx(means, rel=1e-5)


def vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=10,
    )  # fmt: skip
    return ViTForImageClassification(config)


def train_with(
    monitor: TrainerMonitor, folder: Path, resume: bool = False, more: Any = (), **settings: Any
) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(**{
        "output_dir": str(folder), "max_steps": 7, "per_device_train_batch_size": 8, "logging_steps": 2,
        "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, **settings,
    })  # fmt: skip
    few = torch.utils.data.Subset(Digits(), range(40))
    trainer = Trainer(
        vit(), arguments, train_dataset=few, eval_dataset=few, callbacks=[monitor, *more]
    )
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


@pytest.mark.parametrize(
    "settings",
    [
        {"logging_steps": 2},
        {"logging_steps": 3},
        {"logging_steps": 1, "gradient_accumulation_steps": 2},
        {"logging_steps": 2, "eval_strategy": "steps", "eval_steps": 1},
        {"logging_strategy": "epoch", "eval_strategy": "epoch"},
        {"logging_steps": 7, "logging_first_step": True, "eval_on_start": True},
    ],
)
def test_the_row_of_a_step_has_what_the_trainer_logs_at_that_step(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, settings: dict[str, Any]
) -> None:
    passed: dict[int, dict[str, float]] = {}
    monitor = TrainerMonitor(
        *held_out, out=tmp_path / "m", every=2, n=60, log=lambda numbers, step: passed.update({step: numbers})
    )  # fmt: skip
    trainer = train_with(monitor, tmp_path, **settings)
    logged: dict[int, dict[str, float]] = {}
    for entry in trainer.state.log_history:
        if not {"train_runtime", "dsmi_z_y"} & set(entry):  # the Trainer's own
            logged.setdefault(entry["step"], {}).update(entry)
    rows, _ = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == [0, 2, 4, 6, 7]
    own = {name for entry in logged.values() for name in entry} - set(NUMBERS)
    for _, row in rows.iterrows():
        expected = logged.get(int(row["step"]), {})
        for name in own:
            value = row.get(name, float("nan"))
            assert value == pytest.approx(expected.get(name, float("nan")), nan_ok=True)
            assert passed[int(row["step"])].get(name) == expected.get(name)
    assert not any(name.startswith("train_") for name in rows)


def test_a_monitor_joins_a_trainer_that_resumes_with_or_without_earlier_rows(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def monitor(name: str) -> TrainerMonitor:
        return TrainerMonitor(*held_out, out=tmp_path / name, every=2, n=60)

    train_with(monitor("both"), tmp_path, save_strategy="steps", save_steps=4)
    train_with(monitor("both"), tmp_path, resume=True, max_steps=9)
    assert "continues at step 7 with 5 measurements" in capsys.readouterr().out
    assert read_monitor(tmp_path / "both")[0]["step"].tolist() == [0, 2, 4, 6, 7, 8, 9]
    with pytest.warns(UserWarning, match=r"monitor.parquet is missing; it begins at step 7"):
        trainer = train_with(monitor("late"), tmp_path, resume=True, max_steps=9)
    rows, _ = read_monitor(tmp_path / "late")
    assert rows["step"].tolist() == [7, 8, 9]
    losses = {
        entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry
    }
    assert rows["loss"].tolist() == pytest.approx(
        [float("nan"), losses[8], float("nan")], nan_ok=True
    )


def test_the_last_state_is_measured_before_the_trainer_loads_its_best_model(
    held_out: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    found = []
    for best in (False, True):
        monitor = TrainerMonitor(*held_out, out=tmp_path / str(best), every=3, n=60)
        train_with(
            monitor, tmp_path / "t", eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
            load_best_model_at_end=best, learning_rate=0.3,
        )  # fmt: skip
        found.append(read_monitor(tmp_path / str(best))[0])
    assert found[0]["step"].tolist() == found[1]["step"].tolist() == [0, 3, 6, 7]
    assert found[0]["dse_z"].tolist() == found[1]["dse_z"].tolist()


@pytest.mark.parametrize(
    ("library", "ours", "missing"),
    [("lightning", "lightning", "hf_trainer"), ("transformers", "hf_trainer", "lightning")],
)
def test_the_callback_of_one_library_needs_no_other(
    library: str, ours: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [name for name in sys.modules if name.split(".")[0] in ("lightning", "transformers")]
    for name in (*others, "lightning.pytorch", "transformers"):
        if name.split(".")[0] != library:
            monkeypatch.setitem(sys.modules, name, None)
    loaded(f"dsmi_zoo.pipeline.monitor.{ours}")
    with pytest.raises(ImportError, match="pip install 'dsmi-zoo"):
        loaded(f"dsmi_zoo.pipeline.monitor.{missing}")


def loaded(name: str) -> ModuleType:
    """Execute a fresh copy of a module, whether or not it has been imported, and return the copy."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
