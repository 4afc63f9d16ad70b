"""The report and the comparison in a real browser, at both widths, and printed.

The screenshots lie in pytest's temporary folder, ``pages*/``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.chromium import CHROMIUM, WIDTHS, needs_chromium

pytestmark = needs_chromium

SEARCH = ("--epochs", "2", "--plan", "quick", "--sync-timeout", "0")
PAGES = ("report", "comparison")
OVERFLOW = """
() => [...document.querySelectorAll('p, li, h1, h2, h3, img, pre, td, dd')]
    .filter(e => !e.closest('.wide, pre, details') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.textContent.slice(0, 60) || e.tagName)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a study, and its comparison with another one."""
    place = tmp_path_factory.mktemp("pages")
    environment = os.environ | {"LRSEARCH_HOME": str(place / "home")}
    found = {name: place / f"{name}.html" for name in PAGES}
    commands = [
        ("search", "digits", "--name", "sgd", *SEARCH),
        ("search", "digits", "--name", "adam", "--set", "optimizer=adam", *SEARCH),
        ("report", "sgd", "--out", str(found["report"])),
        ("compare", "sgd", "adam", "--out", str(found["comparison"])),
    ]
    for words in commands:
        subprocess.run(
            [sys.executable, "-c", "from lrsearch.cli import main; main()", *words],
            cwd=place,
            env=environment,
            capture_output=True,
            check=True,
        )
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def page(browser: Browser, width: int) -> Iterator[Page]:
    """A window in which no script of a page runs."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, java_script_enabled=False)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_for_anything(page: Page, pages: dict[str, Path], name: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.screenshot(path=pages[name].with_name(f"{name}-{page.viewport_size['width']}.png"), full_page=True)  # type: ignore[index]
    assert [url[:80] for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_and_text_fit_the_window(page: Page, pages: dict[str, Path], name: str) -> None:
    page.goto(pages[name].as_uri())
    assert page.evaluate(OVERFLOW) == []
    widths = page.evaluate("() => [...document.images].map(i => [i.naturalWidth, i.alt])")
    assert widths
    assert all(pixels > 0 and alt for pixels, alt in widths)


def test_the_answer_comes_first(page: Page, pages: dict[str, Path]) -> None:
    page.goto(pages["report"].as_uri())
    headings = page.get_by_role("heading").all_inner_texts()
    top = page.locator("body").inner_text()[:1500]
    assert "sgd" in headings[0]
    assert "optimizer" in top.lower()
    assert "scheduler" in top.lower()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_on_few_sheets(browser: Browser, pages: dict[str, Path], name: str) -> None:
    page = browser.new_page()
    page.goto(pages[name].as_uri())
    printed = page.pdf(path=pages[name].with_suffix(".pdf"), format="A4")
    page.close()
    assert 1 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type/Page\n") <= 20
