from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest
import zarr

from galstore.cube.commits import commit, open_repository
from galstore.cube.labels import label_tag, tag_label_versions
from galstore.cube.layout import ensure_cube
from galstore.cube.predictions import write_predictions
from galstore.cube.reader import open_cube
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.ingest.fill import fill_cube, plan_block_tasks
from galstore.integrity.checks.files import FileUsage, SnapshotHistory
from galstore.integrity.findings import Problem, ProblemKind, Verification
from galstore.integrity.verify import verify_cube
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from schemas.cube import BLOCK_ROWS, LEVEL, LEVELS
from tests.galstore.conftest import SCALE, registered_cube, source_of

N_OBJECTS = 300


def build_cube(path: str, service: SkyServer, workers: distributed.Client, cutout_folder: Path) -> str:
    """Build 300 objects: 290 stored in two runs, 10 quarantined; two label versions; predictions written twice."""
    registered_cube(path, service, limit=200)
    fill_cube(path, plan_block_tasks(open_cube(path)), source_of(service), workers)
    catalog = pd.read_csv(cutout_folder / "catalog.csv").rename(columns={"objID": "object_id"})
    nowhere = pd.DataFrame({"object_id": range(10), "ra": 300.0, "dec": np.linspace(-89, -80, 10), "oh_p50": 8.9})
    for part in (catalog[200:290], nowhere):
        register_page(path, CatalogUpdate(catalog="more"), prepare_catalog(part, origin="more"))
    fill_cube(path, plan_block_tasks(open_cube(path)), source_of(service), workers)
    corrected = catalog[:5].assign(oh_p50=8.0)
    register_page(path, CatalogUpdate(catalog="more", run_id="second"), prepare_catalog(corrected, origin="more"))
    tag_label_versions(path)
    rows = np.arange(290)
    for value in (8.5, 8.6):
        write_predictions(path, "m", rows, {"mean": rows * 0 + value, "view_spread": rows * 0 + 0.1}, attributes={})
    return path


@pytest.fixture(scope="module")
def whole_cube(tmp_path_factory, folder_service, executor, cutout_folder) -> Path:
    path = tmp_path_factory.mktemp("verify") / "cube"
    return Path(build_cube(str(path), folder_service, executor, cutout_folder))


@pytest.fixture
def cube_copy(whole_cube: Path, tmp_path: Path) -> Path:
    """Return a copy to be damaged."""
    return copy_cube(whole_cube, tmp_path / "copy")


def copy_cube(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def verified(path: Path) -> Verification:
    return verify_cube(open_cube(str(path)), n_threads=2)


def plant(path: Path, change: Callable[[Any], None]) -> None:
    """Commit a change that galstore would never make."""
    commit(str(path), lambda session: change(zarr.open_group(session.store, mode="a")), message="plant", metadata={})


def flip(file: Path, rng: np.random.Generator) -> bytes:
    """Change one byte of a file and return the previous content."""
    previous = file.read_bytes()
    damaged = bytearray(previous)
    damaged[rng.integers(len(previous))] ^= int(rng.integers(1, 256))
    file.write_bytes(damaged)
    return previous


def chunk_files(path: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the chunk files of the tip, by array, and the ones that only older snapshots use."""
    cube = open_cube(str(path))
    files = sorted((path / "chunks").iterdir())
    used = FileUsage(SnapshotHistory(open_repository(str(path)), cube.snapshot_id), path, [file.name for file in files])
    current: dict[str, list[Path]] = {}
    for file in files:
        if file.name in used.current:
            current.setdefault(used.array_of[file.name], []).append(file)
    return current, [file for file in files if file.name in used.array_of.keys() - used.current]


def kinds(verification: Verification) -> set[ProblemKind]:
    return {problem.kind for problem in verification.problems}


def only(verification: Verification) -> Problem:
    (problem,) = verification.problems
    return problem


def test_a_whole_cube_is_sound_and_everything_was_read(whole_cube: Path) -> None:
    seen: list[int] = []
    verification = verify_cube(open_cube(str(whole_cube)), on_progress=seen.append)
    assert verification.problems == ()
    assert verification.ok
    assert verification.is_sound
    assert (verification.n_objects, verification.n_blocks, sum(seen)) == (N_OBJECTS, 1, N_OBJECTS)
    current, superseded = chunk_files(whole_cube)
    assert verification.n_chunks == sum(map(len, current.values()))
    assert verification.n_files == verification.n_chunks + len(superseded)
    assert verification.n_garbage == 0
    numbers = rf"(?=.*\b300 objects)(?=.*\b1 block)(?=.*\b{verification.n_chunks} chunks)"
    assert re.search(numbers, verification.summary)
    assert verification.to_dict()["ok"] is True


def test_a_cube_of_several_blocks_is_sound(filled_cube) -> None:
    verification = verify_cube(filled_cube)
    assert (verification.problems, verification.n_objects, verification.n_blocks) == ((), 1100, 2)


def test_an_older_snapshot_is_sound_too(whole_cube: Path) -> None:
    for snapshot in open_repository(str(whole_cube)).ancestry(branch="main"):
        if snapshot.parent_id is not None:
            assert verify_cube(open_cube(str(whole_cube), snapshot_id=snapshot.id)).problems == ()


def test_one_flipped_byte_anywhere_is_found(cube_copy: Path, long_run: bool) -> None:
    rng = np.random.default_rng(20)
    files = sorted((cube_copy / "chunks").iterdir())
    n_flips, n_found, n_of_tip = 100 if long_run else 30, 0, 0
    for _ in range(n_flips):
        file = files[rng.integers(len(files))]
        previous = flip(file, rng)
        verification = verified(cube_copy)
        n_found += not verification.ok and f"chunks/{file.name}" in {problem.path for problem in verification.problems}
        n_of_tip += not verification.is_sound
        file.write_bytes(previous)
    print(f"{n_found} of {n_flips} flipped bytes found, {n_of_tip} of them in the last snapshot")
    assert n_found == n_flips
    assert 0 < n_of_tip < n_flips
    assert verified(cube_copy).ok


@pytest.mark.parametrize(
    "array",
    [
        *(LEVEL[side].path for side in LEVELS),
        "delivered/body",
        "state/status",
        "state/reason",
        "state/body_sha256",
        "catalog/object_id",
        "catalog/ra",
        "labels/galspec/oh_p50",
        "predictions/m/mean",
    ],
)
def test_a_flipped_byte_is_named_by_its_array_its_rows_and_its_file(cube_copy: Path, array: str) -> None:
    file = chunk_files(cube_copy)[0][array][0]
    flip(file, np.random.default_rng(3))
    verification = verified(cube_copy)
    found = {problem.kind: problem for problem in verification.problems}
    assert kinds(verification) == {ProblemKind.CHUNK, ProblemKind.FILE}
    assert found[ProblemKind.FILE].path == f"chunks/{file.name}"
    assert array in found[ProblemKind.FILE].text
    assert found[ProblemKind.CHUNK].path == array
    assert "Stored and computed checksum do not match" in found[ProblemKind.CHUNK].text
    in_block = array.startswith(("images/", "delivered/"))
    assert found[ProblemKind.CHUNK].block == (0 if in_block else None)
    assert not verification.is_sound
    assert "damaged" in verification.summary


def test_a_damaged_chunk_hides_no_other_one(cube_copy: Path) -> None:
    for file in chunk_files(cube_copy)[0]["images/128/pixels"][:3]:
        file.write_bytes(b"\0" * 100)
    n_named = sum(problem.kind is ProblemKind.CHUNK for problem in verified(cube_copy).problems)
    assert n_named == 3


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (lambda file: file.unlink(), ProblemKind.CHUNK, "not found"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), ProblemKind.CHUNK, "checksum"),
        (lambda file: file.write_bytes(b""), ProblemKind.CHUNK, "range"),
        (lambda file: file.write_bytes(file.read_bytes() + b"\0"), ProblemKind.FILE, "CRC-32C"),
    ],
    ids=["missing", "truncated", "empty", "longer"],
)
@pytest.mark.parametrize("array", ["images/32/pixels", "state/attempts", "labels/galspec/oh_p50"])
def test_a_chunk_file_of_another_length_is_found(cube_copy: Path, array, damage, kind, text) -> None:
    damage(chunk_files(cube_copy)[0][array][0])
    verification = verified(cube_copy)
    assert not verification.is_sound
    assert [problem for problem in verification.problems if problem.kind is kind and text in problem.text]


def test_two_chunk_files_in_place_of_each_other_are_found(cube_copy: Path) -> None:
    current, _ = chunk_files(cube_copy)
    pixels, means = current["images/1/pixels"][0], current["predictions/m/mean"][0]
    pixel_bytes, mean_bytes = pixels.read_bytes(), means.read_bytes()
    pixels.write_bytes(mean_bytes)
    means.write_bytes(pixel_bytes)
    assert {problem.path for problem in verified(cube_copy).problems} >= {"images/1/pixels", "predictions/m/mean"}


def test_damage_that_only_older_snapshots_have_is_found_and_leaves_the_tip_sound(cube_copy: Path) -> None:
    _, superseded = chunk_files(cube_copy)
    flip(superseded[0], np.random.default_rng(0))
    verification = verified(cube_copy)
    problem = only(verification)
    assert (problem.kind, problem.path) == (ProblemKind.HISTORY, f"chunks/{superseded[0].name}")
    assert re.search(r"(?=.*snapshot)(?=.*galstore gc)", problem.text)
    assert verification.is_sound
    assert not verification.ok


def test_a_missing_chunk_file_of_an_older_snapshot_is_found(cube_copy: Path) -> None:
    chunk_files(cube_copy)[1][0].unlink()
    problem = only(verified(cube_copy))
    assert problem.kind is ProblemKind.HISTORY
    # the number of files in the superseded manifest depends on the order of the listing
    assert re.search(r"\b1 of \d+ chunk files", problem.text)


@pytest.mark.parametrize("damage", ["delete", "zero"])
def test_a_damaged_manifest_is_found(cube_copy: Path, damage: str) -> None:
    for file in sorted((cube_copy / "manifests").iterdir())[::10]:
        previous = file.read_bytes()
        if damage == "delete":
            file.unlink()
        else:
            file.write_bytes(previous[:60] + bytes(len(previous) - 60))
        assert f"manifests/{file.name}" in {problem.path for problem in verified(cube_copy).problems}
        file.write_bytes(previous)


def test_a_missing_snapshot_is_found(cube_copy: Path) -> None:
    cube = open_cube(str(cube_copy))
    ancestors = [snapshot.id for snapshot in open_repository(str(cube_copy)).ancestry(branch="main")]
    (cube_copy / "snapshots" / ancestors[2]).unlink()
    verification = verify_cube(cube)
    assert ProblemKind.HISTORY in kinds(verification)
    assert verification.is_sound


def test_files_of_a_killed_writer_are_counted_and_no_problem(cube_copy: Path) -> None:
    (cube_copy / "chunks" / "ZZZZZZZZZZZZZZZZZZZG").write_bytes(b"half a chunk")
    (cube_copy / "chunks" / "ZZZZZZZZZZZZZZZZZZZ0#1").write_bytes(b"")
    verification = verified(cube_copy)
    assert verification.ok
    assert (verification.n_garbage, verification.garbage_bytes, verification.n_garbage_damaged) == (2, 12, 2)
    assert re.search(r"(?=.*\b2 files)(?=.*\b12 bytes)(?=.*galstore gc)", verification.summary)


def put(path: str, where: Any, value: Any) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        array = root[path]
        if path == "predictions/m/mean":
            array.oindex[where] = value
        else:
            array[where] = value

    return change


def add(path: str, where: Any) -> Callable[[Any], None]:
    """Return a change that adds 1 to a value."""

    def change(root: Any) -> None:
        root[path][where] = np.asarray(root[path][where]) + np.asarray(1, dtype=root[path].dtype)

    return change


def undecodable(root: Any) -> None:
    body = b"no such layer"
    root["delivered/body"][7] = np.frombuffer(body.ljust(16_384, b"\0"), dtype=np.uint8)
    root["state/body_length"][7] = len(body)
    root["state/body_sha256"][7] = np.frombuffer(hashlib.sha256(body).digest(), dtype=np.uint8)


def in_place_of(row: int, other: int) -> Callable[[Any], None]:
    def change(root: Any) -> None:
        root["catalog/object_id"][row] = np.asarray(root["catalog/object_id"][other])

    return change


def rejected_with_unknown_code(root: Any) -> None:
    for name in root["rejected"].array_keys():
        array = root[f"rejected/{name}"]
        array.resize((1, *array.shape[1:]))
    root["rejected/reason"][0] = 99


@pytest.mark.parametrize(
    ("change", "kind", "path", "facts", "row"),
    [
        (add(LEVEL[128].path, (7, 3, 3, 1)), "pixels", LEVEL[128].path, "bytes", 7),
        *(
            (add(LEVEL[side].path, (7, 0, 0, 1)), "pyramid", LEVEL[side].path, "average", 7)
            for side in LEVELS[1:]
        ),
        (add("state/body_sha256", (7, 31)), "body", "delivered/body", "SHA-256", 7),
        (add("delivered/body", (7, 100)), "body", "delivered/body", "SHA-256", 7),
        (put("delivered/body", (7, 16_383), 1), "body", "delivered/body", r"(?=.*state/body_length)(?=.*zero)", 7),
        (put("state/body_length", 7, 0), "body", "delivered/body", r"(?=.*state/body_length)(?=.*\b16384\b)", 7),
        (put("state/body_length", 7, 20_000), "body", "delivered/body", r"(?=.*state/body_length)(?=.*\b16384\b)", 7),
        (undecodable, "body", "delivered/body", r"(?=.*\b128 px)(?=.*error_message)", 7),
        (put("state/reason", 7, 3), "state", "state/reason", "reason", 7),
        (put("state/reason", 295, 0), "state", "state/reason", "reason", 295),
        (put("state/reason", 295, 77), "state", "state/reason", r"(?=.*\breason\b)(?=.*\bcode\b)", 295),
        (put("state/listing", 7, 5), "state", "state/listing", r"(?=.*\blisting\b)(?=.*\bcode\b)", 7),
        (put("state/catalog", 7, 2), "state", "state/catalog", r"(?=.*\bcatalog\b)(?=.*\bcode\b)", 7),
        (put("state/status", 7, 9), "state", "state/status", r"(?=.*\bstatus\b)(?=.*\bcode\b)", 7),
        (put("state/status", 7, 9), "count", "state/status", r"(?=.*\b299\b)(?=.*\b300\b)", None),
        (put("catalog/object_id", 7, -1), "identity", "catalog/object_id", "negative", 7),
        (in_place_of(7, 3), "identity", "catalog/object_id", "object.id", 7),
        (put("catalog/object_id", 7, 5), "index", "index/id", "catalog", 7),
        (put("catalog/dec", 7, 91.0), "index", "index/sky", "catalog", 7),
        (put("catalog/ra", 7, np.nan), "index", "index/sky", "catalog", 7),
        (put("index/id/row", slice(0, 300), np.r_[1, 1:300]), "index", "index/id", r"\b2 objects", 0),
        (
            lambda root: root["index/id"].attrs.update({"segments": []}),
            "index", "index/id", r"(?=.*segments)(?=.*\b300\b)", None,
        ),
        (lambda root: root.__delitem__("index/sky/ra"), "array", "index/sky/ra", "array", None),
        *(
            (put("state/status", 7, 0), "orphan", path, "stored", 7)
            for path in (*(LEVEL[side].path for side in LEVELS), "delivered/body", "state/body_sha256",
                         "state/body_length", "predictions/m/mean")
        ),
        (put("predictions/m/mean", np.array([295]), 8.5), "orphan", "predictions/m/mean", "prediction", 295),
        (lambda root: root["state/http_status"].resize((299,)), "array", "state/http_status", r"\b299\b", None),
        (lambda root: root[LEVEL[4].path].resize((299, 4, 4, 3)), "array", LEVEL[4].path, r"\b299\b", None),
        (lambda root: root.__delitem__("state/reason"), "array", "state/reason", "array", None),
        (lambda root: root.__delitem__("state/status"), "array", "state/status", "array", None),
        (lambda root: root.__delitem__("delivered/body"), "array", "delivered/body", "array", None),
        (lambda root: root["rejected/row"].resize((1,)), "array", "rejected", r"rejected/row\b", None),
        (rejected_with_unknown_code, "state", "rejected/reason", r"(?=.*\breason\b)(?=.*\bcode\b)", 0),
    ],
)  # fmt: skip
def test_inconsistencies_are_found(cube_copy: Path, change, kind, path, facts, row) -> None:
    plant(cube_copy, change)
    verification = verified(cube_copy)
    named = [problem for problem in verification.problems if (problem.kind, problem.path) == (kind, path)]
    found = [problem for problem in named if re.search(facts, problem.text)]
    assert len(found) == 1, verification.problems
    assert found[0].row == row
    if row is not None and not path.startswith("rejected"):
        ids = open_cube(str(cube_copy)).read_catalog(["object_id"])["object_id"]
        assert (found[0].block, found[0].object_id) == (row // BLOCK_ROWS, ids[row])
        where = rf"(?=.*{re.escape(path)}\b)(?=.*\bblock 0\b)(?=.*\brow {row}\b)(?=.*\bobject {ids[row]}\b)"
        assert re.search(where, found[0].where)
    assert not verification.is_sound


def test_objects_that_share_a_fault_are_one_problem(cube_copy: Path) -> None:
    plant(cube_copy, put("state/reason", slice(10, 30), 3))
    assert re.search(r"(?=.*\breason\b)(?=.*\b20 objects)", only(verified(cube_copy)).text)


def test_damaged_state_is_named_and_its_rows_are_not_checked(cube_copy: Path) -> None:
    current, _ = chunk_files(cube_copy)
    for name in ("status", "reason", "body_sha256"):
        current[f"state/{name}"][0].unlink()
    current["catalog/object_id"][0].write_bytes(b"")
    verification = verified(cube_copy)
    unreadable = {problem.path for problem in verification.problems if problem.kind is ProblemKind.CHUNK}
    assert unreadable == {"state/status", "state/reason", "state/body_sha256", "catalog/object_id"}
    assert kinds(verification) == {ProblemKind.CHUNK, ProblemKind.FILE}


def test_a_superseded_version_of_the_labels_must_stay_readable(cube_copy: Path) -> None:
    repository = open_repository(str(cube_copy))
    tag = label_tag("galspec", 1)
    superseded = repository.lookup_tag(tag)
    repository.delete_tag(tag)
    # a run was killed before it added the tag; the next run adds it, and until then the history has the snapshot
    assert verified(cube_copy).ok
    repository.expire_snapshots(datetime.now(UTC))
    problem = only(verified(cube_copy))
    assert (problem.kind, problem.path) == (ProblemKind.LABELS, "labels/galspec")
    assert re.search(r"(?=.*\bversion 1\b)(?=.*\blabels-galspec@1\b)", problem.text)
    assert superseded not in {snapshot.id for snapshot in repository.ancestry(branch="main")}


def test_a_tag_on_another_snapshot_is_found(cube_copy: Path) -> None:
    plant(
        cube_copy,
        lambda root: root["labels/galspec"].attrs.update(
            {"versions": [{"version": 1}, {"version": 2, "supersedes": "1CECHNKREP0F1RSTCMT0"}]}
        ),
    )
    assert "1CECHNKREP0F1RSTCMT0" in only(verified(cube_copy)).text


def test_an_empty_cube_is_sound(cube_path: str) -> None:
    ensure_cube(cube_path, survey="simulated", scale=SCALE)
    verification = verify_cube(open_cube(cube_path))
    assert (verification.problems, verification.n_objects, verification.n_blocks) == ((), 0, 0)
