"""Time and size of the report of a whole zoo: SYNTHETIC rows for all of imagenet-2025.

    python benchmarks/report_full_size.py

All measures against all accuracies, 2,000 resamples, figures and page; then, if Chromium is there, the time from
opening the page to the moment when Bokeh has drawn all of it.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synthetic_rows import RUN, synthetic_rows

from dsmi_zoo.reports.page.build import write_page
from dsmi_zoo.reports.statistics.summary import summarise


def seconds_to_interactive(page: Path) -> float:
    """From opening the page until Bokeh is idle, by the browser's own clock."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.binary_location = str(shutil.which("chromium"))
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        browser.get("about:blank")
        browser.get(page.as_uri())
        drawn = "return window.Bokeh?.documents[0]?.is_idle ? performance.now() : null"
        return WebDriverWait(browser, 60, 0.02).until(lambda b: b.execute_script(drawn)) / 1000
    finally:
        browser.quit()


def main() -> None:
    """Print the figures."""
    rows = synthetic_rows()
    started = time.perf_counter()
    summarise(rows, RUN)
    statistics = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        page = write_page(rows, RUN, Path(folder))
        print(
            f"{len(rows)} rows: statistics alone {statistics:.1f} s, whole report {time.perf_counter() - started:.1f} s"
        )
        print(f"page: {page.stat().st_size / 2**20:.1f} MiB")
        if shutil.which("chromium") and shutil.which("chromedriver"):
            print(
                f"interactive after {min(seconds_to_interactive(page) for _ in range(3)):.2f} s (best of 3)"
            )


if __name__ == "__main__":
    main()
