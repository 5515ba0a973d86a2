"""Reports written concurrently or by a process that dies: the page is always complete, and the next report clean."""

import json
import sys
import threading
from pathlib import Path

import pytest
from power_cuts import deaths
from run_records import record_of

from dsmi_zoo._util.errors import InputError
from dsmi_zoo._util.locks import exclusive
from dsmi_zoo.jobs.runs import conclude
from dsmi_zoo.pipeline.store.run_folder import write_run
from dsmi_zoo.reports.figures.canvas import Rendered
from dsmi_zoo.reports.page import rendering
from dsmi_zoo.reports.page.rendering import LOCK, PageFiles


@pytest.fixture(autouse=True)
def _pages_without_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "as_html", lambda _, context: f"page of {context['name']}")


def page(name: str) -> PageFiles:
    drawing = Rendered(name.encode(), name.encode(), name)
    return PageFiles("", {"name": name}, {"name": name}, {name: drawing, "shared": drawing})


def assert_page_of(folder: Path, name: str) -> None:
    assert (folder / "index.html").read_text() == f"page of {name}"
    assert json.loads((folder / "summary.json").read_text()) == {"name": name}
    figures = {f"{stem}.{suffix}" for stem in (name, "shared") for suffix in ("png", "svg")}
    assert {path.name for path in (folder / "figures").iterdir()} == figures
    assert {path.read_text() for path in (folder / "figures").iterdir()} == {name}
    assert not (folder / LOCK).exists()


def test_two_reports_at_once_leave_all_files_of_one_of_them(tmp_path: Path) -> None:
    for _ in range(10):
        both = [threading.Thread(target=page(name).write, args=(tmp_path,)) for name in ("a", "b")]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert_page_of(tmp_path, (tmp_path / "index.html").read_text().split()[-1])


def test_tables_of_an_earlier_page_are_deleted_and_files_of_others_stay(tmp_path: Path) -> None:
    with_table = {"correlations.csv": b"rho"}
    PageFiles("", {"name": "a"}, {}, {}, with_table).write(tmp_path)
    (tmp_path / "mine.csv").touch()
    PageFiles("", {"name": "b"}, {}, {}).write(tmp_path)
    assert {path.name for path in tmp_path.glob("*.csv")} == {"mine.csv"}


def test_a_report_waits_until_another_process_has_written_its_own(tmp_path: Path) -> None:
    with exclusive(tmp_path / LOCK):
        waiting = threading.Thread(target=page("b").write, args=(tmp_path,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not (tmp_path / "index.html").exists()
    waiting.join(10)
    assert_page_of(tmp_path, "b")


def test_a_report_that_dies_at_any_operation_leaves_a_whole_page(
    tmp_path: Path,
) -> None:
    folder, found = tmp_path / "report", []
    page("a").write(folder)
    for _ in deaths(lambda: page("b").write(folder), folder):
        found.append((folder / "index.html").read_text())
        page("a").write(folder)
        stray = list(folder.rglob("*.tmp"))
        for path in stray:  # swept when they are an hour old
            path.unlink()
        assert_page_of(folder, "a")
    assert found == sorted(found)
    assert set(found) == {"page of a", "page of b"}


@pytest.mark.parametrize("wrong", ["out", "compared", "compared with a training"])
def test_a_wrong_folder_is_refused_before_the_report_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    for name in ("build", "training"):
        monkeypatch.setitem(sys.modules, f"dsmi_zoo.reports.page.{name}", None)
    good, nowhere = tmp_path / "good", tmp_path / "nowhere"
    good.mkdir()
    if wrong == "compared with a training":
        (good / "monitor.parquet").touch()
    else:
        write_run(good, record_of())
    folders = (nowhere,) if wrong == "out" else (good, (nowhere,))
    with pytest.raises(InputError, match=r"nowhere(: no measurements| is not a run)"):
        conclude.report(*folders)
