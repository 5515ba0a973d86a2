"""The digits zoo's page in a browser: on a desktop, on a phone and on paper, with every section unfolded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import ask, chromium, needs_browser, open_page
from pages import DOCS
from selenium import webdriver

from dsmi_zoo.pipeline.store.release import rows_and_record
from dsmi_zoo.reports.page.build import write_page

pytestmark = needs_browser
UNFOLD = "document.querySelectorAll('details').forEach((part) => { part.open = true; });"
WORDS = "return document.body.innerText.split(/\\s+/).filter((word) => word !== '').length"
BOXES = "return [...document.querySelectorAll('.scroll')].map((box) => {0})"
PAPER = 718  # pixels between the margins of A4


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, run = rows_and_record(DOCS / "boards" / "digits")
    return write_page(rows, run, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("downloads")) as started:
        yield started


def unfolded(browser: webdriver.Chrome, page: Path, width: int, media: str = "screen") -> None:
    """Open the page at a width, with all sections unfolded."""
    size: dict[str, Any] = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    open_page(browser, page)
    browser.execute_script(UNFOLD)


def test_the_whole_page_is_at_most_12000_pixels_and_3000_words(
    browser: webdriver.Chrome, page: Path
) -> None:
    unfolded(browser, page, 1300)
    assert browser.execute_script("return document.documentElement.scrollHeight") <= 12_000
    assert browser.execute_script(WORDS) <= 3_000
    beyond = browser.execute_script(BOXES.format("box.scrollWidth - box.clientWidth"))
    assert max(beyond) <= 0, "no table has to be scrolled sideways"


def test_nothing_is_blank_under_a_short_table(browser: webdriver.Chrome, page: Path) -> None:
    unfolded(browser, page, 1300)
    blank = browser.execute_script(
        BOXES.format("box.clientHeight - box.firstElementChild.offsetHeight")
    )
    assert max(blank) <= 1


def test_a_phone_shows_the_first_number_of_each_row_beside_its_name(
    browser: webdriver.Chrome, page: Path
) -> None:
    unfolded(browser, page, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    ends = browser.execute_script(
        BOXES.format("box.querySelector('tbody td').getBoundingClientRect().right")
    )
    assert max(ends) <= 390


def test_paper_has_every_column(browser: webdriver.Chrome, page: Path) -> None:
    unfolded(browser, page, PAPER, "print")
    beyond = browser.execute_script(
        BOXES.format("box.querySelector('table').offsetWidth - box.parentElement.clientWidth")
    )
    assert max(beyond) <= 0
    hidden = browser.execute_script(BOXES.format("box.scrollHeight - box.offsetHeight"))
    assert max(hidden) <= 1


def test_one_number_has_one_interval_on_the_page(browser: webdriver.Chrome, page: Path) -> None:
    unfolded(browser, page, 1300)
    words = "return document.getElementById('explorer-statistics').textContent"
    from selenium.webdriver.support.wait import WebDriverWait

    said = WebDriverWait(browser, 30, 0.1).until(lambda b: b.execute_script(words))
    assert "(95% interval 0.46 to 0.90 over 16 architectures)" in said
    assert "0.75 0.46 to 0.90" in browser.execute_script(
        "return document.querySelector('#correlations-1 + .scroll').innerText"
    )


def test_the_page_of_a_choice_has_one_column_of_parameters(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    rows, run = rows_and_record(DOCS / "boards" / "digits")
    subset = run.config.subset.model_copy(update={"dataset": "imagefolder"})
    config = run.config.model_copy(update={"subset": subset})
    page = write_page(rows.head(8), run.model_copy(update={"config": config}), tmp_path)
    unfolded(browser, page, 1300)
    heads = ask(browser, "return deep(document, '.slick-header-column').map((h) => h.innerText)")
    assert heads.count("parameters (M)") + heads.count("Parameters (M)") == 1
    blank = ask(
        browser,
        "return deep(document, '.slick-viewport').map((v) => v.clientHeight)[0]"
        " - deep(document, '.slick-row').length * 25",
    )
    assert blank < 40, "eight rows leave no blank table"
