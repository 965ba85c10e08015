"""Cubes for the tests of the data plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.executor import Executor, ThreadExecutor
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.ingest.register import register_survey
from galstore.ingest.write import FillResult
from galstore.survey.retry import RequestLimits
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.selection import SELECTIONS

SCALE = CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296)
REQUEST_LIMITS = RequestLimits(
    requests_per_second=5000,
    concurrency=16,
    connect_timeout_s=5,
    read_timeout_s=20,
    attempts=3,
    retry_budget_s=60,
    breaker_failures=20,
)


def source_of(service: SkyServer) -> CutoutSource:
    return CutoutSource(service=service, scale=SCALE, request_limits=REQUEST_LIMITS)


def registered_cube(path: str, service: SkyServer, *, limit: int = 0) -> str:
    ensure_cube(path, survey="simulated", scale=SCALE)
    register_survey(
        path, service, SELECTIONS["labelled"], survey="simulated", columns=["ra", "dec", "oh_p50"], limit=limit
    )
    return path


def add_objects(path: str, rows: pd.DataFrame, *, catalog: str) -> None:
    """Register rows as a catalog."""
    register_page(path, CatalogUpdate(catalog=catalog), prepare_catalog(rows, origin=catalog))


def fill(path: str, service: SkyServer, executor: Executor, **options: Any) -> FillResult:
    """Fill all pending rows of a cube."""
    return fill_cube(path, plan_block_tasks(open_cube(path)), source_of(service), executor, **options)


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    """Two threads. `tests/slow/integration` fills with Dask."""
    with ThreadExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="session")
def filled_cube(tmp_path_factory: pytest.TempPathFactory, folder_service: SkyServer, executor: Executor) -> Cube:
    """1,100 objects in two blocks, all stored; tests only read it."""
    path = registered_cube(str(tmp_path_factory.mktemp("filled") / "cube"), folder_service)
    fill(path, folder_service, executor)
    return open_cube(path)


@pytest.fixture
def cube_path(tmp_path: Path) -> str:
    """Path for a new cube."""
    return str(tmp_path / "cube")
