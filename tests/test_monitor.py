"""The monitor: it measures what the pipeline measures, and the training does not notice it."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
import torch
from conftest import Command

from dsmi_zoo.data_catalog import InputError
from dsmi_zoo.data_catalog.digit_images import digits_split
from dsmi_zoo.pipeline.held_out import drawn_from
from dsmi_zoo.pipeline.measures import cluster_inputs, measure
from dsmi_zoo.pipeline.monitor import RepresentationMonitor
from dsmi_zoo.pipeline.monitor_file import monitor_path, read_monitor


def inputs(part: str, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels, _ = digits_split(part)  # type: ignore[arg-type]
    images = torch.from_numpy(pixels).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    return torch.nn.functional.interpolate(images, size=side), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation")


class Small(torch.nn.Module):
    """Batch norm, dropout, and a module that the user keeps in evaluation mode."""

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
    """Two threads on such small networks wait for each other, and on a busy machine for others."""
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
    """Draws from every random state, in evaluation mode too."""

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
    # The images are in another order, on which the measures' random subsets depend, and the clusters' names.
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


def test_n_is_chosen_once_so_that_measuring_stays_under_5_percent(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps that take 50 ms by decree, and measurements that take what they take of a processor: on the wall's clock
    # both would depend on what else the machine does.
    trained = 0.0
    monkeypatch.setattr("dsmi_zoo.pipeline.monitor.perf_counter", lambda: process_time() + trained)
    costs = []
    for attempt in range(3):  # the first one pays for imports too
        out, trained = tmp_path / f"m{attempt}", 0.0
        began = process_time()
        with RepresentationMonitor(Small(), *held_out, every=100, out=out) as monitor:
            for _ in range(600):
                trained += 0.05
                monitor.step()
        spent = process_time() - began
        rows, facts = read_monitor(out)
        assert set(rows["n_samples"]) == {facts["n"]}
        assert 30 <= facts["n"] <= 447
        assert rows["seconds_training"].iloc[-1] == pytest.approx(trained, rel=0.05)
        assert rows["seconds_monitor"].iloc[-1] == pytest.approx(spent, rel=0.3, abs=0.1)
        costs.append(spent / trained)
        if costs[-1] < 0.05:
            break
    assert min(costs) < 0.05, costs


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
    assert (
        "--compare" in cli("report", "--out", tmp_path / "m", "--compare", tmp_path, code=2).stderr
    )


def test_tensorboard_gets_the_curves_if_it_is_installed(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorBoard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    with RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m", n=30) as monitor:
        monitor.step()
    events = EventAccumulator(str(tmp_path / "m"))
    events.Reload()
    told = [event.value for event in events.Scalars("dsmi-zoo/dse_z")]
    assert told == pytest.approx(read_monitor(tmp_path / "m")[0]["dse_z"].tolist(), abs=1e-5)


def test_a_folder_that_holds_a_training_is_refused_and_a_continued_one_goes_on(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    arguments: dict[str, Any] = {"every": 2, "out": tmp_path / "m"}
    with RepresentationMonitor(Small(), *held_out, n=40, **arguments) as monitor:
        for _ in range(6):
            monitor.step()
    with pytest.raises(InputError, match=r"training of 6 steps.*start=STEP"):
        RepresentationMonitor(Small(), *held_out, n=40, **arguments)
    with pytest.raises(InputError, match="begun with n=40, not 50"):
        RepresentationMonitor(Small(), *held_out, n=50, start=4, **arguments)
    with pytest.raises(InputError, match="begun with images_sha256"):
        RepresentationMonitor(Small(), held_out[0] * 2, held_out[1], start=4, **arguments)
    with RepresentationMonitor(Small(), *held_out, start=4, **arguments) as monitor:
        monitor.step()
    rows, facts = read_monitor(tmp_path / "m")
    assert rows["step"].tolist() == [0, 2, 4, 5]
    assert facts["n"] == 40


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(20, 3, 4)}, r"images have shape \[20, 3, 4\]"),
        ({"images": torch.zeros(20, 3, 4, 4, dtype=torch.uint8)}, "uint8.*normalised"),
        ({"labels": np.zeros(19)}, r"labels have shape \[19\] where \[20\]"),
        ({"labels": np.zeros(20)}, "of 1 class"),
        ({"labels": np.linspace(0, 1, 20)}, "continuous"),
        ({"layer": "lien"}, "no layer 'lien'; did you mean line"),
        ({"every": 0}, "every must be a whole number of at least 1, not 0"),
        ({"n": 21}, "n=21 .* there are 20"),
        ({"n": 1}, "n must be"),
        ({"start": 5}, "start=5, but .*monitor.parquet is not there"),
        ({"model": torch.nn.Flatten()}, "no nn.Linear ran.*name a layer"),
        ({"model": len}, "the model is a builtin_function_or_method, not a torch.nn.Module"),
        ({"images": [torch.zeros(3, 4, 4)] * 20}, "images come as list; pass one tensor or array"),
        ({"images": torch.full((20, 3, 4, 4), torch.nan)}, "images hold values that are NaN"),
        ({"out": Path(__file__)}, "test_monitor.py is a file; name a folder"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line_before_training(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    given = {"model": Noisy(), "images": torch.zeros(20, 3, 4, 4), "labels": np.arange(20) % 2}
    with pytest.raises(InputError, match=words) as caught:
        RepresentationMonitor(**(given | {"out": tmp_path / "m"} | change))
    assert "\n" not in str(caught.value)


def test_the_scores_to_beat_and_the_callers_numbers_are_measured_and_drawn_too(
    tmp_path: Path,
    held_out: tuple[torch.Tensor, torch.Tensor],
    cli: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "m"
    with RepresentationMonitor(Small(), *held_out, every=2, out=out, n=60) as monitor:
        for step in range(4):
            monitor.step(loss=torch.tensor(4.0 - step, requires_grad=True), rate=0.1)
        assert "loss" in monitor._repr_html_()
    assert (
        f"monitor: 3 measurements; their curves: dsmi-zoo report --out {out}"
        in capsys.readouterr().out
    )
    rows = read_monitor(out)[0]
    assert rows["loss"].fillna(-1).tolist() == [-1, 3.5, 1.5], "means since the last measurement"
    assert rows["rate"].fillna(-1).tolist() == [-1, pytest.approx(0.1), pytest.approx(0.1)]
    assert rows.loc[1, "neighbour_accuracy"] > 0
    pd.testing.assert_frame_equal(
        rows, monitor.results[list(rows)].astype(float), check_dtype=False
    )
    images, labels = held_out
    chosen = drawn_from(torch.utils.data.TensorDataset(images, labels), 10**6, 4)
    assert len(chosen[1]) == len(labels)
    told = cli("status", "--out", out).stdout
    assert "a monitored training, 3 measurements of 60 images up to step 4, every 2 steps" in told
    cli("report", "--out", out)
    assert (out / "report" / "figures" / "simple.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="dse_z is a column of the monitor's own"):
        monitor.step(dse_z=1.0)


def test_a_log_gets_every_measurement_and_its_failure_ends_no_training(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    got: list[tuple[int, dict[str, float]]] = []

    def log(numbers: dict[str, float], step: int) -> None:
        got.append((step, numbers))
        if step == 2:
            raise ConnectionError("the server is away")

    with RepresentationMonitor(
        Small(), *held_out, every=1, out=tmp_path / "m", n=60, log=log
    ) as monitor:
        monitor.step(loss=1.0)
        with pytest.warns(
            UserWarning, match="log failed at step 2, training goes on: ConnectionError: the server"
        ):
            monitor.step(loss=0.5)
        monitor.step(loss=0.25)
    assert [step for step, _ in got] == [0, 1, 2, 3]
    assert got[3][1]["loss"] == 0.25
    assert {"dse_z", "dsmi_z_y", "neighbour_accuracy", "centre_accuracy"} <= set(got[0][1])


class Labelled(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Rare and frequent classes, as a data set of torchvision tells them."""

    def __init__(self) -> None:
        self.targets = [0] * 90 + [1] * 6

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 2, 2), float(index)), self.targets[index]


def test_images_are_drawn_from_a_data_set_evenly_and_the_same_each_time(tmp_path: Path) -> None:
    images, labels = drawn_from(Labelled(), 12, 4)
    assert np.bincount(labels).tolist() == [6, 6]
    again, _ = drawn_from(torch.utils.data.DataLoader(Labelled(), batch_size=3), 12, 4)
    assert torch.equal(images, again)
    assert len(drawn_from(Labelled(), 2, 4)[1]) == 8, "four of each class, though that is more"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with RepresentationMonitor(model, Labelled(), every=1, out=tmp_path / "m", n=12) as monitor:
        monitor.step()
    assert len(monitor.results) == 2
    with pytest.raises(InputError, match="labels come with the data set"):
        RepresentationMonitor(model, Labelled(), torch.tensor([0]), out=tmp_path / "other")
    with pytest.raises(InputError, match="no pairs"):
        drawn_from(torch.utils.data.TensorDataset(images), 5, 4)


def test_classes_too_small_for_a_standard_error_are_told(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with pytest.warns(
        UserWarning,
        match=r"\d+ of 10 classes have fewer than 4 images, so there is no standard error",
    ):
        RepresentationMonitor(Small(), held_out[0][:20], held_out[1][:20], out=tmp_path / "m")


def test_measurements_of_an_earlier_version_can_still_be_read(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path, n=60) as monitor:
        monitor.step()
    table = pq.read_table(monitor_path(tmp_path))
    pq.write_table(
        table.drop_columns(["neighbour_accuracy", "centre_accuracy"]), monitor_path(tmp_path)
    )
    rows, _ = read_monitor(tmp_path)
    assert rows["neighbour_accuracy"].isna().all()
    assert rows["dse_z"].notna().all()
