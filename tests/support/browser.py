"""Headless Chromium for tests of pages; they are skipped without one."""

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
    """Return the path of the installed browser, or skip the test."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
    named = os.environ.get("CHROMIUM", "")
    found = next((path for name in (named, *NAMES) if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or set CHROMIUM to its path")
    return found


@dataclass
class PageActivity:
    """Activity of an open page."""

    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, errors of the page, failed requests."""
    asked: list[str] = field(default_factory=list)
    """Requested addresses outside the page's folder."""


@contextmanager
def open_browser() -> Iterator:
    """Yield a browser and close it."""
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
    """Yield a page of a given width, and its activity."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page, seen = context.new_page(), PageActivity()
    page.on(
        "console",
        lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url[:80]}"))
    local = ("file:", "data:")
    page.on("request", lambda request: None if request.url.startswith(local) else seen.asked.append(request.url))
    try:
        yield page, seen
    finally:
        context.close()


def keep_screenshot(page, name: str) -> None:
    """Save a picture of the whole page in the folder $SCREENSHOTS, if it is set."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
