"""Inputs of a monitor: images, labels, the caller's own numbers, a log."""

import random
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Command
from test_monitor import Noisy, Small, inputs

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.monitor.file import monitor_path, read_monitor
from dsmi_zoo.pipeline.monitor.images import draw_from
from dsmi_zoo.pipeline.monitor.monitor import RepresentationMonitor


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation")


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(20, 3, 4)}, r"images have shape \[20, 3, 4\]"),
        ({"images": torch.zeros(20, 3, 4, 4, dtype=torch.uint8)}, "uint8.*normalised"),
        ({"labels": np.zeros(19)}, r"labels have shape \[19\] where \[20\]"),
        ({"labels": np.zeros(20)}, "have 1 class"),
        ({"labels": np.linspace(0, 1, 20)}, "continuous"),
        ({"layer": "lien"}, "no layer 'lien'; did you mean line"),
        ({"every": 0}, "every must be a whole number of at least 1, not 0"),
        ({"n": 21}, "n=21, but there are only 20"),
        ({"n": 1}, "n must be"),
        ({"start": -1}, "start must be a whole number of at least 0"),
        ({"labels": np.eye(2)[np.arange(20) % 2]}, r"labels have shape \[20, 2\].*argmax"),
        ({"labels": np.zeros((20, 4, 4))}, r"labels have shape \[20, 4, 4\].*a label per pixel"),
        ({"labels": [[0], [0, 1]] * 10}, "no arrays of numbers"),
        ({"labels": np.array([0, "a"] * 10, dtype=object)}, r"of several types \(int, str\)"),
        ({"images": np.array("abc")}, "no arrays of numbers"),
        ({"images": torch.zeros(20, 3, 5, 5)}, "forward pass fails on these images"),
        ({"model": torch.nn.Flatten()}, "no nn.Linear ran.*name a layer"),
        ({"model": len}, "the model is a builtin_function_or_method, not a torch.nn.Module"),
        ({"images": [torch.zeros(3, 4, 4)] * 20}, "images are list; pass one tensor or array"),
        ({"images": torch.full((20, 3, 4, 4), torch.nan)}, "images have NaN"),
        ({"out": Path(__file__)}, "test_monitor_inputs.py is a file; name a folder"),
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
        f"monitor: 3 measurements of 60 images; their curves: dsmi-zoo report --out {out}"
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
    chosen = draw_from(torch.utils.data.TensorDataset(images, labels), 10**6, 4)
    assert len(chosen[1]) == len(labels)
    told = cli("status", "--out", out).stdout
    assert "a monitored training, 3 measurements of 60 images up to step 4, every 2 steps" in told
    cli("report", "--out", out)
    assert (out / "report" / "figures" / "simple.png").stat().st_size > 10_000
    with pytest.warns(UserWarning, match="dse_z is a column of the monitor's own"):
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
    """A data set of a frequent and a rare class with ``targets``, as torchvision's data sets have."""

    def __init__(self) -> None:
        self.targets = [0] * 90 + [1] * 6

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 2, 2), float(index)), self.targets[index]


def test_images_are_drawn_from_a_data_set_evenly_and_the_same_each_time(tmp_path: Path) -> None:
    images, labels = draw_from(Labelled(), 12, 4)
    assert np.bincount(labels).tolist() == [6, 6]
    again, _ = draw_from(torch.utils.data.DataLoader(Labelled(), batch_size=3), 12, 4)
    assert torch.equal(images, again)
    assert len(draw_from(Labelled(), 2, 4)[1]) == 8, "four of each class, though that is more"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with RepresentationMonitor(model, Labelled(), every=1, out=tmp_path / "m", n=12) as monitor:
        monitor.step()
    assert len(monitor.results) == 2
    with pytest.raises(InputError, match="labels come with the data set"):
        RepresentationMonitor(model, Labelled(), torch.tensor([0]), out=tmp_path / "other")
    with pytest.raises(InputError, match="no pairs"):
        draw_from(torch.utils.data.TensorDataset(images), 5, 4)


class Items(torch.utils.data.Dataset[Any]):
    """Forty images of two classes, whose pixels equal their index, in one of the forms in common use."""

    def __init__(self, form: str = "pair") -> None:
        self.form = form

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        image, label = torch.full((1, 2, 2), float(index)), index % 2
        return {
            "pair": (image, label),
            "text": (image, "ab"[label]),
            "dict": {"pixel_values": image, "labels": label, "path": "x"},
            "triple": (image, label, index),
            "two images": {"image": image, "img": image, "label": label},
            "one-hot": (image, torch.eye(2)[label]),
            "soft": (image, label / 3),
            "augmented": (image + torch.rand(()) / 10 + random.random() / 10, label),
        }[self.form]


def drawn(loader: Any, most: int = 500) -> list[int]:
    return sorted(int(image.mean()) for image in draw_from(loader, most, 4)[0])


def test_a_loaders_sampler_drop_last_and_collate_are_respected() -> None:
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler

    def doubled(items: list[Any]) -> Any:
        images, labels = torch.utils.data.default_collate(items)
        return images + 0.25, labels

    data = Items()
    assert drawn(DataLoader(data, sampler=SubsetRandomSampler(range(10)))) == list(range(10))
    assert drawn(DataLoader(data, batch_size=16, drop_last=True)) == list(range(32))
    assert len(drawn(DataLoader(data, batch_size=16, drop_last=True, shuffle=True))) == 32
    assert drawn(DataLoader(data, batch_size=None)) == list(range(40))
    batches = BatchSampler(range(5, 11), 2, drop_last=False)
    assert drawn(DataLoader(data, batch_sampler=batches)) == list(range(5, 11))
    endless = RandomSampler(data, replacement=True, num_samples=10**4)
    assert drawn(DataLoader(data, batch_size=50, sampler=endless)) == list(range(40))
    images, labels = draw_from(DataLoader(data, batch_size=7, collate_fn=doubled), 500, 4)
    assert set((images[:, 0, 0, 0] % 1).tolist()) == {0.25}
    assert (images[:, 0, 0, 0].long() % 2).tolist() == labels.tolist()


@pytest.mark.parametrize("form", ["pair", "dict", "text"])
@pytest.mark.parametrize("in_loader", [False, True])
def test_pairs_dicts_and_classes_as_text_are_read(form: str, in_loader: bool) -> None:
    data: Any = Items(form)
    images, labels = draw_from(
        torch.utils.data.DataLoader(data, batch_size=6) if in_loader else data, 500, 4
    )
    assert images.shape == (40, 1, 2, 2)
    classes = ["ab".index(label) if form == "text" else label for label in labels.tolist()]
    assert (images[:, 0, 0, 0].long() % 2).tolist() == classes


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("triple", r"3 values \((Tensor, int, int|Tensor, Tensor, Tensor)\)"),
        ("two images", r"dicts \(image, img, label\) without one image"),
        ("one-hot", "not a class per image"),
        ("soft", "labels are continuous"),
    ],
)
@pytest.mark.parametrize("in_loader", [False, True])
def test_items_with_two_readings_are_refused_in_one_line(
    form: str, words: str, in_loader: bool, tmp_path: Path
) -> None:
    data: Any = Items(form)
    if in_loader:
        data = torch.utils.data.DataLoader(data, batch_size=6)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with pytest.raises(InputError, match=words) as caught:
        RepresentationMonitor(model, data, out=tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_what_a_loader_cannot_give_is_said_in_one_line() -> None:
    def broken(items: list[Any]) -> Any:
        raise TypeError("batch must contain\ntensors")

    loaders = {
        "gives no batch": {"batch_size": 64, "drop_last": True},
        "cannot be read: TypeError: batch must contain tensors": {"collate_fn": broken},
        "6 images and 0 labels": {
            "batch_size": 6,
            "collate_fn": lambda _: (torch.ones(6, 1, 2, 2), 3),
        },
    }
    for words, settings in loaders.items():
        with pytest.raises(InputError, match=words):
            draw_from(torch.utils.data.DataLoader(Items(), **settings), 500, 4)


def test_drawing_augmented_images_leaves_every_random_state_and_repeats() -> None:
    from torch.utils.data import DataLoader

    own = torch.Generator().manual_seed(7)
    loader = DataLoader(
        Items("augmented"), batch_size=16, shuffle=True, drop_last=True, generator=own
    )
    states = (
        torch.get_rng_state(),
        own.get_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    )
    images, _ = draw_from(loader, 20, 4)
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], own.get_state())
    assert states[2] == random.getstate()
    assert states[3] == np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.rand(5)
    assert torch.equal(images, draw_from(loader, 20, 4)[0]), "a resumed training has the same"


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


class TwoLayers(torch.nn.Module):
    """A layer and a classifier for images of 3 x 4 x 4; subclasses add to them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = torch.nn.Linear(48, 8), torch.nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.layer(images.flatten(1)))


class DropsAlways(TwoLayers):
    def forward(self, images: torch.Tensor) -> Any:
        return self.head(torch.nn.functional.dropout(self.layer(images.flatten(1)), 0.5))


class Remembers(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.cache = 0, None
        self.seen: list[int] = []
        self.queue: deque[torch.Tensor] = deque(maxlen=3)

    def forward(self, images: torch.Tensor) -> Any:
        self.calls += 1
        self.cache = self.late = images.mean()
        self.seen.append(len(images))
        self.queue.append(images)
        return super().forward(images)


class TwoHeads(TwoLayers):
    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer, self.middle, self.aux = answer, torch.nn.Linear(48, 2), torch.nn.Linear(2, 3)

    def forward(self, images: torch.Tensor) -> Any:
        features = self.layer(images.flatten(1))
        logits, aux = self.head(features), self.aux(self.middle(images.flatten(1)))
        answers = {
            "logits named": {"logits": logits, "aux": aux},
            "logits and aux": (logits, aux),
            "features and logits": (features, self.head(features)),
        }
        return answers[self.answer]


def of_48_numbers() -> tuple[torch.Tensor, np.ndarray]:
    return torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(0)), np.arange(24) % 3


def watched(folder: Path, model: torch.nn.Module, **settings: Any) -> RepresentationMonitor:
    settings = {"every": 1, "n": 24, "out": folder / "m"} | settings
    return RepresentationMonitor(model, *of_48_numbers(), **settings)


def test_a_network_that_is_random_in_evaluation_mode_is_reported(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="other values for the same images in evaluation mode"):
        watched(tmp_path, DropsAlways())


def test_an_embedding_that_does_not_change_while_steps_are_counted_is_reported(
    tmp_path: Path,
) -> None:
    model = TwoLayers()
    monitor = watched(tmp_path, model)
    with torch.no_grad():
        model.layer.weight.mul_(1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="monitor: measuring")
        for _ in range(3):
            monitor.step()
    with pytest.warns(UserWarning, match="step 4 is bit for bit that of the 3 measurements before"):
        monitor.step()


def test_what_a_network_keeps_in_plain_attributes_stays_as_it_was(tmp_path: Path) -> None:
    model = Remembers()
    model(torch.ones(2, 3, 4, 4))
    before = dict(vars(model), seen=[2], queue=list(model.queue))
    monitor = watched(tmp_path, model)
    with torch.no_grad():
        model.layer.weight.mul_(1.5)
    monitor.step()
    assert (model.calls, model.seen) == (1, [2])
    assert model.cache is before["cache"]
    assert len(model.queue) == 1
    assert vars(model).keys() == before.keys()


@pytest.mark.parametrize("answer", ["logits named", "features and logits"])
def test_an_auxiliary_classifier_that_runs_last_is_not_taken_for_the_final_one(
    tmp_path: Path, answer: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monitor = watched(tmp_path, TwoHeads(answer))
        monitor.step()
    assert monitor.results["embedding_dim"].tolist() == [8, 8]


def test_two_classifiers_with_inputs_of_their_own_need_a_layer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"several nn.Linear \('head', 'aux'\); name a layer"):
        watched(tmp_path, TwoHeads("logits and aux"))
    monitor = watched(tmp_path, TwoHeads("logits and aux"), layer="layer")
    monitor.close()


@pytest.mark.filterwarnings("ignore:monitor. the embedding at step")
def test_two_monitors_with_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    model = TwoLayers()
    one, other = watched(tmp_path, model), watched(tmp_path, model, layer="layer")
    one.step()
    with pytest.warns(UserWarning, match="is written by another monitor too"):
        other.step()
    one.step()
    other.step()
    one.close()
    other.close()
    rows, facts = read_monitor(tmp_path / "m")
    assert facts["layer"] is None
    assert rows["step"].tolist() == other.results["step"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:monitor. the embedding at step")
def test_a_training_is_continued_only_with_its_own_images_and_network(tmp_path: Path) -> None:
    with watched(tmp_path, TwoLayers()) as monitor:
        monitor.step()
    wider = TwoLayers()
    wider.layer, wider.head = torch.nn.Linear(48, 16), torch.nn.Linear(16, 3)
    with pytest.raises(InputError, match="begun with 8 columns of the embedding, not 16"):
        watched(tmp_path, wider, start=1)
    images, labels = of_48_numbers()
    with pytest.raises(InputError, match="begun with other images; pass the same ones"):
        RepresentationMonitor(
            TwoLayers(), images + 1, labels, every=1, n=24, out=tmp_path / "m", start=1
        )


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for number in range(1000):
            yield torch.randn(3, 4, 4), number // 300


def test_the_classes_of_an_endless_stream_are_counted(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="first 500 images of an IterableDataset.* of 2 classes"):
        RepresentationMonitor(TwoLayers(), Stream(), every=1, out=tmp_path / "m")


class OneHot(torch.utils.data.Dataset[Any]):
    targets = np.eye(3)[np.arange(24) % 3]

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return torch.ones(3, 4, 4) * index, index % 3


def test_targets_that_are_vectors_do_not_decide_which_images_are_drawn() -> None:
    images, labels = draw_from(OneHot(), 24, 4)
    assert len(images) == 24
    assert np.bincount(labels).tolist() == [8, 8, 8]


def test_the_chosen_number_of_images_is_said_with_how_another_training_gets_it(
    tmp_path: Path,
    held_out: tuple[torch.Tensor, torch.Tensor],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO", "dsmi_zoo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps that cost nothing leave no time for measuring
        with RepresentationMonitor(Small(), *held_out, every=1, out=tmp_path / "m") as monitor:
            monitor.step()
            monitor.step()
    n = read_monitor(tmp_path / "m")[1]["n"]
    hint = f"pass n={n} to other trainings for comparable values"
    said = [one.message for one in caplog.records if "n=" in one.message]
    assert said == [f"monitor: n={n} images, chosen by their cost; {hint}"]
    assert (
        f"monitor: 3 measurements of {n} images ({hint}); their curves:" in capsys.readouterr().out
    )
