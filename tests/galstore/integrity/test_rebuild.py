from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from galstore.cube.commits import open_repository
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Counts, Cube, open_cube
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.integrity.findings import ProblemKind, Verification
from galstore.integrity.rebuild import RebuildResult, damaged_blocks, rebuild_block
from schemas.cube import LEVEL, LEVELS
from schemas.errors import StoreError, StoreNotFoundError
from tests.galstore.conftest import source_of
from tests.galstore.integrity.test_verify import (
    add,
    build_cube,
    chunk_files,
    copy_cube,
    flip,
    kinds,
    plant,
    put,
    verified,
)


@pytest.fixture(scope="module")
def whole_cube(tmp_path_factory, folder_service, executor, cutout_folder) -> Path:
    path = tmp_path_factory.mktemp("rebuild") / "cube"
    return Path(build_cube(str(path), folder_service, executor, cutout_folder))


@pytest.fixture
def cube_copy(whole_cube: Path, tmp_path: Path) -> Path:
    """Return a copy to be damaged."""
    return copy_cube(whole_cube, tmp_path / "copy")


def images(path: Path) -> dict[str, Any]:
    cube = open_cube(str(path))
    return {
        name: np.asarray(cube.array(name)[:]) for name in (*(LEVEL[side].path for side in LEVELS), "delivered/body")
    }


def assert_same_images(path: Path, before: dict[str, Any]) -> None:
    for name, values in images(path).items():
        assert np.array_equal(values, before[name]), name


def rebuilt(path: Path) -> tuple[RebuildResult, Verification]:
    """Rebuild what `verify` names, which must be block 0, and verify again."""
    assert damaged_blocks(verified(path)) == (0,)
    return rebuild_block(str(path), 0, run_id="repair"), verified(path)


@pytest.mark.parametrize("side", LEVELS)
def test_a_flipped_byte_in_a_level_is_repaired_and_its_old_file_named(cube_copy: Path, side: int) -> None:
    before = images(cube_copy)
    file = chunk_files(cube_copy)[0][LEVEL[side].path][-1]
    flip(file, np.random.default_rng(side))
    done, verification = rebuilt(cube_copy)
    assert done == RebuildResult(block_index=0, n_rebuilt=290, n_pending=0)
    assert_same_images(cube_copy, before)
    assert verification.ok
    (left,) = verification.problems
    assert (left.kind, left.path) == (ProblemKind.REPLACED, f"chunks/{file.name}")
    assert re.search(r"(?=.*rebuil)(?=.*snapshots)(?=.*galstore gc)", left.text)
    assert re.search(r"\b1 (\w+ )?chunk files", verification.summary)


def test_every_level_at_once_and_the_short_last_block(filled_cube: Cube, tmp_path: Path) -> None:
    path = copy_cube(Path(filled_cube.path), tmp_path / "copy")
    before, rng = images(path), np.random.default_rng(1)
    for name, files in chunk_files(path)[0].items():
        if name.startswith("images/"):
            for file in files:
                flip(file, rng)
    assert damaged_blocks(verified(path)) == (0, 1)
    # the last block has 76 of its 1,024 rows: its only chunks reach beyond the end of the arrays
    assert rebuild_block(str(path), 1) == RebuildResult(block_index=1, n_rebuilt=76, n_pending=0)
    assert damaged_blocks(verified(path)) == (0,)
    assert rebuild_block(str(path), 0) == RebuildResult(block_index=0, n_rebuilt=1024, n_pending=0)
    assert_same_images(path, before)
    assert verified(path).ok


def test_wrong_but_readable_pixels_are_repaired(cube_copy: Path) -> None:
    before = images(cube_copy)
    plant(cube_copy, add("images/128/pixels", (7, 3, 3, 1)))
    plant(cube_copy, add("images/2/pixels", (280, 0, 0, 0)))
    plant(cube_copy, put("delivered/body", (7, 16_383), 1))
    done, verification = rebuilt(cube_copy)
    assert (done.n_rebuilt, done.n_pending) == (290, 0)
    assert_same_images(cube_copy, before)
    assert verification.problems == ()


def test_objects_whose_bytes_are_unreadable_are_fetched_again(cube_copy: Path, folder_service, executor) -> None:
    before = images(cube_copy)
    flip(chunk_files(cube_copy)[0]["delivered/body"][1], np.random.default_rng(4))
    _, *lost = verified(cube_copy).problems  # the file, then the chunk
    rows = slice(lost[0].row, min(lost[0].row + 128, 290))
    n_lost = rows.stop - rows.start
    done, verification = rebuilt(cube_copy)
    assert done == RebuildResult(block_index=0, n_rebuilt=290 - n_lost, n_pending=n_lost)
    assert verification.is_sound
    cube = open_cube(str(cube_copy))
    assert cube.counts() == Counts(registered=300, stored=290 - n_lost, quarantined=10, pending=n_lost)
    for name in (*before, "state/body_sha256", "state/body_length"):
        assert not np.asarray(cube.array(name)[rows]).any()
    assert np.isnan(read_predictions(cube, "m", np.arange(300)[rows])["mean"]).all()
    assert (cube.read_state("attempts")[rows] == 1).all()
    fill_cube(str(cube_copy), plan_block_tasks(cube), source_of(folder_service), executor)
    assert_same_images(cube_copy, before)
    assert verified(cube_copy).ok


@pytest.mark.parametrize("change", [add("state/body_sha256", (7, 0)), put("state/body_length", 7, 0)])
def test_an_object_whose_bytes_are_not_what_its_state_says_is_fetched_again(cube_copy: Path, change) -> None:
    plant(cube_copy, change)
    done, verification = rebuilt(cube_copy)
    assert (done.n_rebuilt, done.n_pending) == (289, 1)
    assert verification.problems == ()
    assert open_cube(str(cube_copy)).read_state("status")[7] == 0


def test_values_of_unstored_objects_are_cleared(cube_copy: Path) -> None:
    plant(cube_copy, put("state/status", slice(3, 5), 0))
    assert kinds(verified(cube_copy)) == {ProblemKind.ORPHAN}
    done, verification = rebuilt(cube_copy)
    assert (done.n_rebuilt, done.n_pending) == (288, 0)
    assert verification.problems == ()


def test_the_commit_names_the_run_and_the_block(cube_copy: Path) -> None:
    base = open_cube(str(cube_copy)).snapshot_id
    rebuild_block(str(cube_copy), 0, run_id="repair")
    last = next(iter(open_repository(str(cube_copy)).ancestry(branch="main")))
    assert re.search(r"rebuild.*\b0\b", last.message)
    assert last.metadata.items() >= {"operation": "rebuild", "run": "repair", "blocks": [0], "base": base}.items()


@pytest.mark.parametrize("name", ["status", "body_length", "body_sha256"])
def test_a_block_whose_state_is_unreadable_is_refused(cube_copy: Path, name: str) -> None:
    flip(chunk_files(cube_copy)[0][f"state/{name}"][0], np.random.default_rng(5))
    before = open_cube(str(cube_copy)).snapshot_id
    with pytest.raises(StoreError, match=rf"(?=.*state/{name}\b)(?=.*\b0-299\b)"):
        rebuild_block(str(cube_copy), 0)
    assert open_cube(str(cube_copy)).snapshot_id == before


def test_a_block_with_an_unknown_status_is_refused(cube_copy: Path) -> None:
    plant(cube_copy, put("state/status", 7, 9))
    with pytest.raises(StoreError, match=r"(?=.*state/status)(?=.*block 0\b)(?=.*code)"):
        rebuild_block(str(cube_copy), 0)


@pytest.mark.parametrize("block_index", [-1, 1])
def test_an_unknown_block_is_refused(whole_cube: Path, block_index: int) -> None:
    with pytest.raises(StoreError, match=rf"(?=.*\b1 blocks)(?=.*block {block_index}\b)"):
        rebuild_block(str(whole_cube), block_index)


def test_a_missing_cube_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"/nothing\b"):
        rebuild_block(str(tmp_path / "nothing"), 0)


def test_damage_beyond_repair_names_no_block(cube_copy: Path) -> None:
    current, superseded = chunk_files(cube_copy)
    for file in (current["catalog/ra"][0], current["predictions/m/mean"][0], superseded[0]):
        flip(file, np.random.default_rng(6))
    assert damaged_blocks(verified(cube_copy)) == ()
