from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from flows.engine.claims import N_FILES, Claims, Tip, still_unscored
from galstore.cube.predictions import write_predictions
from galstore.cube.reader import open_cube
from schemas.predictions import PREDICTION_COLUMNS
from tests.conftest import ROOT
from tests.galstore.conftest import registered_cube

HOLDER = """
import sys, time
from flows.engine.claims import Claims
claims = Claims(sys.argv[1], "m")
print(claims.take(3), flush=True)
time.sleep(600)
"""


def test_a_block_is_claimed_by_one_at_a_time(tmp_path) -> None:
    first, second = Claims(str(tmp_path / "cube"), "m"), Claims(str(tmp_path / "cube"), "m")
    with first, second:
        assert first.take(1)
        assert not second.take(1)
        assert second.take(2)
        first.release([1, 7])
        assert second.take(1)
    with Claims(str(tmp_path / "cube"), "m") as third:
        assert third.take(1)
        assert third.take(2)


def test_other_predictions_and_other_cubes_are_claimed_apart(tmp_path) -> None:
    with (
        Claims(str(tmp_path / "cube"), "m") as one,
        Claims(str(tmp_path / "cube"), "n") as other,
        Claims(str(tmp_path / "cube2"), "m") as elsewhere,
    ):
        assert one.take(0)
        assert other.take(0)
        assert elsewhere.take(0)


def test_lock_files_do_not_grow_with_the_catalog(tmp_path) -> None:
    with Claims(str(tmp_path / "cube"), "m") as claims:
        for block in range(3 * N_FILES):
            assert claims.take(block)
            claims.release([block])
    assert len(list((tmp_path / "cube.claims" / "m").iterdir())) == N_FILES


def test_an_object_store_has_no_claims(tmp_path) -> None:
    one, other = Claims("s3://bucket/cube", "m"), Claims("s3://bucket/cube", "m")
    assert one.take(1)
    assert other.take(1)


def test_runs_on_an_object_store_begin_at_places_of_their_own(tmp_path) -> None:
    blocks = [2, 3, 5, 7, 11]
    remote = Claims("s3://bucket/cube", "m")
    orders = [remote.in_order(blocks) for _ in range(200)]
    assert {one[0] for one in orders} == set(blocks)
    assert all(sorted(one) == blocks for one in orders)
    assert remote.in_order([]) == []
    assert Claims(str(tmp_path / "cube"), "m").in_order(blocks) == blocks


def test_a_killed_process_holds_nothing(tmp_path) -> None:
    path = str(tmp_path / "cube")
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "True\n"
        with Claims(path, "m") as claims:
            assert not claims.take(3)
            waiting = threading.Thread(target=claims.wait_for, args=([3],))
            waiting.start()
            holder.kill()
            waiting.join(120)
            assert not waiting.is_alive()
            assert claims.take(3)


def test_the_tip_is_the_last_commit_and_opened_once(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    tip = Tip(cube_path)
    before = tip.open()
    assert tip.open() is before
    values = {column.name: np.array([8.5]) for column in PREDICTION_COLUMNS}
    write_predictions(cube_path, "m", np.array([2]), values, attributes={})
    assert tip.open().snapshot_id == open_cube(cube_path).snapshot_id != before.snapshot_id


def test_what_is_unscored_is_stored_and_has_no_prediction(filled_cube, folder_service, cube_path) -> None:
    rows = np.array([3, 5, 1050])
    assert still_unscored(filled_cube, "m", rows).tolist() == rows.tolist()
    registered_cube(cube_path, folder_service, limit=5)
    assert still_unscored(open_cube(cube_path), "m", np.arange(5)).size == 0
