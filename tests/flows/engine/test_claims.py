from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from flows.engine.claims import N_FILES, BlockClaims, LatestCube, still_unscored
from galstore.cube.predictions import write_predictions
from galstore.cube.reader import open_cube
from schemas.predictions import PREDICTION_COLUMNS
from tests.conftest import ROOT
from tests.galstore.conftest import registered_cube

HOLDER = """
import sys, time
from flows.engine.claims import BlockClaims
claims = BlockClaims(sys.argv[1], "m")
print(claims.claim(3), flush=True)
time.sleep(600)
"""


def test_a_block_has_one_claim_at_a_time(tmp_path) -> None:
    first, second = BlockClaims(str(tmp_path / "cube"), "m"), BlockClaims(str(tmp_path / "cube"), "m")
    with first, second:
        assert first.claim(1)
        assert not second.claim(1)
        assert second.claim(2)
        first.release([1, 7])
        assert second.claim(1)
    with BlockClaims(str(tmp_path / "cube"), "m") as third:
        assert third.claim(1)
        assert third.claim(2)


def test_other_predictions_and_other_cubes_are_claimed_apart(tmp_path) -> None:
    with (
        BlockClaims(str(tmp_path / "cube"), "m") as first,
        BlockClaims(str(tmp_path / "cube"), "n") as other,
        BlockClaims(str(tmp_path / "cube2"), "m") as elsewhere,
    ):
        assert first.claim(0)
        assert other.claim(0)
        assert elsewhere.claim(0)


def test_lock_files_do_not_grow_with_the_catalog(tmp_path) -> None:
    with BlockClaims(str(tmp_path / "cube"), "m") as claims:
        for block in range(3 * N_FILES):
            assert claims.claim(block)
            claims.release([block])
    assert len(list((tmp_path / "cube.claims" / "m").iterdir())) == N_FILES


def test_an_object_store_has_no_claims(tmp_path) -> None:
    first, other = BlockClaims("s3://bucket/cube", "m"), BlockClaims("s3://bucket/cube", "m")
    assert first.claim(1)
    assert other.claim(1)


def test_runs_on_an_object_store_start_at_different_blocks(tmp_path) -> None:
    blocks = [2, 3, 5, 7, 11]
    remote = BlockClaims("s3://bucket/cube", "m")
    orders = [remote.order_blocks(blocks) for _ in range(200)]
    assert {order[0] for order in orders} == set(blocks)
    assert all(sorted(order) == blocks for order in orders)
    assert remote.order_blocks([]) == []
    assert BlockClaims(str(tmp_path / "cube"), "m").order_blocks(blocks) == blocks


def test_a_killed_process_holds_nothing(tmp_path) -> None:
    path = str(tmp_path / "cube")
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "True\n"
        with BlockClaims(path, "m") as claims:
            assert not claims.claim(3)
            waiting = threading.Thread(target=claims.wait_for, args=([3],))
            waiting.start()
            holder.kill()
            waiting.join(120)
            assert not waiting.is_alive()
            assert claims.claim(3)


def test_the_latest_cube_is_the_last_commit_and_opened_once(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    latest = LatestCube(cube_path)
    before = latest.open()
    assert latest.open() is before
    values = {column.name: np.array([8.5]) for column in PREDICTION_COLUMNS}
    write_predictions(cube_path, "m", np.array([2]), values, attributes={})
    assert latest.open().snapshot_id == open_cube(cube_path).snapshot_id != before.snapshot_id


def test_unscored_rows_are_stored_and_have_no_prediction(filled_cube, folder_service, cube_path) -> None:
    rows = np.array([3, 5, 1050])
    assert still_unscored(filled_cube, "m", rows).tolist() == rows.tolist()
    registered_cube(cube_path, folder_service, limit=5)
    assert still_unscored(open_cube(cube_path), "m", np.arange(5)).size == 0
