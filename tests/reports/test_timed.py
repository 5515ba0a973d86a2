"""The choice page's section on device times: measured times of the best models beside timm's published figures."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_choice_page import on, pair

from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.timed import Mode, Passes, Place, TimedRow, timed_path, write_timed
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.timed import recommended

HERE = Place("cpu", "a <fast> processor", 2)


def times(model: str, others_share: float = 0.0) -> TimedRow:
    single = Passes(batch=1, passes=100, median_s=0.02, p95_s=0.03, memory=50_000_000)
    best = Passes(batch=8, passes=10, median_s=0.1, p95_s=None, memory=200_000_000)
    mode = Mode(single=single, best=best)
    return TimedRow(
        model=model,
        img_size=224,
        device=HERE.device,
        name=HERE.name,
        threads=HERE.threads,
        precision="fp32",
        eager=mode,
        others_share=others_share,
        load=0.5,
        versions={"torch": "2"},
        finished_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def page_of(out: Path, *rows: TimedRow, hits_of_b0: int = 193) -> str:
    """Return the choice page of two models, given the timed rows; by default the two models are tied."""
    models = pair(("b1", 196, 5.4), ("b0", hits_of_b0, 4.7))
    models["architecture"] = ["resnet50.a1_in1k", "resnet18.a1_in1k"]
    entries = tuple(
        EntryRecord(model=name, img_size=224, slug=f"{name}-224", row_id=name)
        for name in ("b0", "b1")
    )
    run = on("csv").model_copy(update={"entries": entries})
    for row in rows:
        write_timed(timed_path(out, f"{row.model}-224", HERE, "fp32"), row)
    tied = ["b0@224", "b1@224"] if hits_of_b0 == 193 else ["b1@224"]
    assert sorted(recommended(models, run, out)) == tied
    page = write_page(models, run, out / "report", source=out).read_text()
    return " ".join(page.split())


@pytest.mark.long
@pytest.mark.usefixtures("without_drawing")
def test_the_choice_page_shows_times_beside_published_figures_and_their_conditions(
    tmp_path: Path,
) -> None:
    page = page_of(tmp_path, times("b1"), times("b0", others_share=0.4))
    section = page.split('<h2 id="timed">')[1].split("</section>")[0]
    assert "a &lt;fast&gt; processor, 2 threads, fp32" in section
    assert "b1 at 224, eager" in section
    for cell in ("20.0", "95%: 30.0", "80.0", "in batches of 8", "50.0 MB", "200.0 MB"):
        assert cell in section, cell
    assert "slower by a factor of 1.69 in the median of timm's own tables (1.25 to 2.24)" in section
    assert "b0 (40%)" in section, "a disturbed time is named"
    assert "not timed" not in section
    assert '<a href="#timed">' in page


@pytest.mark.long
@pytest.mark.usefixtures("without_drawing")
def test_models_that_were_not_timed_are_counted_and_damaged_files_named(tmp_path: Path) -> None:
    assert 'id="timed"' not in page_of(tmp_path / "untimed")
    (tmp_path / "some/timed").mkdir(parents=True)
    (tmp_path / "some/timed/b0-224-cpu-fp32-0.json").write_text("{}")
    section = page_of(tmp_path / "some", times("b1")).split('<h2 id="timed">')[1]
    assert "1 of the best models was not timed" in section
    assert "b0-224-cpu-fp32-0.json: " in section


@pytest.mark.long
def test_a_timed_model_that_is_not_among_the_best_is_shown_too(tmp_path: Path) -> None:
    section = page_of(tmp_path, times("b0"), hits_of_b0=100).split('<h2 id="timed">')[1]
    assert "b0 at 224, eager" in section
    assert "1 of the best models was not timed" in section
