"""Hostile names in pages: they cannot run code, hide anything or break the page."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from browser import ask, chromium, console_problems, external_requests, needs_browser, open_page
from hostile_names import FORMULA_BEGINS, MATHEMATICS, NAMES, in_a_spreadsheet
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from packed_parts import unpacked
from PIL import Image
from run_records import record_of
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from dsmi_zoo.pipeline.store.record import EntryRecord
from dsmi_zoo.pipeline.store.release import Release
from dsmi_zoo.pipeline.store.run_folder import rows_frame
from dsmi_zoo.reports.figures import canvas as figures
from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.page.rendering import markdown_text
from dsmi_zoo.reports.statistics import summary as statistics
from dsmi_zoo.reports.statistics.correlation import Bootstraps

pytestmark = pytest.mark.long

# Names of own measures, without spaces because a row separates them by spaces.
OWN = ("__proto__", "constructor", "size", "$$y$$", "@SUM(1+1)", "<b>&lt;")
# Any catalogue column whose name ends in _top1 or _top5 is an accuracy.
ACCURACIES = ("<img src=x onerror=window.struck=1>_top1", "$$q$$_top1")
SVG = "{http://www.w3.org/2000/svg}"
SHAPES = ("svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect")
# JavaScript that finds traces of foreign markup in the page and in every shadow tree.
FOREIGN = """
const all = deep(document, "*");
const handlers = all.filter((e) => [...e.attributes].some((a) => a.name.startsWith("on")));
const links = all.filter((e) => /^\\s*(javascript|data|http):/i.test(e.getAttribute("href") ?? ""));
const foreign = all.filter((e) => e.matches("base, iframe, object, embed, form, img:not([alt]), svg[onload], h1 + h1"));
return [handlers, links, foreign].map((found) => found.map((e) => e.outerHTML.slice(0, 200)));
"""


def another(i: int, by: int) -> str:
    return NAMES[(i + by) % len(NAMES)]


def hostile_row(i: int, **columns: Any) -> dict[str, Any]:
    """Return a row in which every text is a hostile name."""
    noise = np.random.default_rng(i)
    return {
        "model": NAMES[i], "architecture": another(i, 1), "family": another(i, 2), "kind": another(i, 3),
        "license": another(i, 4), "group": another(i, 5), "device": another(i, 6), "subset_hash": another(i, 7),
        "precision": another(i, 8), "dataset": another(i, 9), "pretraining": another(i, 10), "layer": another(i, 11),
        "versions": json.dumps({another(i, 12): another(i, 13)}), "status": "ok", "row_id": f"r{i}", "img_size": 32,
        "embedding_dim": 64,
        "median_distance_over_sigma": 0.5 if i % 9 == 0 else 1.0, "params_m": float(i + 1), "own_measures": "",
        "dsmi_z_y": noise.normal(), "top1": 50 + noise.normal(),
    } | columns  # fmt: skip


def failed_row(i: int) -> dict[str, Any]:
    return hostile_row(
        i, status="failed", img_size=64, error_type=another(i, 1), error_message=another(i, 2)
    )


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Draw few resamples: these tests do not check intervals, which take the most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "Bootstraps", partial(Bootstraps, 100, 10))
        yield


@pytest.fixture(scope="module")
def all_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of rows in which every name is a model, a family, a kind, a group, an error ..."""
    folder = tmp_path_factory.mktemp("all-names")
    rows = [
        *(hostile_row(i) for i in range(len(NAMES))),
        *(failed_row(i) for i in range(len(NAMES))),
    ]
    missing = [EntryRecord(model=name, img_size=8, slug="s", row_id="m") for name in NAMES]
    return write_page(rows_frame(rows), record_of(*missing, catalog=NAMES[0]), folder)


@pytest.fixture(scope="module")
def own_measures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of measures and accuracies with hostile names, and of few enough groups to colour."""
    folder, noise = tmp_path_factory.mktemp("own-measures"), np.random.default_rng(0)
    groups = [*NAMES[:4], *MATHEMATICS[:4], "two\nlines", "x" * 5000]
    rows = [
        hostile_row(
            i,
            group=groups[i % 10],
            own_measures=" ".join(OWN),
            **dict.fromkeys(ACCURACIES, 50.0 + i),
        )
        | {name: noise.normal() for name in OWN}
        for i in range(20)
    ]
    return write_page(rows_frame(rows), record_of(catalog=NAMES[0]), folder)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    with chromium(downloads) as started:
        yield started


def check_that_nothing_struck(browser: webdriver.Chrome) -> None:
    assert browser.execute_script("return window.struck ?? null") is None
    assert console_problems(browser) == []
    assert external_requests(browser) == set()
    assert ask(browser, FOREIGN) == [[], [], []]
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def check_that_the_policy_holds(browser: webdriver.Chrome) -> None:
    """Check that the page refuses an injected script and the evaluation of text as code."""
    browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.struck = 1';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.struck = 2\">');"
    )
    # In a timer, because code that the test runs directly is exempt.
    evaluated = browser.execute_async_script(
        "const [done] = arguments;"
        "setTimeout(() => { try { done(eval('1 + 1')) } catch (error) { done(error.name) } }, 100);"
    )
    assert evaluated == "EvalError"
    assert browser.execute_script("return window.struck ?? null") is None
    assert sum("Executing inline" in said for said in console_problems(browser)) == 2


def as_parsed(name: str) -> str:
    """Return a text as an HTML parser reads it: a carriage return becomes a line feed."""
    return name.replace("\r", "\n")


def cells(browser: webdriver.Chrome, section: str, column: int) -> list[str]:
    """Return the texts of one column of a section's table."""
    selector = f"[aria-labelledby={section}] tbody tr > :nth-child({column})"
    return list(
        browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)",
            selector,
        )
    )


@needs_browser
def test_a_page_full_of_hostile_names_shows_each_of_them_and_runs_none(
    browser: webdriver.Chrome, all_names: Path
) -> None:
    open_page(browser, all_names)
    check_that_nothing_struck(browser)
    expected = sorted(map(as_parsed, NAMES))
    for column in (1, 2, 3):
        assert sorted(cells(browser, "failures", column)) == expected
    ask(browser, f"model('models').height = 26 * {len(NAMES) + 2}")
    WebDriverWait(browser, 20, 0.05).until(
        lambda b: len(ask(b, "return deep(document, '.slick-row')")) == len(NAMES)
    )
    rows = ask(
        browser,
        "return deep(document, '.slick-row').map((r) => [...r.children].map((e) => e.textContent))",
    )
    for column in (2, 4, 9, 10):  # the model, its group, family and kind
        assert sorted(row[column] for row in rows) == expected
    for number in range(len(NAMES)):
        ask(browser, "source().selected.indices = [arguments[0]]", number)
        told = ask(browser, "return document.querySelector('#explorer-model h3').textContent")
        assert told == ask(browser, "return source().data.model[arguments[0]] + '@32'", number)
    shown = browser.execute_script("return document.body.textContent")
    assert [name for name in NAMES if as_parsed(name) not in shown] == []
    check_that_nothing_struck(browser)
    check_that_the_policy_holds(browser)


@needs_browser
def test_hostile_measures_accuracies_and_groups_can_be_chosen_and_pointed_at(
    browser: webdriver.Chrome, own_measures: Path
) -> None:
    open_page(browser, own_measures)
    heads = "return deep(document, '.slick-column-name').map((e) => e.textContent)"
    offered = ask(browser, "return deep(document, 'option').map((e) => e.textContent)")
    for name in OWN:
        assert name in offered
        ask(browser, "model('across').value = 'own ' + arguments[0]", name)
        assert name in ask(browser, heads)
        assert ask(browser, "return model('x axis').axis_label.text") == name
        assert ask(
            browser,
            "const d = source().data; return d.x.every((v, i) => v === d['own ' + arguments[0]][i])",
            name,
        )
    for name in ACCURACIES:
        title = name.replace("_top1", " top-1 accuracy")
        ask(browser, "model('up').value = arguments[0]", name)
        assert f"{title} (%)" in ask(browser, heads)
        assert ask(browser, "return model('y axis').axis_label.text") == f"{title} (%)"
    place = ask(
        browser,
        "const plot = deep(document, '.bk-Figure')[0]; plot.scrollIntoView({block: 'center'});"
        "const {left, top} = plot.getBoundingClientRect(), d = source().data, i = d.model.indexOf(arguments[0]);"
        "const {x_scale, y_scale} = Bokeh.index.find_one(model('plot')).frame;"
        "return [left + x_scale.compute(d.x[i]), top + y_scale.compute(d.y[i])];",
        NAMES[1],
    )
    for step in (0, 1):
        where = {"x": place[0] + step, "y": place[1]}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **where})
    tooltips = "return deep(document, '.bk-Tooltip').map((e) => e.shadowRoot.textContent).join()"
    WebDriverWait(browser, 10, 0.05).until(lambda b: NAMES[1] in ask(b, tooltips))
    check_that_nothing_struck(browser)


@needs_browser
def test_the_download_computes_nothing_in_a_spreadsheet(
    browser: webdriver.Chrome, own_measures: Path, all_names: Path, downloads: Path
) -> None:
    for page, models in ((all_names, NAMES), (own_measures, NAMES[:20])):
        open_page(browser, page)
        ask(
            browser,
            "deep(document, 'button').find((b) => b.innerText === 'Download as CSV').click()",
        )
        path = downloads / "models.csv"
        WebDriverWait(browser, 20, 0.1).until(
            lambda _, path=path: path.exists() and path.stat().st_size > 0
        )
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
        path.unlink()
        assert len({len(line) for line in lines}) == 1
        assert sorted(line[0] for line in lines[1:]) == sorted(map(in_a_spreadsheet, models))
        facts = 6  # the leading columns, which are text except for the size
        for line in lines:
            assert not [cell for cell in line[:facts] if cell.startswith(FORMULA_BEGINS)]
        for head in lines[0]:
            assert not head.startswith(FORMULA_BEGINS)
        number = lines[0].index("dsmi_z_y")
        expected = [np.random.default_rng(i).normal() for i in range(len(models))]
        assert sorted(float(line[number]) for line in lines[1:]) == sorted(expected)
    assert lines[0].count("size") == 2
    assert "'@SUM(1+1)" in lines[0]


def test_the_summary_holds_hostile_names_as_they_are(all_names: Path, own_measures: Path) -> None:
    for page in (all_names, own_measures):
        summary = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
        assert summary["lead"].startswith("Across ")
    failures = json.loads((all_names.parent / "summary.json").read_text(encoding="utf-8"))[
        "failures"
    ]
    assert (
        sorted(f["model"] for f in failures)
        == sorted(f["error_message"] for f in failures)
        == sorted(NAMES)
    )


def shown_by_markdown(text: str) -> tuple[list[str], set[str]]:
    """Return the texts of all inline parts of a Markdown document, and the kinds of markup in it."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    parts = [part for token in inline for part in token.children or ()]
    texts = ["".join(part.content for part in token.children or ()) for token in inline]
    kinds = {part.type for part in parts}
    return texts, kinds | {token.type for token in tokens if token.type.startswith("html")}


def test_the_card_of_a_release_shows_hostile_names_as_they_are(tmp_path: Path) -> None:
    release = Release(
        format=1,
        id="2026-01-02-0123abcd",
        title=NAMES[0],
        published_at=datetime(2026, 1, 2, tzinfo=UTC),
        license=NAMES[1],
        has_embeddings=False,
    )
    rows = rows_frame([failed_row(i) for i in range(len(NAMES))])
    write_page(rows, record_of(catalog=NAMES[0]), tmp_path, release=release)
    card = (tmp_path / "README.md").read_text(encoding="utf-8").split("<!-- superseded -->")[1]
    texts, markup = shown_by_markdown(card)
    assert [name for name in NAMES if not any(" ".join(name.split()) in t for t in texts)] == []
    assert not [kind for kind in markup if kind.startswith(("html", "image", "link"))]


@pytest.mark.parametrize("name", ["- x", "+ x", "1. x", "12) x", "---", "===", "-", "1."])
def test_a_name_that_begins_a_line_of_markdown_is_no_list_rule_or_heading(name: str) -> None:
    tokens = MarkdownIt("commonmark").parse(
        f"before\n\n{markdown_text(name)}\n\n- {markdown_text(name)}\n"
    )
    assert [token.type for token in tokens if token.type.endswith("_open")] == [
        "paragraph_open", "paragraph_open", "bullet_list_open", "list_item_open", "paragraph_open",
    ]  # fmt: skip
    assert markdown_text("0.5 of 1") == "0.5 of 1"


def check_figures(folder: Path) -> None:
    """Check that each PNG opens and that each SVG contains only shapes."""
    drawings = sorted(folder.glob("*.svg"))
    assert drawings
    for path in drawings:
        root = ElementTree.parse(path).getroot()
        shapes = {element.tag for element in root.iter() if element.tag.startswith(SVG)}
        assert shapes <= {
            SVG + tag
            for tag in ("svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect")
        }
        attributes = [name for element in root.iter() for name in element.attrib]
        assert not [name for name in attributes if name.startswith("on")]
        with Image.open(path.with_suffix(".png")) as picture:
            picture.verify()


def test_figures_of_hostile_names_are_shapes_alone(all_names: Path, own_measures: Path) -> None:
    for page in (all_names, own_measures):
        check_figures(page.parent / "figures")


def drawn_legend(names: Sequence[str]) -> bytes:
    """Return an SVG of a legend of these names, made like the figures' legends."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(8, 20), layout="constrained")
        figures.legend(figure, [Line2D([], [], label=figures.one_line(name, 36)) for name in names])
        return figures.render(figure, "").svg


def test_a_legend_shows_every_hostile_name_as_it_is_and_no_mathematics() -> None:
    drawn = drawn_legend(NAMES)
    assert ElementTree.fromstring(drawn).tag == SVG + "svg"
    said = [html.unescape(text) for text in re.findall("<!-- (.*?) -->\n", drawn.decode())]
    # Matplotlib writes each text in a comment, which must not have two hyphens in a row.
    assert [
        name for name in NAMES if re.sub("-(?=-)", "- ", figures.one_line(name, 36)) not in said
    ] == []
    fraction = r"$\frac{1}$"
    assert drawn_legend([fraction]).count(b"<use ") == len(fraction)


def test_no_script_of_a_page_holds_a_name_and_its_data_hold_no_markup(own_measures: Path) -> None:
    content = own_measures.read_text(encoding="utf-8")
    models = unpacked(content, "explorer-models")
    assert "own __proto__" in models
    json.loads(models)
    scripts = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    assert not [script for script in scripts if "$$y$$" in script or "SUM(1+1)" in script]


def test_a_page_holds_bokeh_once_and_compressed_and_admits_no_other_script(
    own_measures: Path,
) -> None:
    content = own_measures.read_text(encoding="utf-8")
    library = unpacked(content, "explorer-library")
    assert library.count("Bokeh.set_log_level") >= 1
    assert "set_log_level" not in content
    assert len(content) < len(library)
    scripts = [library, *re.findall(r"<script>(.*?)</script>", content, re.DOTALL)]
    expected = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    assert re.findall("'sha256-(.*?)'", content) == expected


def test_a_png_of_a_report_has_the_pixels_of_its_drawing_but_few_colours() -> None:
    figure, axes = figures.canvas(4.0, 3.0)
    axes.plot([0, 1], [0, 1], color="#0072b2", linewidth=4)
    drawn = figures.render(figure, "a line")
    exact = io.BytesIO()
    figure.savefig(exact, format="png", dpi=150)
    few = np.asarray(Image.open(io.BytesIO(drawn.png)).convert("RGB"), dtype=int)
    all_of_them = np.asarray(Image.open(exact).convert("RGB"), dtype=int)
    assert few.shape == all_of_them.shape == (450, 600, 3)
    assert np.abs(few - all_of_them).max() <= 24
    assert np.abs(few - all_of_them).mean() < 0.5
    assert len(drawn.png) < 0.6 * len(exact.getvalue())
