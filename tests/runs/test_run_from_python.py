"""`dsmi_zoo.run`: the same run as the command's, called from Python, on its own workers or a client's."""

import logging
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import IMAGES_PER_CLASS
from distributed import Client, LocalCluster

import dsmi_zoo
from dsmi_zoo._util.errors import InputError

pytestmark = pytest.mark.usefixtures("server")

TINY = ("test_vit.100x3", "test_resnet.100x3")
NEW_EACH_TIME = ["finished_at", "seconds_build", "seconds_embed", "seconds_measure", "versions"]


@pytest.fixture(autouse=True)
def _shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSMI_ZOO_CACHE", str(cache))


def without_times(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that two runs of the same models must have in common."""
    return rows.drop(columns=NEW_EACH_TIME)


def test_a_run_from_python_gives_the_commands_rows_and_report(
    small_run: Path, tmp_path: Path, capfd
) -> None:
    rows = dsmi_zoo.run(
        "digits", models=TINY, out=tmp_path / "out", workers=1, images_per_class=IMAGES_PER_CLASS
    )
    assert capfd.readouterr() == ("", "")
    expected = dsmi_zoo.read_results(small_run)
    expected = expected[expected["model"].isin(TINY)].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_times(rows), without_times(expected))
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_a_second_call_goes_on_with_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = dsmi_zoo.run(models=TINY[0], out=tmp_path, workers=1, images_per_class=IMAGES_PER_CLASS)
    with caplog.at_level(logging.INFO, logger="dsmi_zoo"):
        both = dsmi_zoo.run(models=TINY, out=tmp_path, workers=1, images_per_class=IMAGES_PER_CLASS)
    assert any("1 of 2 models are done already" in message for message in caplog.messages)
    kept = both[both["model"] == TINY[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first)


def test_a_clients_workers_compute_the_rows_and_stay(small_run: Path, tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="200ms")
        theirs = client.submit(sum, [1, 2])
        level = logging.getLogger("distributed.client").level
        rows = dsmi_zoo.run(
            models=TINY[0], out=tmp_path, client=client, images_per_class=IMAGES_PER_CLASS
        )
        assert logging.getLogger("distributed.client").level == level
        assert theirs.result() == 3
        assert client.status == "running"
        assert client.submit(sum, [3, 4]).result() == 7
    expected = dsmi_zoo.read_results(small_run)
    expected = expected[expected["model"] == TINY[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(without_times(rows), without_times(expected))


def test_workers_that_outlive_a_run_compute_the_next_one_by_the_code_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "def number(Z, labels):\n    return {}\n"
    settings = {
        "models": TINY[0],
        "measure": "edited:number",
        "out": "out",
        "no_report": True,
        "images_per_class": IMAGES_PER_CLASS,
    }
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        for number in (1, 2):
            (tmp_path / "edited.py").write_text(code.format(number))
            rows = dsmi_zoo.run(**settings, client=client)
            assert list(rows["number"]) == [number]


def test_workers_that_are_threads_of_the_callers_own_process_are_refused(tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
        pytest.raises(
            InputError,
            match="its workers are threads of this process; make the cluster with processes",
        ),
    ):
        dsmi_zoo.run(models=TINY[0], out=tmp_path, client=client, model_timeout=1)


def test_a_failed_model_is_a_row_of_what_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails.py").write_text("def f(Z, labels):\n    raise ValueError('not today')\n")
    rows = dsmi_zoo.run(models=TINY[0], measure="fails:f", out="out", workers=1)
    assert rows.loc[0, "status"] == "failed"
    assert "not today" in rows.loc[0, "error_message"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sgima": 2}, "sgima is not a setting of a run; did you mean sigma"),
        ({"sigma": -2}, "sigma: "),
        ({"catalog": "imagenet-2099"}, "unknown catalogue 'imagenet-2099'"),
        ({"models": "no_such"}, "no model of digits matches 'no_such'"),
        ({"share": "1/2"}, "share is for batch jobs of the command"),
        ({"kind": "conv"}, "kind: "),
        ({"models": []}, "models is empty; name one, or leave it out"),
        ({"client": 5}, "client is a int; pass a distributed.Client"),
    ],
)
def test_a_wrong_setting_is_an_input_error_in_one_line(
    settings, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        dsmi_zoo.run(out=tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "catalog", ["digits", pytest.param("asked_of_timm.csv", marks=pytest.mark.slow)]
)
def test_a_script_without_its_guard_is_told_what_is_missing(catalog: str, tmp_path: Path) -> None:
    (tmp_path / "asked_of_timm.csv").write_text("model\nresnet10t.c3_in1k\n")
    script = tmp_path / "script.py"
    script.write_text(
        f"import dsmi_zoo\ndsmi_zoo.run({catalog!r}, limit=1, out='out', workers=1)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "under `if __name__" in done.stderr.splitlines()[-1]
