"""The monitor with data-parallel training in two real processes (gloo): rank 0 measures, both get the values."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Process, free_port
from test_sharded_monitor import IMAGES, LABELS, Net

from dsmi_zoo.pipeline.monitor.file import read_monitor

pytestmark = [pytest.mark.long, pytest.mark.processes]


def by_hand(rank: int, folder: str) -> None:
    """Accumulate gradients of two microbatches on each of two ranks, with two optimisers."""
    import torch.distributed as dist

    from dsmi_zoo import RepresentationMonitor

    dist.init_process_group("gloo")
    inner = Net()
    net = torch.nn.parallel.DistributedDataParallel(inner)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (inner.stem, inner.head)]
    measured = []
    with RepresentationMonitor(net, IMAGES, LABELS, every=2, out=Path(folder) / "m", n=12) as m:
        for step in range(5):
            for half in range(2):
                part = slice(rank * 16 + half * 8, rank * 16 + half * 8 + 8)
                loss = torch.nn.functional.cross_entropy(net(IMAGES[part]), LABELS[part])
                loss.backward()
                m.record(loss=10.0 * step + half)
            for one in optimizers:
                one.step()
                one.zero_grad()
            measured.append(m.step())
    assert [one is not None for one in measured] == [rank == 0 and s in (1, 3) for s in range(5)]
    assert len(m.results) == (4 if rank == 0 else 0)
    total = sum(float(parameter.detach().double().sum()) for parameter in inner.parameters())
    print(f"weights {total:.12f}")


def lightning(rank: int, folder: str) -> None:
    """Stop early on a value that only rank 0 measures."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping
    from torch.utils.data import DataLoader, TensorDataset

    from dsmi_zoo import LightningMonitor

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    stop = EarlyStopping("dsmi_z_y", mode="max", min_delta=100.0, patience=2)
    monitor = LightningMonitor(
        IMAGES, LABELS, network="net", every=2, out=Path(folder) / "m", n=12, log=lambda *_: None
    )
    trainer = Trainer(
        max_epochs=9, callbacks=[stop, monitor], logger=False, enable_checkpointing=False, accelerator="cpu",
        devices=2, strategy="ddp", enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(TensorDataset(IMAGES[:40], LABELS[:40]), batch_size=10))
    print(f"epochs {trainer.current_epoch}, {float(stop.best_score):.6f}")


def hugging_face(rank: int, folder: str) -> None:
    """Choose the best model by a value that only rank 0 measures."""
    # Imported here: both libraries take seconds to import, and the other functions do not need them.
    sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    from test_monitor_callbacks import train_with

    from dsmi_zoo import TrainerMonitor

    images = torch.nn.functional.interpolate(IMAGES, size=8)
    monitor = TrainerMonitor(images, LABELS, every=4, out=Path(folder) / "m", n=12)
    trainer = train_with(
        monitor, Path(folder) / "t", max_steps=6, ddp_backend="gloo", eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=2, load_best_model_at_end=True, metric_for_best_model="dsmi_z_y",
        greater_is_better=True,
    )  # fmt: skip
    history = [entry["step"] for entry in trainer.state.log_history if "dsmi_z_y" in entry]
    print(f"best {trainer.state.best_metric:.6f}, {history}")


def on_rank(function: Callable[[int, str], None], rank: int, port: int, folder: str) -> None:
    # Set here, because for each new environment `Process` starts a server that imports everything. Nothing reads these
    # variables on import.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    function(rank, folder)
    sys.stdout.flush()
    os._exit(0)


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        (by_hand, [0, 2, 4, 5]),
        pytest.param(lightning, [0, 2, 4, 6], marks=pytest.mark.slow),
        pytest.param(hugging_face, [0, 2, 4, 6], marks=pytest.mark.slow),
    ],
)
def test_rank_0_measures_copies_of_a_network_and_every_process_gets_its_values(
    function: Callable[[int, str], None], steps: list[int], tmp_path: Path, server: None
) -> None:
    port = free_port()
    both = [Process(on_rank, function, rank, port, str(tmp_path)) for rank in range(2)]
    try:
        for process in both:
            process.wait(180)
        said = [process.stdout() + process.stderr() for process in both]
        assert [process.poll() for process in both] == [0, 0], said
    finally:
        for process in both:
            process.kill()
    results = [
        [line for line in one.splitlines() if line.startswith(("weights", "epochs", "best"))]
        for one in said
    ]
    assert results[0] == results[1] != [], said
    rows, _ = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == steps
    assert rows["dse_z"].notna().all()
    if function is by_hand:
        assert rows["loss"].tolist()[1:] == [5.5, 25.5, 40.5], "means over microbatches of rank 0"
