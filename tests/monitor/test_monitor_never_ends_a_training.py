"""Faults injected at each stage of a measurement: training goes on as if there were no monitor."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_monitor import Small, inputs, seeded, train

from dsmi_zoo.pipeline.monitor import monitor as module
from dsmi_zoo.pipeline.monitor.file import read_monitor
from dsmi_zoo.pipeline.monitor.monitor import RepresentationMonitor

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fails(error: Exception) -> Any:
    def function(*_: Any, **__: Any) -> Any:
        random.random()
        torch.rand(1)
        raise error

    return function


def train_steps(monitor: RepresentationMonitor, count: int, **numbers: Any) -> None:
    for _ in range(count):
        monitor.step(**numbers)


STAGES = {
    "the choice of n": (RepresentationMonitor, "_choose_n", ValueError("no\nbudget")),
    "clusters": (module, "clusters_of", MemoryError()),
    "forward pass": (module, "layer_activations", torch.OutOfMemoryError("CUDA out of memory")),
    "measures": (module, "_measured", RuntimeError("svd failed to converge")),
    "means": (RepresentationMonitor, "_means", OverflowError("too large")),
    "disk": (module, "write_monitor", OSError(28, "No space left on device")),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_stage_is_said_once_and_changes_no_weight(
    stage: str, tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    owner, name, error = STAGES[stage]
    seeded()
    alone = Small()
    train(alone, 8)
    end = (torch.rand(1), random.random(), np.random.rand())  # noqa: NPY002
    seeded()
    model = Small()
    n = None if stage == "the choice of n" else 40
    monitor = RepresentationMonitor(model, *held_out, every=2, out=tmp_path / "m", n=n)
    monkeypatch.setattr(owner, name, fails(error))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(model, 8, monitor)
    ours = [str(one.message) for one in said]
    assert len(ours) == 1, ours
    assert type(error).__name__ in ours[0]
    assert "training goes on" in ours[0] or "cannot be measured" in ours[0]
    assert "\n" not in ours[0]
    assert end == (torch.rand(1), random.random(), np.random.rand())  # noqa: NPY002
    assert torch.is_grad_enabled()
    assert not any(part._forward_hooks for part in model.modules())
    expected = alone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="monitor: measuring")
        train(model, 2, monitor)
        monitor.close()
    rows, _ = read_monitor(tmp_path / "m")
    assert rows.iloc[-1]["step"] == 10
    assert rows.iloc[-1]["dse_z"] > 0, "the fault is over, and so are its effects"


def test_a_fault_within_the_network_leaves_modes_hooks_and_gradients(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = Small()
    monitor = RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m", n=40)
    modes = [part.training for part in model.modules()]
    model(held_out[0][:8]).sum().backward()
    before = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    hook = model.head.register_forward_pre_hook(fails(RuntimeError("inside")))
    with pytest.warns(UserWarning, match="step 1 cannot be measured, .*RuntimeError: inside"):
        monitor.step(loss=torch.tensor(2.0))
    hook.remove()
    assert [part.training for part in model.modules()] == modes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert monitor.results["loss"].tolist()[1:] == [2.0], "the row keeps the loss"
    model.head.register_forward_pre_hook(fails(KeyboardInterrupt()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        monitor.step()
    assert [part.training for part in model.modules()] == modes


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (torch.ones(32), r"loss is not recorded: it is a tensor of shape \[32\]; pass one number"),
        (np.ones((2, 2)), r"loss is not recorded: it is an array of shape \[2, 2\]"),
        ("0.5 bits", "loss is not recorded: '0.5 bits' is not a number"),
        (None, "loss is not recorded: None is not a number"),
        (torch.tensor(1j), "loss is not recorded"),
    ],
)
def test_a_loss_that_is_not_a_number_is_said_once_and_left_out(
    loss: Any, words: str, tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    monitor = RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m", n=40)
    with pytest.warns(UserWarning, match=words) as said:
        train_steps(monitor, 2, loss=loss, rate=np.array([0.5]))
    assert len(said) == 1
    monitor.close()
    rows, _ = read_monitor(tmp_path / "m")
    assert rows["rate"].tolist()[1:] == [0.5, 0.5]
    assert "loss" not in rows


def test_a_loss_that_the_loop_goes_on_to_change_in_place_is_recorded_as_it_was(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with RepresentationMonitor(Small(), *held_out, every=3, out=tmp_path / "m", n=40) as monitor:
        buffer = torch.zeros(1)
        for value in (1.0, 2.0, 6.0):
            monitor.step(loss=buffer.fill_(value))
    assert monitor.results["loss"].tolist()[1:] == [3.0]


def test_where_warnings_are_errors_a_fault_is_logged_and_training_goes_on(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    monitor = RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m", n=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.step(loss="text")  # type: ignore[arg-type]
    assert "monitor: loss is not recorded: 'text' is not a number" in caplog.text


class Counting(torch.nn.Module):
    """A network that changes buffers in every forward pass, one in place and one by replacing it."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(3 * 32 * 32, 10)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output = self.line(x.flatten(1))
        self.last = output[0].detach()
        return output


def test_buffers_that_a_forward_pass_changes_are_restored(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = Counting()
    last = model.last
    RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m", n=40).step()
    assert model.calls == 0
    assert model.last is last


def test_measuring_a_compiled_network_compiles_nothing_for_the_training(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    compiled: list[Any] = []

    def backend(graph: Any, examples: Any) -> Any:
        compiled.append(examples)
        return graph.forward

    model = Small()
    model.body = torch.compile(model.body, backend=backend)  # type: ignore[assignment]
    monitor = RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m", n=40)
    assert not compiled
    model(held_out[0][:8])
    times = len(compiled)
    assert times > 0
    monitor.step()
    model(held_out[0][:8])
    assert len(compiled) == times
    monitor.close()


def test_an_average_of_the_weights_can_be_measured_beside_the_network(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = Small()
    average = torch.optim.swa_utils.AveragedModel(model)
    for name, watched in (("plain", model), ("average", average)):
        RepresentationMonitor(watched, *held_out, every=1, out=tmp_path / name, n=40).step()
    rows = [read_monitor(tmp_path / name)[0]["dse_z"].tolist() for name in ("plain", "average")]
    assert rows[0] == rows[1]


def test_numbers_of_accumulated_batches_are_recorded_without_a_step(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m", n=40) as monitor:
        monitor.record(loss=1.0)
        monitor.step(loss=3.0)
    assert monitor.results["step"].tolist() == [0, 1]
    assert monitor.results["loss"].tolist()[1:] == [2.0]


def test_a_monitor_attached_to_a_training_that_resumes_continues_or_begins_there(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"every": 2, "n": 40, "out": tmp_path / "m"}
    with pytest.warns(UserWarning, match=r"monitor.parquet is missing; it begins at step 500"):
        monitor = RepresentationMonitor(Small(), *held_out, start=500, **settings)
    with monitor:
        for _ in range(4):
            monitor.step()
    rows, _ = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == [500, 502, 504]
    assert rows["seconds_training"][0] == 0
    with RepresentationMonitor(Small(), *held_out, start=503, **settings) as monitor:
        monitor.step()
    said = capsys.readouterr().out
    assert "continues at step 503 with 2 measurements, without 1 later measurement" in said
    assert read_monitor(tmp_path / "m")[0]["step"].tolist() == [500, 502, 504]
    with RepresentationMonitor(Small(), *held_out, start=100, **settings) as monitor:
        monitor.step()
    assert read_monitor(tmp_path / "m")[0]["step"].tolist() == [100, 101]


def test_a_collapsed_network_keeps_every_value_that_is_defined(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = Small()
    monitor = RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m", n=40)
    monitor.step()
    model.frozen.weight.data.zero_()
    with pytest.warns(UserWarning, match="step 2 lacks values: dsmi_z_y_angular: ") as said:
        train_steps(monitor, 2)
    assert len(said) == 1
    monitor.close()
    rows, _ = read_monitor(tmp_path / "m")
    assert rows["dsmi_z_y_angular"].notna().tolist() == [True, True, False, False]
    assert rows["dse_z"].tolist()[2:] == pytest.approx([0, 0], abs=1e-6)
    assert rows["centre_accuracy"].notna().all()
