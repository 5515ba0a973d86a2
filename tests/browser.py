"""Debian's headless Chromium, for tests of rendered pages."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)
DEEP = """
const deep = (root, selector, found = []) => {
  root.querySelectorAll("*").forEach((element) => {
    if (element.matches(selector)) found.push(element);
    if (element.shadowRoot) deep(element.shadowRoot, selector, found);
  });
  return found;
};
const page = window.Bokeh?.documents[0];
const model = (name) => page.get_model_by_name(name);
const source = () => model("models").source;
const visible = () => deep(document, ".slick-row").map((row) => row.innerText.split("\\n").map((text) => text.trim()));
"""


@contextmanager
def chromium(downloads: Path) -> Iterator[webdriver.Chrome]:
    """Yield a browser that saves into ``downloads`` and records the console and requests of pages."""
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    assert CHROMIUM
    options.binary_location = CHROMIUM
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def open_page(browser: webdriver.Chrome, page: Path, *, explorer: bool = True) -> None:
    """Open the file and wait until it is drawn; ``explorer``: whether the page has an explorer."""
    drawn = "window.Bokeh?.documents[0]?.is_idle" if explorer else "true"
    browser.get(page.as_uri())
    WebDriverWait(browser, 60, 0.05).until(
        lambda b: b.execute_script(f"return {drawn} && document.readyState === 'complete'")
    )


def ask(browser: webdriver.Chrome, code: str, *arguments: Any) -> Any:
    """Run ``code`` in the page after the definitions of ``DEEP`` and return its result."""
    return browser.execute_script(DEEP + code, *arguments)


def console_problems(browser: webdriver.Chrome) -> list[str]:
    """Return the console's errors and warnings since the last call."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("SEVERE", "WARNING")
    ]


def external_requests(browser: webdriver.Chrome) -> set[str]:
    """Return the URLs, other than file, data and blob, that were requested since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    }
    return {url for url in asked if not url.startswith(("file:", "data:", "blob:"))}
