from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galstore.cube.commits import open_repository
from galstore.cube.labels import label_tag
from galstore.cube.reader import open_cube
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.integrity.expiry import expire_snapshots, parse_duration
from galstore.integrity.findings import ProblemKind
from galstore.integrity.rebuild import rebuild_block
from galstore.survey.row_checks import prepare_catalog
from schemas.errors import ContractError, StoreBusyError, StoreNotFoundError
from tests.galstore.integrity.test_verify import build_cube, chunk_files, copy_cube, flip, kinds, verified

NOTHING = timedelta(0)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def whole_cube(tmp_path_factory, folder_service, executor, cutout_folder) -> Path:
    path = tmp_path_factory.mktemp("expiry") / "cube"
    return Path(build_cube(str(path), folder_service, executor, cutout_folder))


@pytest.fixture
def cube_copy(whole_cube: Path, tmp_path: Path) -> Path:
    """Return a copy whose history may expire."""
    return copy_cube(whole_cube, tmp_path / "copy")


def history(path: Path) -> list[str]:
    return [snapshot.id for snapshot in open_repository(str(path)).ancestry(branch="main")]


def file_sizes(path: str) -> dict[Path, int]:
    return {file: file.stat().st_size for file in Path(path).rglob("*") if file.is_file()}


def test_the_tip_and_superseded_labels_stay_and_the_bytes_are_really_freed(cube_copy: Path) -> None:
    path, ids = str(cube_copy), history(cube_copy)
    tip, labels_before = open_cube(path), {}
    superseded = open_repository(path).lookup_tag(label_tag("galspec", 1))
    for snapshot_id in (tip.snapshot_id, superseded):
        labels_before[snapshot_id] = open_cube(path, snapshot_id=snapshot_id).read_label("oh_p50")
    before = file_sizes(path)
    done = expire_snapshots(path, keep=NOTHING, grace=NOTHING)
    # the tip, the tagged snapshot and the first snapshot of the repository remain
    assert done.n_snapshots_expired == len(ids) - 3
    assert history(cube_copy) == [tip.snapshot_id, ids[-1]]
    # expiry rewrites the remaining snapshots, and Icechunk 2 its list of snapshots: only deleted files count
    deleted = before.keys() - file_sizes(path).keys()
    assert sum(before[file] for file in deleted) == done.bytes_freed
    assert done.bytes_freed > 100_000
    assert done.n_objects_deleted > done.n_snapshots_expired
    for snapshot_id, values in labels_before.items():
        assert np.array_equal(open_cube(path, snapshot_id=snapshot_id).read_label("oh_p50"), values, equal_nan=True)
    assert not np.array_equal(*labels_before.values(), equal_nan=True)
    verification = verified(cube_copy)
    assert (verification.problems, verification.n_garbage) == ((), 0)


def test_young_snapshots_stay(cube_copy: Path) -> None:
    ids = history(cube_copy)
    done = expire_snapshots(str(cube_copy), keep=DAY, grace=NOTHING)
    assert (done.n_snapshots_expired, done.n_objects_deleted) == (0, 0)
    assert history(cube_copy) == ids


def test_young_files_stay_since_a_run_may_be_writing_them(cube_copy: Path) -> None:
    n_files = verified(cube_copy).n_files
    (cube_copy / "chunks" / "ZZZZZZZZZZZZZZZZZZZG").write_bytes(b"of a run under way")
    done = expire_snapshots(str(cube_copy), keep=NOTHING)
    assert done.n_snapshots_expired > 0
    assert (done.n_objects_deleted, done.bytes_freed) == (0, 0)
    assert verified(cube_copy).n_files == n_files + 1
    assert verified(cube_copy).ok


def test_old_files_of_killed_writers_go(cube_copy: Path) -> None:
    draft, garbage = cube_copy / "chunks" / "ZZZZZZZZZZZZZZZZZZZG#1", cube_copy / "chunks" / "ZZZZZZZZZZZZZZZZZZZ0"
    two_days_ago = time.time() - 2 * DAY.total_seconds()
    for file in (draft, garbage):
        file.write_bytes(b"half")
        os.utime(file, (two_days_ago, two_days_ago))
    done = expire_snapshots(str(cube_copy), keep=timedelta(days=30))
    assert (done.n_snapshots_expired, done.n_objects_deleted, done.bytes_freed) == (0, 2, 8)
    assert not draft.exists()
    assert not garbage.exists()


def test_damaged_chunks_that_a_rebuild_replaced_go_with_their_snapshots(cube_copy: Path) -> None:
    rebuild_block(str(cube_copy), 0)  # chunks that the tag on the superseded labels does not hold
    (file,) = chunk_files(cube_copy)[0]["images/1/pixels"]
    flip(file, np.random.default_rng(0))
    rebuild_block(str(cube_copy), 0)
    assert kinds(verified(cube_copy)) == {ProblemKind.REPLACED}
    expire_snapshots(str(cube_copy), keep=NOTHING, grace=NOTHING)
    assert not file.exists()
    assert verified(cube_copy).problems == ()


def test_a_damaged_chunk_that_a_tag_holds_stays_known_as_replaced(cube_copy: Path) -> None:
    repository = open_repository(str(cube_copy))
    repository.create_tag("tip", snapshot_id=open_cube(str(cube_copy)).snapshot_id)
    (file,) = chunk_files(cube_copy)[0]["images/1/pixels"]
    flip(file, np.random.default_rng(0))
    rebuild_block(str(cube_copy), 0)
    expire_snapshots(str(cube_copy), keep=NOTHING, grace=NOTHING)
    assert file.exists()
    assert kinds(verified(cube_copy)) == {ProblemKind.REPLACED}
    assert verified(cube_copy).ok


def test_a_superseded_version_without_a_tag_gets_one_first(cube_copy: Path) -> None:
    path = str(cube_copy)
    before = open_cube(path)
    ids = before.read_catalog(["object_id"])["object_id"]
    corrected = pd.DataFrame({"object_id": ids[:3], "ra": 120.0, "dec": 0.0, "oh_p50": 7.5})
    register_page(path, CatalogUpdate(catalog="more", run_id="killed"), prepare_catalog(corrected, origin="more"))
    assert label_tag("galspec", 2) not in open_repository(path).list_tags()
    expire_snapshots(path, keep=NOTHING, grace=NOTHING)
    tagged = open_cube(path, snapshot_id=open_repository(path).lookup_tag(label_tag("galspec", 2)))
    assert np.array_equal(tagged.read_label("oh_p50"), before.read_label("oh_p50"), equal_nan=True)
    assert open_cube(path).read_label("oh_p50")[0] == 7.5
    assert verified(cube_copy).ok


def test_nothing_expires_while_a_superseded_version_has_no_tag(cube_copy: Path, monkeypatch) -> None:
    open_repository(str(cube_copy)).delete_tag(label_tag("galspec", 1))
    # simulates a run that changes the labels between the check of the tags and the lock
    monkeypatch.setattr("galstore.integrity.expiry.tag_label_versions", lambda _: None)
    ids = history(cube_copy)
    with pytest.raises(StoreBusyError, match="labels-galspec@1"):
        expire_snapshots(str(cube_copy), keep=NOTHING, grace=NOTHING)
    assert history(cube_copy) == ids


def test_a_missing_cube_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"/nothing\b"):
        expire_snapshots(str(tmp_path / "nothing"), keep=DAY)


@pytest.mark.parametrize("text", ["", "30", "d", "1.5d", "-1d", "30 days", "99999d"])
def test_durations_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ContractError, match=re.escape(repr(text))):
        parse_duration(text)
