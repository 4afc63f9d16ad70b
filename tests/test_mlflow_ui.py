"""A study in MLflow's own UI, in a real browser: what the pages say, read from the page, not the picture.

The screenshots lie in pytest's temporary folder, ``mlflow-ui*/screenshots``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.chromium import CHROMIUM, WIDTHS, needs_chromium
from tests.tracking.server import QUIET, serving

PATIENCE_MS = 10_000
TRIALS = ["coarse-00", "coarse-01", "coarse-02", "coarse-03", "decay-00", "confirm-00"]
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"

pytestmark = needs_chromium


class Browser:
    """A page of the UI, and the pictures of it."""

    def __init__(self, page: Page, address: str, pictures: Path) -> None:
        self.page = page
        self._address = address
        self._pictures = pictures
        self._study: str | None = None

    def open_study(self) -> None:
        """The study's page; the first time from the experiment's runs, as a person goes."""
        if self._study is None:
            self.open_runs()
            self.link("demo").click()
            self._study = self.page.url
        else:
            self.page.goto(self._study)
        expect(self.page.get_by_text("About this run")).to_be_visible()

    def open_runs(self) -> None:
        self.page.goto(f"{self._address}/#/experiments/1/runs")

    def follow(self, words: str | re.Pattern[str]) -> None:
        """Open a link of the study's description; MLflow gives it a tab of its own."""
        self.open_study()
        with self.page.expect_popup() as opened:
            self.page.get_by_role("link", name=words).first.click()
        self.page.close()
        self.page = opened.value

    def link(self, words: str) -> Locator:
        return self.page.get_by_role("link", name=words, exact=True)

    def picture(self, name: str) -> None:
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 1000})
            self.page.screenshot(path=self._pictures / f"{name}-{width}.png")


@pytest.fixture(scope="module")
def address(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on the store of a finished study."""
    place = tmp_path_factory.mktemp("study")
    database = Path(shutil.copy(migrated, place / "mlflow.db"))
    words = ["search", "digits", "--name", "demo", "--epochs", "2", "--plan", "quick", "--sync-timeout", "60"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    subprocess.run(
        [sys.executable, "-c", "from lrsearch.cli import main; main()", *words],
        cwd=place,
        env=inherited | QUIET | {"LRSEARCH_HOME": str(place / "home")},
        capture_output=True,
        check=True,
    )
    with serving(database) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    pictures = tmp_path_factory.mktemp("mlflow-ui") / "screenshots"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        context = chromium.new_context(viewport={"width": 1400, "height": 1000})
        context.add_init_script(NO_ASSISTANT)
        context.set_default_timeout(PATIENCE_MS)
        yield Browser(context.new_page(), address, pictures)
        chromium.close()


@pytest.fixture(autouse=True)
def own_tab(browser: Browser) -> None:
    page = browser.page.context.new_page()
    browser.page.close()
    browser.page = page


def test_the_runs_begin_with_the_study(browser: Browser) -> None:
    browser.open_runs()
    expect(browser.link("demo")).to_be_visible()
    expect(browser.link("coarse-00")).to_have_count(0)
    browser.picture("runs")


def test_the_study_says_its_answer_and_its_plan(browser: Browser) -> None:
    browser.open_study()
    page = browser.page
    page.get_by_text("Show more").click()
    for words in (
        r"Learning rate [\d.]+, schedule \w+",
        r"Learning rate: 90% interval",
        r"quick: a full training is 2 epochs",
    ):
        expect(page.get_by_text(re.compile(words)).first).to_be_visible()
    for stage in ("range-test", "coarse", "fine", "decay", "confirm"):
        expect(page.get_by_role("cell", name=stage, exact=True)).to_be_visible()
    expect(page.get_by_text("best_objective")).to_be_visible()
    browser.picture("study")


@pytest.mark.parametrize(
    ("words", "run"),
    [("range test", "range-test"), ("winner", r"confirm-\d+"), ("best constant lr", r"confirm-\d+")],
)
def test_the_study_links_the_runs_that_matter(browser: Browser, words: str, run: str) -> None:
    browser.follow(re.compile(f"^{words}"))
    expect(browser.page.get_by_role("heading", name=re.compile(run))).to_be_visible()


def test_the_table_of_the_trials_shows_what_they_are(browser: Browser) -> None:
    browser.follow("table of the trials")
    for name in TRIALS:
        expect(browser.link(name)).to_be_visible()
    for column in ("objective", "diverged", "lr", "schedule", "seed", "stage"):
        header = browser.page.get_by_role("columnheader").filter(has_text=re.compile(f"^{column}$"))
        expect(header).to_have_count(1)
    browser.picture("trials")


def test_the_trials_are_compared_in_charts(browser: Browser) -> None:
    browser.follow("charts of the trials")
    chart = browser.page.locator(".js-plotly-plot").filter(has_text="Step").first
    for name in ("coarse-00", "decay-00"):
        expect(browser.link(name)).to_be_visible()
    expect(chart.locator(".scatterlayer .trace").nth(5)).to_be_attached()
    browser.picture("trials-charts")


def test_the_range_test_is_drawn_against_lr(browser: Browser) -> None:
    browser.follow("charts of the range test")
    page = browser.page
    expect(page.get_by_text("train/loss", exact=True).first).to_be_visible()
    chart = page.locator(".js-plotly-plot").first
    expect(chart.locator(".xtitle")).to_have_text("lr")
    expect(chart.locator(".scatterlayer .trace").first).to_be_attached()
    browser.picture("range-test-charts")


def test_a_trials_table_is_previewed(browser: Browser) -> None:
    browser.open_study()
    browser.page.get_by_role("tab", name="Artifacts").click()
    browser.page.get_by_text("trials.csv").click()
    expect(browser.page.get_by_text("objective", exact=True).first).to_be_visible()
    browser.picture("trials-csv")


def test_the_report_opens(browser: Browser) -> None:
    browser.open_study()
    browser.page.get_by_role("tab", name="Artifacts").click()
    browser.page.get_by_text("report.html").click()
    expect(browser.page.frame_locator("iframe").locator("h1")).to_contain_text("demo")
    browser.picture("report")


def test_the_curve_of_the_range_test_opens(browser: Browser) -> None:
    browser.follow("range test")
    browser.page.get_by_role("tab", name="Artifacts").click()
    browser.page.get_by_text("curve.png").click()
    picture = browser.page.locator("img[src^='blob:']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 500
    browser.picture("curve")
