"""Tests of the Legacy Surveys viewer as a cutout service: requests, and responses to every fault."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.emulator.cutout_folder import CutoutFolder
from galstore.emulator.faults import Fault, FaultPlan
from galstore.emulator.server import build_app
from galstore.emulator.survey import CutoutQuery
from galstore.survey.collect import collect_cutouts
from galstore.survey.cutout_service import LegacySurveyViewer, catalog_service_of, cutout_service_of
from galstore.survey.responses import CutoutRequest
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import DOWN_REASONS, Composite, CutoutScale, Reason, ScaleRule
from schemas.errors import RecipeError, StoreError
from schemas.recipes import FaultSection, SurveySection, parse_recipe
from tests.conftest import draw_blobs, encode
from tests.galstore.conftest import REQUEST_LIMITS
from tests.slow.integration.test_faults import REASON_OF
from tests.support.emulator import InlineDrawingPool, serve_in_thread

FIRST_ID = 1237648702973411443
FAST_LIMITS = replace(REQUEST_LIMITS, attempts=2, connect_timeout_s=0.3, read_timeout_s=5, breaker_failures=20)
FIXED = CutoutScale(rule=ScaleRule.FIXED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CutoutFolder:
    place = tmp_path_factory.mktemp("viewer")
    ids = FIRST_ID + np.arange(4)
    for object_id, pixels in zip(ids, draw_blobs(4), strict=True):
        (place / f"{object_id}.jpg").write_bytes(encode(pixels))
    pd.DataFrame({"objID": ids, "ra": 150 + np.arange(4) / 4, "dec": 2.5}).to_csv(place / "catalog.csv", index=False)
    return CutoutFolder(catalog=place / "catalog.csv", cutouts=place)


def requests_to(viewer: LegacySurveyViewer, n: int = 4) -> list[CutoutRequest]:
    return [
        CutoutRequest(
            row=row,
            url=viewer.cutout_url,
            params=viewer.cutout_params(ra_deg=150 + row / 4, dec_deg=2.5, scale_arcsec=0.296),
        )
        for row in range(n)
    ]


def test_a_request_has_size_layer_and_pixel_scale() -> None:
    viewer = LegacySurveyViewer(base_url="http://viewer.example", layer="sdss")
    assert viewer.cutout_url == "http://viewer.example/viewer/cutout.jpg"
    params = viewer.cutout_params(ra_deg=180.5, dec_deg=-0.25, scale_arcsec=0.296)
    expected = {"ra": "180.500000000", "dec": "-0.250000000", "size": "128", "layer": "sdss", "pixscale": "0.296"}
    assert params == expected
    assert "pixscale" not in viewer.cutout_params(ra_deg=1, dec_deg=2, scale_arcsec=float("nan"))


def test_cutouts_arrive_unchanged(folder: CutoutFolder) -> None:
    with serve_in_thread(build_app(folder, InlineDrawingPool())) as url:
        collected = asyncio.run(collect_cutouts(requests_to(LegacySurveyViewer(base_url=url)), FAST_LIMITS))
    query = CutoutQuery(position_deg=(150.0, 2.5), scale_arcsec=0.3, size_px=(128, 128))
    bodies = [folder.cutout(FIRST_ID + row, query) for row in range(4)]
    assert [response.body for response in collected.responses] == bodies


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.STUCK_CACHE, Fault.READ_TIMEOUT)])
def test_every_fault_has_its_reason(folder: CutoutFolder, fault: Fault) -> None:
    plan = FaultPlan(seed=0, section=FaultSection(**{fault.value: 1.0, "lasting": 1.0, "retry_after_s": 0}))
    with serve_in_thread(build_app(folder, InlineDrawingPool(), faults=plan)) as url:
        collected = asyncio.run(collect_cutouts(requests_to(LegacySurveyViewer(base_url=url), 1), FAST_LIMITS))
    # without coverage, the viewer's tile has one colour
    reason = Reason.FLAT if fault is Fault.OUT_OF_FOOTPRINT else REASON_OF[fault]
    if reason in DOWN_REASONS:
        # no request succeeded: the service is down, and the object stays pending
        assert collected.responses == ()
        assert reason.name in str(collected.down)
    else:
        assert [response.reason for response in collected.responses] == [reason]


def test_a_place_without_coverage_is_flat_and_an_unknown_layer_stops_the_run(folder: CutoutFolder) -> None:
    with serve_in_thread(build_app(folder, InlineDrawingPool())) as url:
        viewer = LegacySurveyViewer(base_url=url)
        outside = CutoutRequest(
            row=9, url=viewer.cutout_url, params=viewer.cutout_params(ra_deg=10, dec_deg=-60, scale_arcsec=0.296)
        )
        uncovered = asyncio.run(collect_cutouts([*requests_to(viewer), outside], FAST_LIMITS))
        unknown = LegacySurveyViewer(base_url=url, layer="ls-dr99")
        refused = asyncio.run(collect_cutouts(requests_to(unknown), FAST_LIMITS))
    assert [response.reason for response in uncovered.responses] == [Reason.NONE] * 4 + [Reason.FLAT]
    assert refused.responses == ()
    assert "ERROR_MESSAGE" in str(refused.down)


def test_a_recipe_selects_catalog_and_cutout_service() -> None:
    survey = SurveySection(
        name="both", base_url="http://a.example/", cutout_service="legacysurvey", cutout_base_url="http://b.example/"
    )
    assert catalog_service_of(survey, survey.base_url) == SkyServer(base_url="http://a.example")
    assert cutout_service_of(survey, survey.base_url) == LegacySurveyViewer(base_url="http://b.example")
    plain = SurveySection(name="one", base_url="http://a.example", data_release=17)
    assert cutout_service_of(plain, plain.base_url) == SkyServer(base_url="http://a.example", data_release=17)


def test_a_viewer_without_an_address_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"(?=.*cutout_service)(?=.*'legacysurvey')(?=.*cutout_base_url)"):
        parse_recipe(
            'name = "x"\nstore = {path = "x"}\noutput = {folder = "x"}\n'
            'survey = {name = "x", base_url = "http://a.example", cutout_service = "legacysurvey"}',
            origin="test",
        )


def test_a_cube_has_one_composite(tmp_path: Path) -> None:
    path = str(tmp_path / "cube")
    deep = replace(FIXED, composite=Composite.LS_DR9)
    ensure_cube(path, survey="deep", scale=deep)
    cube = open_cube(path)
    assert cube.scale == deep
    assert cube.attributes["bands"] == ["z", "r", "g"]
    assert cube.array("images/64/pixels").attrs["band_names"] == ["z", "r", "g"]
    with pytest.raises(StoreError, match=r"(?=.*'legacysurvey-ls-dr9')(?=.*'skyserver')"):
        ensure_cube(path, survey="deep", scale=FIXED)
