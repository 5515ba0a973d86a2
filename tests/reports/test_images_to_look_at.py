"""Images to look at on the choice page: those on which the best models disagree, and those that no model recognises."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_classes import PER_CLASS, run_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo.jobs.runs.conclude import Thumbnails, report
from dsmi_zoo.pipeline.config.run import SubsetSettings
from dsmi_zoo.pipeline.measures.core.hits import pack_hits, unpack_hits
from dsmi_zoo.pipeline.store.record import RunRecord
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.statistics.classes import Images, judge_images

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@given(st.integers(1, 6), st.integers(1, 30), st.randoms(use_true_random=False))
def test_disputed_and_missed_images_are_those_of_a_count_by_hand(k, m, random) -> None:  # type: ignore[no-untyped-def]
    hits = np.array([[random.random() < 0.5 for _ in range(m)] for _ in range(k)])
    is_best = np.array([True] + [random.random() < 0.5 for _ in range(k - 1)])
    images = Images(np.zeros(m, dtype=np.int64), ("a",))
    found = judge_images(images, [str(i) for i in range(m)], hits, is_best, None)
    by_hand = [i for i in range(m) if 0 < sum(hits[is_best, i]) < sum(is_best)]
    assert sorted(found.disputed.tolist()) == by_hand
    away = [abs(sum(hits[is_best, i]) - sum(is_best) / 2) for i in found.disputed]
    assert away == sorted(away), "the most evenly split first"
    missed = [i for i in range(m) if not hits[:, i].any()] if k > 1 else []
    assert found.missed.tolist() == missed
    assert found.table["right"].tolist() == hits.sum(axis=0).tolist()


def with_hits(rows: pd.DataFrame, number: int, right: bool) -> pd.DataFrame:
    """Return the rows with the first ``number`` images recognised, or not, by all models."""
    changed = []
    for text in rows["probe_hits"]:
        hits = unpack_hits(text).copy()
        hits[:number] = right
        changed.append(pack_hits(hits))
    return rows.assign(probe_hits=changed)


def page_of(out: Path, rows: pd.DataFrame, run: RunRecord, thumbnails: bool = False) -> str:
    make = (lambda names: dict.fromkeys(names, PIXEL)) if thumbnails else None
    return write_page(rows, run, out / "report", source=out, thumbnails=make).read_text()


@pytest.mark.long
def test_the_page_names_images_that_no_model_recognises_and_shows_them_if_asked(
    tmp_path: Path,
) -> None:
    rows, run = run_of(tmp_path, 3)
    rows = with_hits(rows, 2, False)
    page = page_of(tmp_path, rows, run)
    section = page.split("<summary>Images to look at")[1].split("</details>")[0]
    assert "class&lt;0&gt;/0.png" in section
    assert "<img" not in section
    table = pd.read_csv(tmp_path / "report" / "images.csv")
    assert len(table) == 3 * PER_CLASS
    assert (table["right"][:2] == 0).all()

    section = page_of(tmp_path, rows, run, thumbnails=True).split("<summary>Images to look at")[1]
    assert f'<img src="{PIXEL}" alt="class&lt;0&gt;/0.png: class&lt;0&gt;' in section


@pytest.mark.long
def test_a_run_on_which_all_models_agree_has_no_images_to_look_at(tmp_path: Path) -> None:
    rows, run = run_of(tmp_path, 3)
    page = page_of(tmp_path, with_hits(rows, 3 * PER_CLASS, True), run)
    assert "Images to look at" not in page


def test_an_image_that_is_gone_has_no_thumbnail_and_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make = Thumbnails(SubsetSettings(dataset="digits"))
    with caplog.at_level(logging.WARNING):
        uris = make(["digit-0030", "gone"])
    assert list(uris) == ["digit-0030"]
    assert uris["digit-0030"].startswith("data:image/jpeg;base64,")
    assert "no thumbnail of gone" in caplog.text


def test_a_training_has_no_thumbnails(tmp_path: Path) -> None:
    (tmp_path / "monitor.parquet").touch()
    with pytest.raises(InputError, match="monitored training, whose page shows no images"):
        report(tmp_path, thumbnails=True)


@pytest.mark.long
@pytest.mark.usefixtures("without_drawing")
def test_a_page_that_lists_no_images_says_that_it_has_no_thumbnails(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(small_run, tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        report(tmp_path / "out", thumbnails=True)
    assert "no thumbnails: only the page of a choice" in caplog.text
