"""A real headless Chromium for tests of the page; where there is none, tests that need one are skipped with the reason."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "google-chrome")


@contextmanager
def launched() -> Iterator["Browser"]:
    """The browser; skips the test where playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: "Browser", path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, expected: str | None = None
) -> Iterator["Page"]:
    """The page in a window of its own, its reader unpacked.

    At the end: nothing was asked of a network, no dialog came up, and nothing was said on the console but what has `expected` in it.
    """
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(f"request: {request.url}"))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert [each for each in said if expected is None or expected not in each] == []


def tally(page: "Page", text: str) -> None:
    """Waits until the list's count says this."""
    page.wait_for_function("(text) => document.querySelector('.tally span').textContent === text", arg=text)


def shown_id(page: "Page", name: str) -> None:
    """Waits until this problem is the one that is shown."""
    page.wait_for_function("(name) => document.querySelector('.top strong')?.textContent === name", arg=name)
