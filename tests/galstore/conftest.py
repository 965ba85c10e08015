"""Cubes for the data plane's tests."""

from __future__ import annotations

from pathlib import Path

import distributed
import pandas as pd
import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import fill_cube, plan_jobs
from galstore.ingest.register import Delivery, register_page, register_survey
from galstore.survey.retry import Politeness
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.selection import SELECTIONS

SCALE = CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296)
POLITENESS = Politeness(
    requests_per_second=5000,
    concurrency=16,
    connect_timeout_s=5,
    read_timeout_s=20,
    attempts=3,
    retry_budget_s=60,
    breaker_failures=20,
)


def source_of(service: SkyServer) -> CutoutSource:
    return CutoutSource(service=service, scale=SCALE, politeness=POLITENESS)


def registered_cube(path: str, service: SkyServer, *, limit: int = 0) -> str:
    ensure_cube(path, survey="made-up", scale=SCALE)
    register_survey(
        path, service, SELECTIONS["labelled"], survey="made-up", columns=["ra", "dec", "oh_p50"], limit=limit
    )
    return path


def add_objects(path: str, rows: pd.DataFrame, *, catalog: str) -> None:
    """Register a catalog of some rows."""
    register_page(path, Delivery(catalog=catalog), prepare_catalog(rows, origin=catalog))


@pytest.fixture(scope="session")
def filled_cube(
    tmp_path_factory: pytest.TempPathFactory, folder_service: SkyServer, dask_workers: distributed.Client
) -> Cube:
    """1,100 objects in two blocks, all stored; tests only read it."""
    path = registered_cube(str(tmp_path_factory.mktemp("filled") / "cube"), folder_service)
    fill_cube(path, plan_jobs(open_cube(path)), source_of(folder_service), dask_workers)
    return open_cube(path)


@pytest.fixture
def cube_path(tmp_path: Path) -> str:
    """Where a test may make a cube of its own."""
    return str(tmp_path / "cube")
