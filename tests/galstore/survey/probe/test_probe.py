"""Tests that the probe identifies every fault of the emulator."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aiohttp import web
from PIL import Image

from galstore.emulator.cutout_folder import CutoutFolder
from galstore.emulator.faults import Fault, FaultPlan
from galstore.emulator.server import build_app
from galstore.emulator.sky.simulated import SimulatedSky
from galstore.survey.probe.checks import Check, Verdict
from galstore.survey.probe.survey import agree, probe_survey
from schemas.recipes import FaultSection, Recipe, parse_recipe
from tests.conftest import draw_blobs, encode
from tests.support.emulator import InlineDrawingPool, serve_in_thread

SERVICES = ("skyserver", "legacysurvey")
FIRST_ID = 1237648702973411443

EXPECTED = {
    Fault.TOO_MANY_REQUESTS: ("failed", "too_many_requests", r"(?=.*429)(?=.*Retry-After)"),
    Fault.SERVER_ERROR: ("failed", "service_error", "500"),
    Fault.OUTAGE_PAGE: ("failed", "service_error", r"(?=.*503)(?=.*'Service unavailable')"),
    Fault.TRUNCATED: ("failed", "truncated", r"(?=.*200)(?=.*JPEG)(?=.*128 x 128)"),
    Fault.OUT_OF_FOOTPRINT: ("differs", "out_of_footprint", "404"),
    Fault.BLACK_TILE: ("differs", "out_of_footprint", "200"),
    Fault.FLAT_TILE: ("differs", "flat", "200"),
    Fault.HTML_PAGE: ("failed", "html_page", r"(?=.*200)(?=.*'Service unavailable')"),
    Fault.ERROR_MESSAGE: ("failed", "error_message", r"\b60\b"),
    Fault.WRONG_SIZE: ("differs", "wrong_size", r"(?=.*JPEG)(?=.*64 x 64)"),
    Fault.NOT_A_JPEG: ("differs", "not_a_jpeg", r"b'\\x89PNG'"),
    Fault.BOMB: ("differs", "decompression_bomb", r"(?=.*JPEG)(?=.*30000 x 30000)"),
    Fault.READ_TIMEOUT: ("failed", "read_timeout", r"read_timeout\b.*time"),
    Fault.CONNECT_TIMEOUT: ("failed", "connect_timeout", r"connect_timeout\b.*time"),
    Fault.CONNECTION_RESET: ("failed", "connection_lost", r"connection_lost\b.*(refused|lost|connection)"),
    Fault.TRAILING_BYTES: ("failed", "trailing_bytes", r"trailing_bytes\b.*bytes"),
    Fault.STUCK_CACHE: ("failed", "repeated_body", r"repeated_body\b.*object"),
    Fault.CLIENT_ERROR: ("differs", "client_error", "400"),
    Fault.REDIRECT_LOOP: ("failed", "service_error", r"(?=.*302)(?=.*redirect)"),
}
"""Verdict, name, and key facts in the probe's description of each fault."""

VIEWER_EXPECTED = {
    Fault.OUT_OF_FOOTPRINT: ("differs", "flat", "200"),
    Fault.ERROR_MESSAGE: ("failed", "error_message", "'no such layer'"),
    Fault.CLIENT_ERROR: ("differs", "client_error", "'Need ra,dec keywords'"),
}
"""Faults with a different response from the Legacy Surveys viewer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CutoutFolder:
    place = tmp_path_factory.mktemp("probed")
    ids = FIRST_ID + np.arange(6)
    for object_id, pixels in zip(ids, draw_blobs(6), strict=True):
        (place / f"{object_id}.jpg").write_bytes(encode(pixels))
    table = {"objID": ids, "ra": 150 + np.arange(6) / 4, "dec": 2.5, "oh_p50": 8.9}
    pd.DataFrame(table).to_csv(place / "catalog.csv", index=False)
    return CutoutFolder(catalog=place / "catalog.csv", cutouts=place)


def recipe_for(url: str, service: str, *, prepared: bool = True, **survey: object) -> Recipe:
    """Return a recipe for a survey with few columns and short timeouts."""
    extra = "".join(f"{name} = {value!r}\n" for name, value in survey.items())
    return parse_recipe(
        f"""
        name = "probed"
        store = {{ path = "none" }}
        output = {{ folder = "none" }}
        [cutouts]
        prepared = {str(prepared).lower()}
        [survey]
        name = "probed"
        base_url = "{url}"
        cutout_base_url = "{url}"
        cutout_service = "{service}"
        selection = "labelled"
        columns = ["ra", "dec", "oh_p50"]
        requests_per_second = 5000
        connect_timeout_s = 0.3
        read_timeout_s = 5.0
        {extra}""",
        origin="test",
    )


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def find_check(checks: dict[str, Check], word: str) -> Check:
    """Return the check with a word in its name."""
    (name,) = (name for name in checks if re.search(rf"\b{word}\b", name))
    return checks[name]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_identified(folder: CutoutFolder, fault: Fault, service: str) -> None:
    plan = FaultPlan(seed=0, section=FaultSection(**{fault.value: 1.0, "lasting": 1.0}))
    read_timeout_s = 0.5 if fault is Fault.READ_TIMEOUT else 5.0
    with serve_in_thread(build_app(folder, InlineDrawingPool(), faults=plan)) as url:
        recipe = recipe_for(url, service)
        survey = recipe.survey.model_copy(update={"read_timeout_s": read_timeout_s})
        checks = by_name(probe_survey(recipe.model_copy(update={"survey": survey}), url))
    # a stuck cache repeats from the second object on
    check = find_check(checks, "another") if fault is Fault.STUCK_CACHE else checks["cutout"]
    verdict, name, facts = (VIEWER_EXPECTED if service == "legacysurvey" else {}).get(fault, EXPECTED[fault])
    assert check.verdict == verdict
    assert re.match(rf"{name}\b", check.got)
    assert re.search(facts, check.got)
    assert check.advice
    assert not agree(tuple(checks.values()))
    # the fault affects neither the catalog nor refusals and the footprint
    others = [check for check in checks.values() if re.search(r"catalog|footprint|\bdec\b", check.name)]
    assert len(others) >= 3
    assert all(check.verdict is Verdict.OK for check in others)


@pytest.mark.parametrize("service", SERVICES)
def test_a_working_service_agrees_within_ten_requests(service: str) -> None:
    sky, n_requests = SimulatedSky(seed=3, n_galaxies=60, n_new=0), 0
    app = build_app(sky, InlineDrawingPool())

    @web.middleware
    async def count(request: web.Request, handler: object) -> web.StreamResponse:
        nonlocal n_requests
        n_requests += 1
        return await handler(request)  # type: ignore[operator]

    app.middlewares.append(count)
    with serve_in_thread(app) as url:
        recipe = recipe_for(url, service, prepared=False)
        survey = recipe.survey.model_copy(update={"columns": None, "selection": "wu_boada_2019", "read_timeout_s": 60})
        checks = probe_survey(recipe.model_copy(update={"survey": survey}), url)
    assert agree(checks), [check for check in checks if check.verdict is not Verdict.OK]
    assert all(check.verdict is Verdict.OK for check in checks)
    assert n_requests == (10 if service == "legacysurvey" else 9)


def test_a_service_that_ignores_the_scale_is_identified(folder: CutoutFolder) -> None:
    with serve_in_thread(build_app(folder, InlineDrawingPool())) as url:
        check = by_name(probe_survey(recipe_for(url, "skyserver", prepared=False), url))["scale"]
    assert check.verdict is Verdict.DIFFERS
    assert "1.00" in check.got


def test_images_without_coverage_are_identified() -> None:
    noise = io.BytesIO()
    Image.effect_noise((128, 128), 40).convert("RGB").save(noise, "JPEG")

    async def always(_: web.Request) -> web.Response:
        return web.Response(body=noise.getvalue(), content_type="image/jpeg")

    app = web.Application()
    app.add_routes([web.get("/viewer/cutout.jpg", always)])
    with serve_in_thread(app) as url:
        checks = by_name(probe_survey(recipe_for(url, "legacysurvey"), url))
    for word in ("footprint", "dec", "layer"):
        check = find_check(checks, word)
        assert check.verdict is Verdict.DIFFERS
        assert "image" in check.got
        assert re.search("stored|ingest", check.advice)
    assert find_check(checks, "TOP").verdict is Verdict.FAILED
    assert find_check(checks, "COUNT").verdict is Verdict.SKIPPED


ROWS = [f"{FIRST_ID + n},{n},{n}.5,2,8.9" for n in range(5)]
HEADER = "objID,specObjID,ra,dec,oh_p50"
PAGE = "<html><title>Service unavailable</title></html>"


@pytest.mark.parametrize(
    ("status", "text", "verdict", "facts"),
    [
        (
            200,
            "\n".join(["#Table1", HEADER.removesuffix(",oh_p50"), *(row[:-4] for row in ROWS)]),
            "differs",
            "oh_p50",
        ),
        (200, "\n".join(["#Table1", HEADER, *ROWS, *ROWS]), "differs", r"(?=.*\b10\b)(?=.*TOP 5)"),
        (200, "\n".join(["#Table1", HEADER, *reversed(ROWS)]), "differs", "order"),
        (200, f"#Table1\n{HEADER}\n", "differs", "rows"),
        (200, f"#Table1\n{HEADER}\n1.2376487e18,1,1,2,8.9\n", "failed", "where a whole number is expected"),
        (200, f"#Table1\n{HEADER}\n{FIRST_ID},1,400,2,8.9\n", "differs", r"(?=.*\b1\b)(?=.*\bra\b)(?=.*400)"),
        (200, "#Table1\nerror_message\nMaximum 60 queries allowed per minute\n", "differs", "Maximum 60 queries"),
        (500, '{"ErrorCode": 500, "ErrorMessage": "Invalid object name"}', "differs", "Invalid object name"),
        (200, PAGE, "failed", "table"),
        (503, PAGE, "failed", "503"),
    ],
)
def test_wrong_responses_of_the_catalog_are_identified(
    folder: CutoutFolder, status: int, text: str, verdict: str, facts: str
) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.add_routes([web.get("/dr14/{tail:.*}", respond)])
    with serve_in_thread(app) as url:
        checks = by_name(probe_survey(recipe_for(url, "skyserver"), url))
    check = find_check(checks, "TOP")
    assert check.verdict == verdict
    assert re.search(facts, check.got)
    assert check.advice
    refused = "error_message" in text
    assert (find_check(checks, "refusal").verdict is Verdict.OK) == refused


def test_a_catalog_file_replaces_the_queries(folder: CutoutFolder, tmp_path: Path) -> None:
    table = folder.catalog()[["objID", "ra", "dec"]].rename(columns={"objID": "object_id"})
    table.to_csv(tmp_path / "mine.csv", index=False)
    with serve_in_thread(build_app(folder, InlineDrawingPool())) as url:
        recipe = recipe_for(url, "skyserver", catalog=str(tmp_path / "mine.csv"))
        checks = probe_survey(recipe, url)
    assert agree(checks)
    assert not [check for check in checks if "catalog" in check.name]
