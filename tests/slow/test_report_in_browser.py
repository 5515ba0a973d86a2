"""The report of a whole zoo in a real browser: it opens offline, and its controls do what they say."""

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import ask, chromium, console_problems, external_requests, needs_browser, open_page
from scipy.stats import norm
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from synthetic_rows import RUN, synthetic_rows

from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.statistics.correlation import correlate
from dsmi_zoo.reports.statistics.sample import families_of, one_row_per_weights, succeeded, values

pytestmark = needs_browser
MIB = 2**20


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the full-size page of synthetic rows."""
    folder = tmp_path_factory.mktemp("report")
    return write_page(synthetic_rows(), RUN, folder)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def started(downloads: Path) -> Iterator[webdriver.Chrome]:
    with chromium(downloads) as browser:
        yield browser


@pytest.fixture
def browser(started: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    """Return the browser with the page freshly opened and drawn."""
    open_page(started, page)
    return started


def test_the_page_opens_offline_without_a_complaint_and_is_small_enough(
    browser: webdriver.Chrome, page: Path
) -> None:
    assert page.stat().st_size < 4 * MIB
    assert console_problems(browser) == []
    assert external_requests(browser) == set()
    assert ask(browser, "return source().data.model.length") == 1554


def test_the_page_asks_nobody_even_when_told_to(browser: webdriver.Chrome) -> None:
    refused = browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), (e) => done(String(e)));"
    )
    assert "TypeError" in refused
    said = " ".join(console_problems(browser))
    assert "Content Security Policy" in said or "violates" in said


def choose(browser: webdriver.Chrome, number: int, text: str) -> None:
    select = ask(browser, "return deep(document, 'select')[arguments[0]]", number)
    browser.execute_script(
        "const [box, text] = arguments; box.value = [...box.options].find((o) => o.text === text).value;"
        "box.dispatchEvent(new Event('change'));",
        select, text,
    )  # fmt: skip


def settled(browser: webdriver.Chrome) -> str:
    """Return the explorer's text on the shown models once it no longer changes."""
    before = ""
    while (
        said := ask(browser, "return document.getElementById('explorer-statistics').textContent")
    ) != before or not said:
        before = said
        time.sleep(0.4)
    return said


def test_another_score_and_accuracy_move_the_points_and_name_axes_and_columns(
    browser: webdriver.Chrome,
) -> None:
    choose(browser, 0, "LogME")
    choose(browser, 1, "real top-1 accuracy (%)")
    settled(browser)
    assert ask(
        browser,
        "const d = source().data, p = model('plot');"
        "return [d.x.every((v, i) => Object.is(v, d.logme[i])),"
        " d.y.every((v, i) => Object.is(v, d.real_top1[i])),"
        " p.below[0].axis_label.text, p.left[0].axis_label.text];",
    ) == [True, True, "LogME", "real top-1 accuracy (%)"]
    heads = ask(browser, "return deep(document, '.slick-header-column').map((h) => h.innerText)")
    assert {"Rank", "Could be", "LogME", "real top-1 accuracy (%)"} <= set(heads)
    first = ask(browser, "return visible()[0]")
    best = succeeded(synthetic_rows()).nlargest(1, "logme").iloc[0]
    assert (first[0], first[2]) == ("1", best["model"]), "the best stands first"


def test_filters_act_on_plot_table_ranks_statistics_and_download_alike(
    browser: webdriver.Chrome, downloads: Path
) -> None:
    choose(browser, 0, "10 nearest neighbours")
    number = ask(
        browser,
        "return deep(document, 'select').findIndex((s) => [...s.options].some((o) => o.text === 'hybrid'))",
    )
    choose(browser, number, "transformer")
    ask(browser, "model('most').value = 90")
    said = settled(browser)
    rows = succeeded(synthetic_rows())
    rows = rows[(rows["kind"] == "transformer") & (rows["params_m"] <= 90)]
    kept = ask(
        browser, "return [model('kept'), ...model('plot').renderers.map((r) => r.view.filter.operands[1])]"
        ".map((f) => f.indices.map((i) => source().data.model[i] + '@' + source().data.size[i]))",
    )  # fmt: skip
    expected = sorted(f"{m}@{s}" for m, s in zip(rows["model"], rows["img_size"], strict=True))
    assert all(sorted(names) == expected for names in kept)

    sample = one_row_per_weights(synthetic_rows())
    sample = sample[sample["model"].isin(rows["model"]) & (sample["params_m"] <= 90)]
    found = correlate(
        values(sample, "neighbour_accuracy"), values(sample, "top1"), families_of(sample)[1]
    ).spearman
    assert f"{len(rows)} of 1554 models are shown" in said
    rho, low, high = (
        float(text.replace("\u2212", "-")) for text in re.findall(r"[\u2212\d]+\.\d\d", said)[:3]
    )
    assert rho == pytest.approx(found.value, abs=0.0051)
    assert (low, high) == pytest.approx(found.ci, abs=0.04), "other resamples of the same families"

    score = rows["neighbour_accuracy"].to_numpy()
    one = int(np.argsort(-score, kind="stable")[5])
    margin = norm.isf(0.025 / (len(rows) - 1)) * np.hypot(1.5, 1.5)
    low, high = (
        1 + (score - score[one] > margin).sum(),
        len(rows) - (score[one] - score > margin).sum(),
    )
    name = f"{rows['model'].iloc[one]}@{rows['img_size'].iloc[one]}"
    ranks = "const d = source().data, i = d.model.findIndex((m, i) => m + '@' + d.size[i] === arguments[0]);"
    assert ask(browser, ranks + "return d.ranks[i]", name) == f"{low} to {high}"

    ask(
        browser, "return deep(document, 'button').find((b) => b.innerText === 'Download as CSV')"
    ).click()
    text = downloaded(downloads)
    assert (
        sorted(f"{row['model']}@{row['size']}" for row in csv.DictReader(io.StringIO(text)))
        == expected
    )


def downloaded(folder: Path) -> str:
    """Wait for the one downloaded CSV file, delete it and return its text."""
    WebDriverWait(folder, 20, 0.1).until(
        lambda f: [p for p in f.glob("*.csv") if p.stat().st_size > 0]
    )
    (path,) = folder.glob("*.csv")
    text = path.read_text()
    path.unlink()
    return text


def test_a_view_stands_in_the_address_and_opens_again(
    browser: webdriver.Chrome, page: Path
) -> None:
    choose(browser, 0, "LogME")
    ask(browser, "model('text').value_input = 'resnet'; model('text').value = 'resnet'")
    settled(browser)
    address = browser.current_url
    assert address.endswith("#view:x=logme&text=resnet")
    browser.get("about:blank")
    browser.get(address + "&models=resnet50.a1_in1k%40224&only=1")
    WebDriverWait(browser, 60, 0.05).until(
        lambda b: b.execute_script("return window.Bokeh?.documents[0]?.is_idle")
    )
    assert "LogME and top-1 accuracy" in settled(browser)
    assert [row[2] for row in ask(browser, "return visible()")] == ["resnet50.a1_in1k"]
    ask(
        browser, "return deep(document, 'button').find((b) => b.innerText === 'Show all again')"
    ).click()
    assert settled(browser).startswith("All 1554 models are shown. DSMI(Z;Y)")
    assert "#" not in browser.current_url
    browser.get(page.as_uri() + "#view:x=nonsense&most=abc&family=%3Cb%3E&models=none")
    assert console_problems(browser) == [], "what an address holds may be anything"


def test_a_models_row_opens_its_facts_its_scores_and_the_code_that_loads_it(
    browser: webdriver.Chrome,
) -> None:
    settled(browser)
    name = ask(browser, "return visible()[2][2]")
    ask(
        browser, "return deep(document, '.slick-row')[2].querySelectorAll('.slick-cell')[2]"
    ).click()
    told = WebDriverWait(browser, 10, 0.05).until(
        lambda b: (
            (
                text := ask(b, "return document.getElementById('explorer-model').innerText")
            ).startswith(name)
            and text
        )
    )
    row = succeeded(synthetic_rows()).query("model == @name").iloc[0]
    assert f"timm.create_model('{row['architecture']}', pretrained=True)" in told
    assert "\u00b1 0.200" in told
    assert "License of the weights" in told


def all_hold(word: str, rows: list[list[str]]) -> bool:
    return bool(rows) and all(word in " ".join(row).lower() for row in rows)


def processor_seconds(browser: webdriver.Chrome) -> float:
    """Return the CPU seconds that the page has used, whatever the machine's other load."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def test_typing_filters_the_table_fast_and_sorting_orders_it(browser: webdriver.Chrome) -> None:
    box = next(
        b for b in ask(browser, "return deep(document, 'input[type=text]')") if b.is_displayed()
    )
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = processor_seconds(browser)
    box.send_keys("resnext")
    WebDriverWait(browser, 10, 0.02).until(
        lambda b: all_hold("resnext", ask(b, "return visible()"))
    )
    assert 0 < processor_seconds(browser) - before < 3
    box.send_keys(Keys.BACKSPACE * len("resnext"), "vit_tiny")
    WebDriverWait(browser, 10, 0.02).until(
        lambda b: all_hold("vit_tiny", ask(b, "return visible()"))
    )
    for _ in range(2):
        head = ask(
            browser,
            "return deep(document, '.slick-header-column').find((h) => h.innerText === 'Size')",
        )
        head.click()
    sizes = [int(row[3]) for row in ask(browser, "return visible()")]
    assert len(set(sizes)) > 1
    assert sizes == sorted(sizes, reverse=True)


def test_models_selected_in_the_plot_can_be_read_alone_in_the_table(
    browser: webdriver.Chrome,
) -> None:
    ask(browser, "model('plot').scrollIntoView?.()")
    canvas = ask(browser, "return deep(document, '.bk-CanvasPanel, .bk-Canvas, canvas')[0]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    box = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.width, r.height]", canvas
    )
    actions = ActionChains(browser).move_to_element_with_offset(
        canvas, int(-box[0] / 6), int(-box[1] / 6)
    )
    actions.click_and_hold().move_by_offset(int(box[0] / 3), int(box[1] / 4)).release().perform()
    selected = ask(browser, "return source().selected.indices.map((i) => source().data.model[i])")
    assert 0 < len(selected) < 1554
    only = ask(
        browser, "return deep(document, 'label').find((l) => l.innerText.includes('only models selected'))"
        "?.querySelector('input') ?? deep(document, 'input[type=checkbox]')[0]"
    )  # fmt: skip
    only.click()
    WebDriverWait(browser, 10, 0.05).until(
        lambda b: {row[2] for row in ask(b, "return visible()")} <= set(selected)
    )
    assert ask(browser, "return visible()")


def test_a_click_on_a_name_in_the_legend_hides_its_points(browser: webdriver.Chrome) -> None:
    shown = "return model('plot').renderers.map((r) => r.visible)"
    assert all(ask(browser, shown))
    place = ask(
        browser,
        "const legend = model('plot').below.find((m) => m.type === 'Legend');"
        "const view = Bokeh.index.find_one(legend) ?? Bokeh.index.get_one(legend);"
        "const plot = [...deep(document, '.bk-Figure')][0]; plot.scrollIntoView({block: 'center'});"
        "const r = plot.getBoundingClientRect(), b = view.bbox;"
        "return [r.left + b.left, r.top + b.top, b.width, b.height];",
    )
    left, top, width, height = place
    for step in range(2, 40):
        x, y = int(left + width * step / 40), int(top + height / 4)  # the upper of two lines
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        for kind in ("mousePressed", "mouseReleased"):
            browser.execute_cdp_cmd(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            )
        time.sleep(0.05)
        if not all(ask(browser, shown)):
            break
    assert ask(browser, shown).count(False) == 1


def test_the_download_is_a_csv_of_all_models_with_their_names_as_they_are(
    browser: webdriver.Chrome, downloads: Path
) -> None:
    button = ask(
        browser, "return deep(document, 'button').find((b) => b.innerText === 'Download as CSV')"
    )
    button.click()
    rows = list(csv.DictReader(io.StringIO(downloaded(downloads))))
    assert len(rows) == 1554
    expected = synthetic_rows().query("status == 'ok'")
    assert sorted(row["model"] for row in rows) == sorted(expected["model"])
    one = next(row for row in rows if row["model"] == "resnet50.a1_in1k" and row["size"] == "224")
    truth = expected[
        (expected["model"] == "resnet50.a1_in1k") & (expected["img_size"] == 224)
    ].iloc[0]
    assert float(one["dsmi_z_y"]) == truth["dsmi_z_y"]
    assert float(one["h_score"]) == truth["h_score"]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_nothing_sticks_out_of_the_page_on_a_phone_or_in_the_dark(
    browser: webdriver.Chrome, width: int, scheme: str
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        fits = "return innerWidth === arguments[0] && document.documentElement.scrollWidth <= arguments[0]"
        WebDriverWait(browser, 20, 0.05).until(lambda b: b.execute_script(fits, width))
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in paper[4:-1].split(",")) < 200) == (scheme == "dark")
        filters = browser.execute_script(
            "return getComputedStyle(document.querySelector('figure img')).filter"
        )
        assert ("invert" in filters) == (scheme == "dark"), "figures follow"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_keyboard_reaches_every_control(browser: webdriver.Chrome) -> None:
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(80):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(
            ask(
                browser,
                "let e = document.activeElement; while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;"
                "return e.tagName + ':' + (e.type ?? '');",
            )
        )
        if {"SELECT:select-one", "INPUT:text", "INPUT:checkbox", "BUTTON:button"} <= reached:
            return
    pytest.fail(f"only {sorted(reached)}")
