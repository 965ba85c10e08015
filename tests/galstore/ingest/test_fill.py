from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from flows.runtime import dask_client
from galstore.cube.blocks import Block
from galstore.cube.reader import Counts, Cube, open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.ingest.fetch import BlockTask
from galstore.ingest.fill import count_open, fill_cube, plan_block_tasks
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from schemas.cube import LEVELS
from schemas.cutouts import Reason, Status
from schemas.errors import ServiceDownError
from schemas.recipes import DaskSection
from tests.conftest import running_emulator
from tests.galstore.conftest import fill, registered_cube, source_of
from tests.galstore.cube.test_pyramid import PRECISION_COUNTS, area_average


def test_every_delivered_body_is_stored_with_its_pixels(filled_cube: Cube, cutout_folder) -> None:
    ids = filled_cube.read_catalog(["object_id"])["object_id"]
    pixels = filled_cube.read_pixels(128, np.arange(filled_cube.n_objects))
    digests = filled_cube.read_state("body_sha256")
    for row in range(0, filled_cube.n_objects, 37):
        body = (cutout_folder / "cutouts" / f"{ids[row]}.jpg").read_bytes()
        assert filled_cube.read_body(row) == body
        assert digests[row].tobytes() == hashlib.sha256(body).digest()
        assert np.array_equal(pixels[row], simplejpeg.decode_jpeg(body))


@pytest.mark.parametrize("side", LEVELS)
def test_every_level_is_the_area_average_of_the_delivered_image(filled_cube: Cube, side: int) -> None:
    rows = np.arange(1000, 1100)  # across the border of the two blocks
    finest = filled_cube.read_pixels(128, rows)
    error = np.abs(filled_cube.read_pixels(side, rows) - area_average(finest, side))
    assert error.max() <= PRECISION_COUNTS[side] + 1e-4  # float32


def test_counts_add_up_and_nothing_is_pending(filled_cube: Cube) -> None:
    assert filled_cube.counts() == Counts(registered=1100, stored=1100, quarantined=0, pending=0)
    assert plan_block_tasks(filled_cube) == ()
    assert (filled_cube.read_state("pixel_scale") == np.float32(0.296)).all()
    assert (filled_cube.read_state("http_status") == 200).all()


def test_real_cutouts_come_back_identical(shared_data, executor, cube_path, real_bodies) -> None:
    folder = shared_data / "sdss_demo"
    with running_emulator("--catalog", str(folder / "catalog.csv"), "--cutouts", str(folder / "cutouts")) as base_url:
        service = SkyServer(base_url=base_url)
        registered_cube(cube_path, service)
        fill(cube_path, service, executor)
    cube = open_cube(cube_path)
    ids = cube.read_catalog(["object_id"])["object_id"]
    bodies = [(folder / "cutouts" / f"{object_id}.jpg").read_bytes() for object_id in ids]
    finest = np.stack([simplejpeg.decode_jpeg(body) for body in bodies])
    rows = np.arange(400)
    assert np.array_equal(cube.read_pixels(128, rows), finest)
    for side in LEVELS[1:]:
        error = np.abs(cube.read_pixels(side, rows) - area_average(finest, side))
        assert error.max() <= PRECISION_COUNTS[side] + 1e-4


def test_a_fill_of_one_block_leaves_the_rest_pending(folder_service, executor, cube_path) -> None:
    registered_cube(cube_path, folder_service)
    first, second = plan_block_tasks(open_cube(cube_path))
    filled = fill_cube(cube_path, [second], source_of(folder_service), executor)
    assert (filled.n_stored, filled.n_requests) == (76, 76)
    cube = open_cube(cube_path)
    assert cube.counts() == Counts(registered=1100, stored=76, quarantined=0, pending=1024)
    assert plan_block_tasks(cube) == (first,)
    assert count_open(cube, [first, second]) == 1024


def test_a_block_that_grew_keeps_its_stored_rows(folder_service, executor, cube_path, cutout_folder) -> None:
    registered_cube(cube_path, folder_service, limit=100)
    source = source_of(folder_service)
    fill_cube(cube_path, [BlockTask(block=Block(0, 100))], source, executor)
    before = open_cube(cube_path).read_pixels(128, np.arange(100))
    catalog = pd.read_csv(cutout_folder / "catalog.csv").iloc[100:150].rename(columns={"objID": "object_id"})
    register_page(cube_path, CatalogUpdate(catalog="more"), prepare_catalog(catalog, origin="more"))
    requests = fill_cube(cube_path, plan_block_tasks(open_cube(cube_path)), source, executor).n_requests
    cube = open_cube(cube_path)
    assert requests == 50
    assert cube.counts() == Counts(registered=150, stored=150, quarantined=0, pending=0)
    assert np.array_equal(cube.read_pixels(128, np.arange(100)), before)
    for row in (0, 99, 100, 149):
        assert np.array_equal(cube.read_pixels(128, np.array([row]))[0], simplejpeg.decode_jpeg(cube.read_body(row)))


def test_objects_outside_the_footprint_are_quarantined_and_counted(folder_service, executor, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=20)
    nowhere = pd.DataFrame({"object_id": [1, 2, 3], "ra": [300.0, 301.0, 302.0], "dec": [-80.0, -81.0, -82.0]})
    register_page(cube_path, CatalogUpdate(catalog="nowhere"), prepare_catalog(nowhere, origin="nowhere"))
    filled = fill(cube_path, folder_service, executor)
    assert filled.quarantined == {"out_of_footprint": 3}
    cube = open_cube(cube_path)
    assert cube.counts() == Counts(registered=23, stored=20, quarantined=3, pending=0)
    assert (cube.read_state("reason")[20:] == Reason.OUT_OF_FOOTPRINT).all()
    assert (cube.read_state("status")[20:] == Status.QUARANTINED).all()
    assert (cube.read_state("http_status")[20:] == 404).all()
    assert cube.read_body(21) == b""


def test_a_dead_survey_quarantines_no_object(folder_service, executor, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    before = open_cube(cube_path).snapshot_id
    dead = source_of(SkyServer(base_url="http://127.0.0.1:1"))
    with pytest.raises(ServiceDownError, match=r"(?=.*\b5 objects)(?=.*CONNECTION_LOST)(?=.*quarantined)"):
        fill_cube(cube_path, plan_block_tasks(open_cube(cube_path)), dead, executor)
    assert open_cube(cube_path).snapshot_id == before
    assert open_cube(cube_path).counts().pending == 5


@pytest.mark.slow
def test_a_killed_dask_worker_costs_a_repeat_and_no_object(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service)
    blocks = plan_block_tasks(open_cube(cube_path))
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        (victim, *_) = client.run(os.getpid).values()
        killer = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
        killer.start()
        filled = fill_cube(cube_path, blocks, source_of(folder_service), DaskExecutor(client))
        killer.join()
    assert filled.n_stored == 1100
    assert open_cube(cube_path).counts() == Counts(registered=1100, stored=1100, quarantined=0, pending=0)


def test_every_block_is_reported_before_its_commit(folder_service, executor, cube_path, caplog) -> None:
    registered_cube(cube_path, folder_service)
    steps: list[tuple[str, int]] = []
    with caplog.at_level(logging.INFO, logger="galstore.ingest.fill"):
        fill(
            cube_path,
            folder_service,
            executor,
            on_block=lambda result: steps.append(("block", result.n_settled)),
            on_commit=lambda result: steps.append(("commit", result.n_settled)),
        )
    assert sorted(steps[:2]) == [("block", 76), ("block", 1024)]
    assert steps[2:] == [("commit", 1100)]
    assert "1100 objects stored, 0 quarantined" in caplog.text
