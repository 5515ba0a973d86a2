"""Continued runs: what they keep, compute and refuse after a hub outage, or with new models, catalogues or images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hub_server import Fault, HubServer
from PIL import Image
from sklearn.datasets import load_digits

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs.forecast import forecast, plan_lines
from dsmi_zoo.jobs.runs.run import rerun, run
from dsmi_zoo.jobs.runs.status import status
from dsmi_zoo.pipeline.config.run import resolve_config
from dsmi_zoo.pipeline.engine.workers import Workers
from dsmi_zoo.pipeline.plan.plan import make_plan
from dsmi_zoo.pipeline.store.run_folder import read_results
from dsmi_zoo.pipeline.store.subset_file import subset_path
from dsmi_zoo.pipeline.weights import hub as downloads
from dsmi_zoo.pipeline.weights.hub import NOT_REACHED
from dsmi_zoo.reports.page.build import write_report

Run = Callable[..., int]


def write_digits(folder: Path, classes: range, images: int) -> Path:
    """Write digits as image files, one folder per class."""
    digits = load_digits()
    for label in classes:
        (folder / f"digit-{label}").mkdir(parents=True, exist_ok=True)
        for number in np.flatnonzero(digits.target == label)[:images]:
            pixels = (digits.images[number] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"digit-{label}" / f"{number}.png")
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "digits", range(3), 8)


@pytest.fixture
def settings(tmp_path: Path, digits: Path) -> dict[str, Any]:
    return {
        "out": tmp_path / "out",
        "subset": {"dataset": "imagefolder", "data_root": digits},
        "measures": {"null_permutations": 1, "repetitions": 1},
        "compute": {"cache": tmp_path / "cache", "write_report": False, "cluster": "local"},
    }


@pytest.fixture
def go(settings: dict[str, Any], thread_workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a catalogue on this process's worker and returns the exit code."""
    monkeypatch.setattr(
        "dsmi_zoo.jobs.clusters.existing.refuse_unfit", lambda *_: None
    )  # its workers are threads of this process

    def going(catalog: Path, **changes: Any) -> int:
        config = resolve_config({**settings, "catalog": str(catalog), **changes})
        return run(config, client=thread_workers.client)

    return going


def write_catalog(path: Path, *lines: str) -> Path:
    """Write a catalogue with every field that would otherwise be asked of timm in another process."""
    known = "test,1,bicubic,center,0.5 0.5 0.5,0.5 0.5 0.5"
    head = "model,architecture,checkpoint,weights,img_size,family,crop_pct,interpolation,crop_mode,mean,std"
    path.write_text("\n".join([head, *(f"{line},{known}" for line in lines)]) + "\n")
    return path


def save_network(architecture: str, path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    safetensors.torch.save_file(timm.create_model(architecture).state_dict(), path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return a catalogue of one checkpoint, ``1.safetensors``; ``2.safetensors`` lies beside it."""
    for seed in (1, 2):
        save_network("test_resnet", tmp_path / f"{seed}.safetensors", seed)
    return write_catalog(tmp_path / "mine.csv", "one,test_resnet,1.safetensors,,32")


@pytest.fixture
def served(hub: HubServer, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of weights on a server, with almost no pause between retries."""
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.01)
    hub.files["resnet.safetensors"] = published["test_resnet"]
    return f"{hub.endpoint}/files/resnet.safetensors"


def test_what_could_not_be_reached_is_tried_again_by_the_same_command(
    go: Run, served: str, hub: HubServer, tmp_path: Path, info_log: pytest.LogCaptureFixture, capsys
) -> None:
    catalog = write_catalog(tmp_path / "hub.csv", f"far,test_resnet,,{served},32")
    out = tmp_path / "out"
    hub.close()
    assert go(catalog) == 1
    (row,) = read_results(out).to_dict("records")
    assert row["error_type"] == "Unreachable"
    promise = "the same command goes on from here"
    assert row["error_message"].endswith(promise)
    summary = f"the weights of 1 model could not be reached: {promise}"
    assert summary in info_log.text
    assert "retry-failed" not in info_log.text
    assert status(out) == 1
    assert summary in capsys.readouterr().out
    page = write_report(out).read_text()
    assert promise in page
    assert "figures/" not in page, "there are none"

    subset_path(out).unlink(missing_ok=True)  # no row needed the images, so it may not exist
    info_log.clear()
    assert go(catalog) == 1
    assert "1 model could not be reached before; trying again" in info_log.text
    assert "damaged" not in info_log.text

    with HubServer(port=hub.port, files=hub.files):
        assert go(catalog) == 0
    assert read_results(out)["status"].tolist() == ["ok"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("HEAD", "resnet", times=100, status=503), "Unavailable"),
        (Fault("HEAD", "resnet", times=100, status=429, retry_after=1000), "Unavailable"),
    ],
)
def test_weights_that_a_server_cannot_send_now_are_tried_again_too(
    fault: Fault, kind: str, go: Run, served: str, hub: HubServer, tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "hub.csv", f"far,test_resnet,,{served},32")
    hub.faults.append(fault)
    assert go(catalog) == 1
    assert read_results(tmp_path / "out")["error_type"].tolist() == [kind]
    assert kind in NOT_REACHED
    hub.faults.clear()
    assert go(catalog) == 0


def test_a_file_that_a_server_does_not_have_fails_for_good(
    go: Run, served: str, hub: HubServer, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    catalog = write_catalog(tmp_path / "hub.csv", f"far,test_resnet,,{served}.old,32")
    for _ in range(2):
        assert go(catalog) == 1
    assert len(hub.asked("HEAD", ".old")) == 1
    assert "subset or cluster files" not in info_log.text, "no row was measured, so none are needed"
    assert "try them again: the same run with --retry-failed" in info_log.text


def test_a_model_and_a_catalogue_join_what_is_done(
    go: Run, mine: Path, tmp_path: Path, info_log: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert go(mine) == 0
    first = read_results(out)
    write_catalog(mine, "one,test_resnet,1.safetensors,,32", "two,test_resnet,2.safetensors,,32")
    assert go(mine) == 0
    more = write_catalog(
        tmp_path / "more.csv",
        "one,test_resnet,1.safetensors,,32",
        "three,test_resnet,2.safetensors,,32",
    )
    info_log.clear()
    assert go(more) == 0
    assert "1 of 2 models are done already" in info_log.text
    rows = read_results(out).set_index("model")
    assert sorted(rows.index) == ["one", "three", "two"]
    assert rows["finished_at"]["one"] == first["finished_at"][0]


def test_a_model_of_an_earlier_catalogue_can_be_computed_again(
    go: Run, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "out"
    go(mine)
    go(write_catalog(tmp_path / "more.csv", "two,test_resnet,2.safetensors,,32"))
    status(out)
    assert f"catalogue {mine} and {tmp_path / 'more.csv'}, 2 models" in capsys.readouterr().out
    computed: list[str] = []

    def compute(plan: Any, *_: Any) -> int:
        computed.extend(job.entry.model for job in plan.jobs)
        return 0

    monkeypatch.setattr("dsmi_zoo.jobs.runs.run._compute", compute)
    rerun(out, ["one"], {})
    assert computed == ["one"]


def test_a_namesake_of_another_catalogue_is_refused_by_its_name(
    go: Run, mine: Path, tmp_path: Path
) -> None:
    go(mine)
    other = write_catalog(tmp_path / "other.csv", "one,test_resnet,2.safetensors,,32")
    before = read_results(tmp_path / "out")
    with pytest.raises(InputError, match=r"other\.csv: one@32 has other weights.*; rename it"):
        go(other)
    assert read_results(tmp_path / "out").equals(before)


def test_other_images_are_refused_in_words_by_the_plan_as_by_the_run(
    go: Run, mine: Path, settings: dict[str, Any], digits: Path, tmp_path: Path
) -> None:
    go(mine)
    photos = write_digits(tmp_path / "photos", range(1, 5), 10)
    (photos / "digit-1" / "1.png").unlink()  # 9 left, 7 of them in the first run
    refusals = []
    for attempt in (
        lambda: go(mine, subset={**settings["subset"], "data_root": photos}),
        lambda: forecast(
            resolve_config(
                {
                    **settings,
                    "catalog": str(mine),
                    "subset": {**settings["subset"], "data_root": photos},
                }
            )
        ),
    ):
        with pytest.raises(InputError) as refusal:
            attempt()
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]
    assert (
        "holds rows of 24 images in 3 classes of 'digits'; you gave 39 images in 4 classes of 'photos': "
        "24 new files, 9 removed, 15 of the same name"
    ) in refusals[0]

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(digits / "digit-0" / "0.png")
    with pytest.raises(InputError, match="the same file names, with other content or classes"):
        go(mine)


def test_a_plan_counts_only_what_the_run_would_compute(
    go: Run, mine: Path, settings: dict[str, Any], server: None
) -> None:
    config = resolve_config({**settings, "catalog": str(mine)})
    before = plan_lines(make_plan(config))
    assert ", 1 to compute" in before[0]
    assert any("forward" in line and "1 by one batch timed" in line for line in before)
    go(mine)
    after = plan_lines(make_plan(config))
    assert "; 1 done in " in after[0]
    assert after[-1] == "work        nothing to compute: the run only writes the report"
