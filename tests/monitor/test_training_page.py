"""The page of a monitored training: its text and curves, alone and beside other trainings."""

import re
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from test_monitor import Small, inputs

from dsmi_zoo import RepresentationMonitor
from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs import conclude
from dsmi_zoo.pipeline.monitor.file import NUMBERS, read_monitor, write_monitor
from dsmi_zoo.reports.page.training import trend, write_monitor_report

pytestmark = pytest.mark.long


def rows_of(curve: list[float], **more: list[float]) -> list[dict[str, Any]]:
    rows = []
    for i, value in enumerate(curve):
        numbers = dict.fromkeys(NUMBERS, 1.0 + 0.1 * i) | {"dsmi_z_y": value, "saturated": 0.0}
        numbers |= {"step": 50.0 * i, "n_samples": 60.0, "dsmi_z_y_se": 0.05}
        numbers |= {"seconds_training": 10.0 * i, "seconds_monitor": 2 + 0.2 * i + 0.3 * (i > 0)}
        rows.append(numbers | {name: values[i] for name, values in more.items()})
    return rows


FACTS = {"layer": None, "every": 50, "images_sha256": "a", "labels_sha256": "b", "n": 60}


def written(out: Path, curve: list[float], ended: bool = True, **more: Any) -> Path:
    facts = FACTS | {"ended": ended} | more.pop("facts", {})
    out.mkdir(exist_ok=True)
    write_monitor(out, rows_of(curve, **more), facts)
    return out


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "still rose: .* changes by +3.00 bits"),
        ([7, 6, 5, 4, 3, 2, 1, 0], "fell: .* changes by −3.00 bits (95% interval −3.00 to −3.00)"),
        ([0, 2, 3, 3.0, 3.1, 3.0, 3.1, 3.0], "did not clearly change"),
        ([0, 1, 2, 3, 4], "Too few measurements to say whether DSMI(Z;Y) still rises"),
        ([0, 1, 2, np.nan], "Too few measurements"),
    ],
)
def test_a_sentence_says_whether_the_curve_still_rises(curve: list[float], words: str) -> None:
    said = trend(pd.DataFrame(rows_of(curve)), "dsmi_z_y")
    assert re.search(words.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+"), said), said


def test_the_page_says_its_cost_and_the_step_off_scale_and_is_readable_at_390_pixels(
    tmp_path: Path,
) -> None:
    out = written(
        tmp_path / "m",
        [0.0, 1, 2, 3],
        median_distance_over_sigma=[1.0, 2.0, 2.1, 0.5],
        loss=[3.0, 2, 1, 0],
    )
    page = write_monitor_report(out).read_text()
    assert (
        "Measurements take 2.0% of the training time, by the median one (the aim is 2%), and took 3.0% with the choice "
        "of their images (the aim is under 5%); 2.0 s passed before the training." in page
    )
    assert "does not fit the scale of the embedding at step 100 and 1 more" in page
    narrow = re.findall(
        r'<source media="\(max-width: 40rem\)" srcset="data:image/svg\+xml;base64,([^"]+)"', page
    )
    assert len(narrow) == 3
    for data in narrow:
        svg = __import__("base64").b64decode(data).decode()
        points = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg).group(1))  # type: ignore[union-attr]
        assert 10 * 330 / points >= 9, "pixels of a text of 10 points, in a picture 330 pixels wide"


@pytest.mark.usefixtures("without_drawing")
def test_several_trainings_and_layers_share_axes_and_differences_are_named(tmp_path: Path) -> None:
    layers = {"facts": {"layers": [None, "body.4"]}, "body.4/dse_z": [1.0, 2, 3, 4]}
    one = written(tmp_path / "one", [0.0, 1, 2, 3], **layers)
    two = written(tmp_path / "two", [0.0, 2, 3, 4])
    other = written(tmp_path / "other", [0.0, 2, 3, 4], facts={"images_sha256": "c", "n": 50})
    assert conclude.report(one, (two, other)) == 0
    page = (one / "report" / "index.html").read_text()
    assert "other was measured on other images: compare shapes" in page
    assert "two was measured on other" not in page
    assert (
        "which differs: 60 (one), 60 (two), 50 (other). Compare shapes of curves, not values"
        in page
    )
    assert "for comparable values, pass the same images and n=50 to each training." in page
    assert (
        "Held-out images: 60 (one), 60 (two), 50 (other). Steps between measurements: 50;" in page
    )
    from dsmi_zoo.reports.page.training import _panel, read_trainings

    panel = _panel(read_trainings([one, two, other]), "dse_z")
    labels = [line.label for line in panel.lines]
    assert labels == ["one · penultimate", "one · body.4", "two", "other"]
    band = _panel(read_trainings([one]), "dsmi_z_y").lines[0]
    assert band.high - band.mean == pytest.approx([1.96 * 0.05] * 4)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not a monitored training; leave --watch out"):
        conclude.report(tmp_path, watch=True)


@pytest.mark.usefixtures("without_drawing")
def test_a_watched_page_is_rebuilt_and_reloads_until_the_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclude, "POLL", 0.02)
    out = written(tmp_path / "m", [0.0, 1], ended=False)
    page = out / "report" / "index.html"
    watching = Thread(target=conclude.report, args=(out, (), True), daemon=True)
    watching.start()
    for _ in range(500):
        if page.exists():
            break
        watching.join(0.05)
    assert '<meta http-equiv="refresh" content="10">' in page.read_text()
    written(out, [0.0, 1, 2], ended=True)
    watching.join(120)
    assert not watching.is_alive()
    assert "refresh" not in page.read_text()
    assert "3 measurements over 100 steps" in page.read_text()


def test_several_layers_are_measured_in_one_pass_as_each_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model, held_out = Small(), inputs("validation", 32)
    calls = []
    hook = model.head.register_forward_hook(lambda *_: calls.append(1))
    for name in ("body.4", None, "."):
        before = len(calls)
        with RepresentationMonitor(
            model, *held_out, every=1, out=tmp_path / str(name), n=60, layer=name
        ) as alone:
            alone.step()
    of_one = len(calls) - before
    layers = [None, "body.4", "."]
    with RepresentationMonitor(
        model, *held_out, every=1, out=tmp_path / "all", n=60, layer=layers
    ) as monitor:
        measured = monitor.step()
    assert len(calls) - before - of_one == of_one, "as many forward passes as for one layer"
    hook.remove()
    rows, facts = read_monitor(tmp_path / "all")
    assert rows["step"].tolist() == [0, 1]
    assert facts["layers"] == layers
    assert measured is not None
    for name, prefix in ((None, ""), ("body.4", "body.4/"), (".", "./")):
        expected = read_monitor(tmp_path / str(name))[0]
        for score in ("dse_z", "dsmi_z_y", "dsmi_z_x", "neighbour_accuracy", "embedding_dim"):
            assert rows[prefix + score].tolist() == pytest.approx(expected[score].tolist())
        assert measured[f"{prefix}dse_z"] == pytest.approx(expected["dse_z"][1])
    with pytest.raises(InputError, match=r"begun with layers=.*another out|begun with layer"):
        RepresentationMonitor(model, *held_out, every=1, out=tmp_path / "all", start=1)
    with pytest.raises(InputError, match="no layer 'boddy'"):
        RepresentationMonitor(model, *held_out, out=tmp_path / "x", layer=["body", "boddy"])


def test_the_bands_of_accuracies_stay_between_0_and_100_percent(tmp_path: Path) -> None:
    facts = {"facts": {"layers": [None, "body.4"]}, "body.4/centre_accuracy": [0.0, 95, 100, 100]}
    out = written(tmp_path / "m", [0.0, 1, 2, 3], centre_accuracy=[92.5, 0, 100, 98], **facts)
    from dsmi_zoo.reports.page.training import _panel, read_trainings

    for line in _panel(read_trainings([out]), "centre_accuracy").lines:
        assert ((line.low >= 0) & (line.low <= line.mean + 1e-9)).all()
        assert ((line.high <= 100) & (line.high >= line.mean - 1e-9)).all()
        assert (line.low < line.high).all(), "no band of width zero at 0 or 100%"


@pytest.mark.usefixtures("without_drawing")
def test_the_numbers_of_a_column_are_aligned_with_its_head(tmp_path: Path) -> None:
    out = written(tmp_path / "m", [0.0, 1, 2, 3])
    page = write_monitor_report(out).read_text()
    head, cell = re.search(
        r'<th scope="col"([^>]*)>Step</th>.*?<th scope="row"([^>]*)>0<', page, re.S
    ).groups()  # type: ignore[union-attr]
    assert 'class="l' not in head + cell


@pytest.mark.usefixtures("without_drawing")
def test_the_page_says_what_the_trainings_own_numbers_are_and_draws_no_counters(
    tmp_path: Path,
) -> None:
    from dsmi_zoo.reports.page.training import (
        _own_numbers,
        _what_own_numbers_are,
        read_trainings,
    )

    curve = [0.0, 1, 2, 3]
    own = {"epoch": curve, "trainer/global_step": curve, "learning_rate": curve}
    logged = written(tmp_path / "logged", curve, facts={"own_numbers": "logged"}, **own)
    means = written(tmp_path / "means", curve, facts={"own_numbers": "means"}, loss=curve)
    older = written(tmp_path / "older", curve, loss=curve)
    page = " ".join(write_monitor_report(logged).read_text().replace("&#39;", "'").split())
    words = "own numbers: the values that Hugging Face's Trainer logged at that step."
    assert words in page.replace("’", "'")
    assert _own_numbers(read_trainings([logged])) == ["learning_rate"]
    assert _what_own_numbers_are(read_trainings([means])) == "means since the last measurement"
    for several in ([older], [means, logged]):
        said = _what_own_numbers_are(read_trainings(several))
        assert said.startswith("means since the last measurement, or, with Hugging Face's Trainer")


@pytest.mark.usefixtures("without_drawing")
def test_watching_waits_for_the_first_measurement_and_says_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsmi_zoo.jobs import progress
    from dsmi_zoo.jobs.cli import look

    monkeypatch.setattr(conclude, "POLL", 0.02)
    monkeypatch.setattr(progress, "SILENCE_S", 0.1)
    lines = StringIO()
    shown = progress.Display(Console(file=lines))
    monkeypatch.setattr(look, "display", lambda: shown)
    out = tmp_path / "m"
    said: list[str] = []
    monkeypatch.setattr(conclude.log, "info", said.append)

    def watch() -> None:
        look.report_command.main(["--out", str(out), "--watch"], standalone_mode=False)

    watching = Thread(target=watch, daemon=True)
    watching.start()
    watching.join(0.5)
    assert watching.is_alive()
    assert said == [f"Waiting for the first measurement in {out}"]
    written(out, [0.0, 1], ended=True)
    watching.join(60)
    page = out / "report" / "index.html"
    assert said[1:] == [f"Report: {page}", "The training has ended; the page stands"]
    assert "so far" not in lines.getvalue(), "no computation goes on while it waits"
