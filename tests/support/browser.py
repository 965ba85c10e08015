"""A headless Chromium that looks at pages as a person would; tests skip where none is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium_path() -> str:
    """The browser that is installed, or a skip that says what to do."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
    named = os.environ.get("CHROMIUM", "")
    found = next((path for name in (named, *NAMES) if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or set CHROMIUM to its path")
    return found


@dataclass
class Seen:
    """What a page did while it was open."""

    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, errors of the page, requests that failed."""
    asked: list[str] = field(default_factory=list)
    """Addresses outside of the page's own folder."""


@contextmanager
def open_browser() -> Iterator:
    """A browser; it is gone afterwards."""
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as playwright:
        # root may not use the sandbox, and a container's /dev/shm is small
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser, *, width: int, dark: bool = False) -> Iterator:
    """A page of some width with what it did."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page, seen = context.new_page(), Seen()
    page.on("console", lambda one: seen.complaints.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda one: seen.complaints.append(str(one)))
    page.on("requestfailed", lambda one: seen.complaints.append(f"failed: {one.url[:80]}"))
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else seen.asked.append(one.url))
    try:
        yield page, seen
    finally:
        context.close()


def keep_screenshot(page, name: str) -> None:
    """A picture of the whole page in the folder SCREENSHOTS, where that is set."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
