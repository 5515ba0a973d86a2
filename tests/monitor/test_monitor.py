"""The monitor: its values equal the pipeline's, and the training is unaffected."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import Command
from pages import DOCS, code_blocks

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.data_catalog.datasets.libraries import digits_split
from dsmi_zoo.pipeline.measures import cluster_inputs, measure
from dsmi_zoo.pipeline.monitor.file import monitor_path, read_monitor
from dsmi_zoo.pipeline.monitor.monitor import RepresentationMonitor

pytestmark = pytest.mark.long


def inputs(part: str, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels, _ = digits_split(part)  # type: ignore[arg-type]
    images = torch.from_numpy(pixels).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    return torch.nn.functional.interpolate(images, size=side), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation")


class Small(torch.nn.Module):
    """A network with batch norm, dropout and a module that the user keeps in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(0.3),
            torch.nn.Conv2d(8, 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        )  # fmt: skip
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(16, 10))
        self.frozen = torch.nn.BatchNorm1d(16).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.body(x).mean((2, 3))))


def train(model: torch.nn.Module, steps: int, monitor: RepresentationMonitor | None = None) -> None:
    """Train with augmentation that draws from every random state."""
    images, labels = inputs("train")
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        batch = torch.from_numpy(np.random.permutation(len(labels))[:32])  # noqa: NPY002 what users' loops do
        x = images[batch].roll(random.randint(-2, 2), dims=3) + 0.1 * torch.randn(
            len(batch), 3, 32, 32
        )
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels[batch]).backward()
        optimiser.step()
        if monitor is not None:
            monitor.step()


def seeded() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: on such small networks, two wait for each other and, on a busy machine, for other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def without_complaints_of_the_cost() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="monitor: measuring .* of the training time")
        yield


def test_training_with_the_monitor_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    states, ends = [], []
    for watched in (False, True):
        seeded()
        model = Small()
        modes = [module.training for module in model.modules()]
        if watched:
            with RepresentationMonitor(
                model, *held_out, every=3, out=tmp_path / "m", n=60
            ) as monitor:
                train(model, 10, monitor)
        else:
            train(model, 10)
        assert [module.training for module in model.modules()] == modes
        states.append(model.state_dict())
        ends.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))  # noqa: NPY002
    assert ends[0] == ends[1]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert read_monitor(tmp_path / "m")[0]["step"].tolist() == [0, 3, 6, 9, 10]


class Noisy(torch.nn.Module):
    """A network that draws from every random state, even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x.flatten(1) + torch.rand(1) + np.random.rand() + random.random())  # noqa: NPY002


def test_a_model_that_draws_random_numbers_leaves_every_random_state_as_it_was(
    tmp_path: Path,
) -> None:
    seeded()
    before = (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random())  # noqa: NPY002
    model, images = Noisy(), torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seeded()
    with RepresentationMonitor(
        model, images, np.arange(20) % 2, every=1, out=tmp_path / "m", n=20
    ) as monitor:
        monitor.step()
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == before  # noqa: NPY002


def test_a_timm_models_pre_logits_are_measured_as_the_pipeline_measures_them(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = held_out[0][:120], held_out[1][:120]
    model = timm.create_model("test_resnet", num_classes=10)
    with RepresentationMonitor(model, images, labels, every=1, out=tmp_path / "m", n=120):
        pass
    with RepresentationMonitor(
        model, images, labels, every=1, out=tmp_path / "n", n=120
    ) as monitor:
        monitor.step()
    rows, facts = read_monitor(tmp_path / "n")
    with torch.no_grad():
        model.eval()
        embedding = model.forward_head(model.forward_features(images), pre_logits=True).numpy()
    clusters = cluster_inputs(images.flatten(1).double().numpy(), 10)
    expected = measure(embedding, labels.numpy(), input_clusters=clusters)
    assert facts["n"] == 120
    assert not monitor_path(tmp_path / "m").exists(), "a training without steps leaves nothing"
    # The monitor reorders the images, which changes the measures' random subsets and the clusters' numbers.
    assert rows["dse_z"].tolist() == pytest.approx([expected["dse_z"]] * 2, abs=1e-4)
    assert rows["dsmi_z_y"].tolist() == pytest.approx([expected["dsmi_z_y"]] * 2, abs=0.05)
    assert rows["dsmi_z_x"].tolist() == pytest.approx([expected["dsmi_z_x"]] * 2, abs=0.05)


def test_the_penultimate_layer_of_any_module_is_the_input_of_its_last_linear_one(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    model = Small().eval()
    images, labels = held_out[0][:80], held_out[1][:80]
    taken: dict[str | None, float] = {}
    for layer in (None, "frozen", "body", "body.4"):
        with RepresentationMonitor(
            model, images, labels, every=1, out=tmp_path / str(layer), n=80, layer=layer
        ) as m:
            m.step()
        rows, _ = read_monitor(tmp_path / str(layer))
        taken[layer] = rows["dse_z"].iloc[0]
        assert rows["embedding_dim"].tolist() == [16, 16]
    with torch.no_grad():
        embedding = model.frozen(model.body(images).mean((2, 3))).numpy()
    assert (
        taken[None]
        == taken["frozen"]
        == pytest.approx(float(measure(embedding, None)["dse_z"]), abs=1e-6)
    )
    assert taken["body.4"] != taken["body"]


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, lambda model: torch.compile(model, backend="eager")]
)
def test_a_wrapped_model_is_measured_as_the_one_inside(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], wrap: Any
) -> None:
    model = timm.create_model("test_vit", num_classes=10, img_size=32, patch_size=8)
    found = []
    for name, watched in (("plain", model), ("wrapped", wrap(model))):
        with RepresentationMonitor(
            watched, *held_out, every=1, out=tmp_path / name, n=30
        ) as monitor:
            monitor.step()
        found.append(read_monitor(tmp_path / name)[0]["dsmi_z_y"].tolist())
        assert watched.training
    assert found[0] == found[1]


def test_a_measurement_that_costs_too_much_says_which_every_would_do(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    with (
        pytest.warns(UserWarning, match=r"% of the training time; every=\d+ would take 2%"),
        RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m") as monitor,
    ):
        monitor.step()


def test_a_diverged_training_goes_on_and_its_rows_are_empty(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], cli: Command
) -> None:
    model = Small()
    with RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "m", n=40) as monitor:
        monitor.step()
        torch.nn.init.constant_(model.body[0].weight, float("nan"))  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="step 2 cannot be measured"):
            monitor.step()
    assert read_monitor(tmp_path / "m")[0]["dse_z"].notna().tolist() == [True, True, False]
    cli("report", "--out", tmp_path / "m")
    assert "1 measurement failed" in (tmp_path / "m" / "report" / "index.html").read_text()


def test_the_report_of_a_monitored_training_draws_its_curves(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], cli: Command
) -> None:
    model = Small()
    with RepresentationMonitor(model, *held_out, every=2, out=tmp_path / "m", n=60) as monitor:
        train(model, 6, monitor)
    done = cli("report", "--out", tmp_path / "m")
    report = tmp_path / "m" / "report"
    assert str(report / "index.html") in done.stdout
    page = (report / "index.html").read_text()
    assert "DSMI(Z;Y) went from" in page
    assert "<img" in page
    assert (report / "figures" / "curves.png").stat().st_size > 10_000
    refused = cli("report", "--out", tmp_path / "m", "--compare", tmp_path, code=2).stderr
    assert f"--compare {tmp_path}: no measurements of a monitor there" in refused


def test_tensorboard_gets_the_curves_if_it_is_installed(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of TensorBoard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    with RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m", n=30) as monitor:
        monitor.step()
    events = EventAccumulator(str(tmp_path / "m"))
    events.Reload()
    told = [event.value for event in events.Scalars("dsmi-zoo/dse_z")]
    assert told == pytest.approx(read_monitor(tmp_path / "m")[0]["dse_z"].tolist(), abs=1e-5)


def test_the_readmes_example_runs_twice_and_keeps_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    code = next(text for _, text in code_blocks(readme) if "RepresentationMonitor(" in text)
    for whole, few in (("range(300)", "range(4)"), ("every=50", "every=2"), ("images[1200:]", "images[1600:]"),
                       ("labels[1200:]", "labels[1600:]")):  # fmt: skip
        assert whole in code
        code = code.replace(whole, few)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(code, {})
    assert "the training before is kept in runs/mine/earlier-1" in capsys.readouterr().out
    trainings = [read_monitor(Path("runs/mine") / part)[0] for part in ("earlier-1", "")]
    assert [rows["step"].tolist() for rows in trainings] == [[0, 2, 4]] * 2
    assert len({rows["loss"].iloc[-1] for rows in trainings}) == 2
    assert len(list(Path("runs/mine").glob("events*"))) == 1


def test_a_folder_that_holds_a_training_is_refused_and_a_continued_one_goes_on(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    arguments: dict[str, Any] = {"every": 2, "out": tmp_path / "m"}
    with RepresentationMonitor(Small(), *held_out, n=40, **arguments) as monitor:
        for _ in range(6):
            monitor.step()
    killed = RepresentationMonitor(Small(), *held_out, n=40, every=2, out=tmp_path / "k")
    train_steps = [killed.step() for _ in range(2)]
    assert train_steps[1] is not None
    with pytest.raises(InputError, match=r"training of 2 steps.*interrupted.*start=STEP"):
        RepresentationMonitor(Small(), *held_out, n=40, every=2, out=tmp_path / "k")
    with pytest.raises(InputError, match="begun with n=40, not 50"):
        RepresentationMonitor(Small(), *held_out, n=50, start=4, **arguments)
    with pytest.raises(InputError, match="begun with other images"):
        RepresentationMonitor(Small(), held_out[0] * 2, held_out[1], start=4, **arguments)
    with RepresentationMonitor(Small(), *held_out, start=4, **arguments) as monitor:
        monitor.step()
    rows, facts = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == [0, 2, 4, 5]
    assert facts["n"] == 40
