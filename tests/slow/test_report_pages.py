"""Report pages in headless Chromium, and the artifacts of a run in Prefect's UI."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from flows.engine import report_data
from flows.prefect_artifacts import ProgressArtifact, log_server_errors
from galstore.cube.reader import open_cube
from modeling.report.pages import NAVIGATION
from schemas.errors import StoreError
from tests.facts import facts_near
from tests.flows.conftest import prefect_server, small_run
from tests.support.browser import keep_screenshot, open_browser, open_page
from tests.support.report_pages import write_all

__all__ = ["prefect_server", "small_run"]

WIDTHS = {400: "phone", 1280: "desktop"}

LAYOUT = """() => ({
    width: document.documentElement.scrollWidth,
    broken: [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length,
    images: document.images.length,
    cut: [...document.querySelectorAll("main > *, main td, main th")].filter(one => {
        const box = one.getBoundingClientRect();
        return !one.closest(".wide") && !one.closest("pre") && box.right > window.innerWidth + 1;
    }).map(one => one.outerHTML.slice(0, 80)),
})"""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages_folder(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("pages"))


def artifact(key: str) -> Any:
    """Return the newest artifact of a key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.UPDATED_DESC, limit=1
        )
    assert found, f"no artifact {key}"
    return found[0]


def assert_sound(browser, folder: Path, label: str) -> None:
    """Check all pages at both widths: no requests, no messages, all images loaded, content not cut off."""
    for width, device in WIDTHS.items():
        with open_page(browser, width=width, dark=device == "phone") as (page, seen):
            for name in NAVIGATION:
                page.goto((folder / name).as_uri())
                layout = page.evaluate(LAYOUT)
                keep_screenshot(page, f"{label}-{Path(name).stem}-{device}")
                assert layout["width"] <= width, name
                assert layout["broken"] == 0
                assert layout["images"] > 0
                assert layout["cut"] == []
            assert seen.complaints == []
            assert seen.asked == []


def test_complete_pages_are_sound(browser, pages_folder) -> None:
    assert_sound(browser, pages_folder, "simulated")


def test_every_page_links_to_every_other(browser, pages_folder) -> None:
    with open_page(browser, width=400) as (page, seen):
        page.goto((pages_folder / "report.html").as_uri())
        for name, title in [*NAVIGATION.items()] * 2:
            page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
            page.wait_for_url(f"**/{name}")
            current = page.locator("nav a[aria-current=page]")
            assert current.inner_text() == title
        assert seen.complaints == []


def test_wide_tables_are_scrolled_and_details_open_by_keyboard(browser, pages_folder) -> None:
    with open_page(browser, width=400) as (page, _):
        page.goto((pages_folder / "quality.html").as_uri())
        table = page.get_by_role("region").filter(has_text="petroMag_r").first
        table.evaluate("one => one.scrollLeft = 10000")
        assert table.evaluate("one => one.scrollLeft") > 0
        summary = page.locator("details summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details p").first.is_visible()


def test_text_is_readable_on_both_backgrounds(browser, pages_folder) -> None:
    """Check the contrast of text and captions: at least 4.5 (WCAG)."""
    contrast = """selector => {
        const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const one = document.querySelector(selector);
        const [a, b] = [getComputedStyle(one).color, getComputedStyle(document.body).backgroundColor].map(light);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }"""
    for dark in (False, True):
        with open_page(browser, width=1280, dark=dark) as (page, _):
            page.goto((pages_folder / "quality.html").as_uri())
            for selector in ("main p", "figcaption", "nav a", "thead th", ".absent, .survey", "summary"):
                assert page.evaluate(contrast, selector) >= 4.5, (selector, dark)


@pytest.mark.slow
def test_the_pages_of_a_run_are_sound(small_run, browser) -> None:
    folder, _ = small_run
    assert_sound(browser, folder / "report", "run")
    with open_page(browser, width=1280) as (page, _):
        page.goto((folder / "report" / "quality.html").as_uri())
        assert facts_near(page.inner_text("main"), "60", "registered")
        page.goto((folder / "report" / "predictions.html").as_uri())
        assert facts_near(page.inner_text("main"), "of 60", "new_catalog.csv")


@pytest.mark.slow
def test_the_summary_has_the_numbers_of_the_pages(small_run) -> None:
    folder, result = small_run
    summary = json.loads((folder / "report" / "report.json").read_text())
    assert summary == json.loads(json.dumps(result["report"]))
    counts = open_cube(str(folder / "cube"), snapshot_id=summary["quality"]["snapshot"]).counts()
    assert summary["quality"]["add_up"]
    assert summary["quality"]["registered"] == summary["quality"]["n_objects"] == counts.registered
    assert summary["quality"]["compared_with"]["n_objects"] == counts.registered - 60
    new = summary["predictions"]["new"]
    assert new["n"] == 60
    assert sum(new["by_status"].values()) == 60
    assert new["n_scored"] == new["by_status"]["scored"]
    assert {"forest", "full_forest"} <= summary["predictors"].keys()


@pytest.mark.slow
def test_a_run_leaves_artifacts_in_the_ui(small_run) -> None:
    folder, result = small_run
    counts = artifact("ingest-counts")
    rows = {row["objects"]: row["number"] for row in json.loads(counts.data)}
    assert int(rows["pending"]) == 0
    assert int(rows["stored"]) + int(rows["quarantined"]) == int(rows["registered"])
    assert counts.flow_run_id is not None
    (validation,) = json.loads(artifact("training-metrics").data)
    assert 0 < float(validation["rmse"]) < 1
    assert artifact("score-counts") is not None
    metrics = {row["predictor"]: row["rmse"] for row in json.loads(artifact("report-metrics").data)}
    assert float(metrics["network"]) == pytest.approx(result["report"]["predictors"]["network"]["rmse"], abs=1e-4)
    assert (folder / "report" / "report.html").as_uri() in artifact("report").data
    assert artifact("data-quality") is not None


@pytest.mark.slow
def test_a_later_report_compares_objects_registered_since_the_last_one(small_run) -> None:
    folder, result = small_run
    cube = open_cube(str(folder / "cube"), snapshot_id=result["report"]["quality"]["snapshot"])
    earlier = {"paths": {"cube": cube.path}, "quality": {"snapshot": "BEFORE", "n_objects": cube.n_objects - 7}}
    known = report_data._known_before(cube, "TRAINED", earlier)
    assert known[:2] == ("BEFORE", cube.n_objects - 7)
    # no object since the last report: its comparison is used again
    repeated = {"snapshot": "SAME", "n_objects": cube.n_objects, "compared_with": {"snapshot": "OLD", "n_objects": 3}}
    assert report_data._known_before(cube, "TRAINED", {**earlier, "quality": repeated})[:2] == ("OLD", 3)
    # a report of another cube, or none at all
    elsewhere = {**earlier, "paths": {"cube": "elsewhere"}}
    assert report_data._known_before(cube, "TRAINED", elsewhere) is None
    assert report_data._known_before(cube, "TRAINED", None) is None


@pytest.mark.slow
def test_progress_shows_in_the_ui_once_work_takes_long(prefect_server) -> None:
    from prefect import flow

    @flow
    def work() -> None:
        progress = ProgressArtifact("making bread, 2 ways", 4, every_s=0.0)
        progress.advance(1)
        progress.advance(2)
        progress.close()

    work()
    shown = artifact("progress-making")
    assert (shown.type, shown.data) == ("progress", 75.0)
    assert facts_near(shown.description, "making bread, 2 ways", "3 of 4")
    assert shown.flow_run_id is not None


def test_a_server_error_costs_an_artifact_and_not_the_run() -> None:
    import httpx

    # not caplog: Prefect replaces the handlers of the root logger
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("flows.prefect_artifacts")
    logger.addHandler(handler)
    try:
        with log_server_errors("ingest-counts"):
            raise httpx.ConnectError("connection refused")
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert facts_near(record.getMessage(), "ingest-counts", "connection refused")
    with pytest.raises(StoreError, match="an error of our code"), log_server_errors("ingest-counts"):
        raise StoreError("an error of our code")


def test_progress_outside_of_a_flow_sends_nothing() -> None:
    progress = ProgressArtifact("verify", 2)
    progress.advance(2)
    progress.close()
    assert progress._artifact_id is None
