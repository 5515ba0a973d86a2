"""Measurements in Weights & Biases, MLflow and TensorBoard: the real libraries, offline."""

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_monitor import Small, inputs

from dsmi_zoo import RepresentationMonitor
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.pipeline.monitor.file import read_monitor
from dsmi_zoo.pipeline.monitor.trackers import WandbTracker, tracker

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs("validation", 8)


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Weights & Biases with an active offline run."""
    library = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = library.Settings(console="off", x_disable_stats=True)
        library.init(mode="offline", dir=str(tmp_path), project="tests", settings=quiet)
        yield library
        library.finish()
        library.teardown()


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a run's file: a LevelDB log in blocks of 32 KiB, after the library's header of 7 bytes."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if not kind:
            break
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield whole
            whole = b""


def logged_rows(wandb: Any, folder: Path) -> list[dict[str, Any]]:
    """End the run, and return its rows."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.finish()
    wandb.teardown()  # its process writes the rest
    rows = []
    for data in records(next(folder.glob("wandb/offline-run*/*.wandb"))):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


@pytest.mark.parametrize(
    ("own", "form"),
    [
        ("every step", "name"),
        ("every step, with steps", "function"),
        ("each epoch, with steps", "name"),
        ("nothing", "name"),
    ],
)
def test_weights_and_biases_gets_every_measurement_and_keeps_the_callers_rows(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], wandb: Any, form: str, own: str
) -> None:
    log = "wandb" if form == "name" else wandb.log
    with RepresentationMonitor(
        Small(), *held_out, every=2, out=tmp_path / "m", n=40, log=log
    ) as monitor:
        for step in range(8):
            monitor.step(loss=1.0)
            if own == "every step":
                wandb.log({"mine": step})
            elif own == "every step, with steps":
                wandb.log({"mine": step}, step=step)
            elif own == "each epoch, with steps" and step % 4 == 3:
                wandb.log({"mine": step}, step=step // 4)
    rows = logged_rows(wandb, tmp_path)
    measured = {
        row["dsmi-zoo/step"]: row["dsmi-zoo/dsmi_z_y"] for row in rows if "dsmi-zoo/step" in row
    }
    expected, _ = read_monitor(tmp_path / "m")
    assert measured == pytest.approx(dict(zip(expected["step"], expected["dsmi_z_y"], strict=True)))
    assert list(measured) == [0, 2, 4, 6, 8]
    kept = {"each epoch, with steps": [3, 7], "nothing": []}.get(own, list(range(8)))
    assert [row["mine"] for row in rows if "mine" in row] == kept


def test_without_a_run_of_weights_and_biases_a_monitor_is_refused_before_training(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    library = pytest.importorskip("wandb")
    for log in ("wandb", library.log):
        with pytest.raises(InputError, match=r"no active run; call wandb.init\(\) first"):
            RepresentationMonitor(Small(), *held_out, out=tmp_path / "m", n=40, log=log)
    assert not (tmp_path / "m").exists()


def test_a_run_of_wandb_that_ends_too_early_is_said_once_and_training_goes_on(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], wandb: Any
) -> None:
    monitor = RepresentationMonitor(
        Small(), *held_out, every=1, out=tmp_path / "m", n=40, log="wandb"
    )
    wandb.finish()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            monitor.step()
        monitor.close()
    words = [str(one.message) for one in said if "log failed" in str(one.message)]
    assert len(words) == 1
    assert "there is no active run of wandb; call wandb.init() before" in words[0]
    assert monitor.results["step"].tolist() == [0, 1, 2]


def test_mlflow_gets_every_measurement_at_its_step(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is not installed by ``make test``, because it brings thirty packages."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
        with mlflow.start_run() as run:
            layers = [None, "body.4"]
            with RepresentationMonitor(
                Small(), *held_out, every=2, out=tmp_path / "m", n=40, log="mlflow", layer=layers
            ) as monitor:
                for _ in range(3):
                    monitor.step(loss=1.0)
        client = mlflow.MlflowClient()
        rows, _ = read_monitor(tmp_path / "m")
        for name in ("dsmi_z_y", "body.4/dse_z"):
            history = client.get_metric_history(run.info.run_id, f"dsmi-zoo/{name}")
            assert [one.step for one in history] == [0, 2, 3]
            assert [one.value for one in history] == pytest.approx(rows[name].tolist())


def test_wrong_and_missing_trackers_are_refused_in_one_line(
    tmp_path: Path, held_out: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(log: Any) -> None:
        RepresentationMonitor(Small(), *held_out, out=tmp_path / "m", n=40, log=log)

    with pytest.raises(InputError, match="log='wandbb': pass 'wandb', 'mlflow', 'tensorboard', or"):
        made("wandbb")
    for module, name in (
        ("wandb", "wandb"), ("mlflow", "mlflow"), ("torch.utils.tensorboard", "tensorboard")
    ):  # fmt: skip
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(InputError, match=f'log="{name}" needs it: pip install {name}'):
            made(name)


def test_the_function_of_weights_and_biases_is_known_before_a_run_too() -> None:
    library = pytest.importorskip("wandb")
    assert isinstance(tracker(library.log), WandbTracker)
    assert tracker(print) is print
