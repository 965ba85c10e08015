"""Output and exit codes of the command line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import pytest

from galstore.cube.blocks import Block
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.ingest.fetch import BlockTask, FetchedBlock
from galstore.ingest.register import register_file
from galstore.ingest.write import commit_blocks, write_block
from galstore.survey.responses import CutoutResponse
from schemas.cutouts import Reason
from tests.conftest import ROOT, draw_blobs, encode, running_emulator
from tests.facts import facts_near
from tests.flows.conftest import Command, assert_one_clear_line
from tests.galstore.conftest import SCALE, add_objects


def test_help_names_every_command_with_an_example(galstore: Command) -> None:
    commands = (
        "run", "ingest", "train", "score", "report", "emulate", "info", "quarantine", "verify", "rebuild", "gc",
        "lookup", "cone", "similar", "history", "lineage", "export", "features list", "features show",
        "features compute", "training-set build", "training-set show", "evaluate", "figures", "models list",
        "models show", "models promote", "models export", "sweep", "cross-validate",
    )  # fmt: skip
    overview = galstore("--help").stdout
    for command in commands:
        first, *_ = command.split()
        assert first in overview
        assert has_example(galstore(*command.split(), "--help").stdout, command)


def has_example(printed: str, command: str) -> bool:
    """Return whether help shows a command with arguments, apart from its line of usage."""
    return any(f"galstore {command} " in line and "Usage" not in line for line in printed.splitlines())


def test_a_misspelt_key_is_one_clear_line(galstore: Command) -> None:
    assert_one_clear_line(galstore("run", "demo", "--set", "train.epoch=3"), "'train.epoch'", "'epochs'")


def test_a_new_process_ends_with_the_same_line_and_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "info", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert_one_clear_line(ended, str(tmp_path), "cube")


def test_an_unknown_recipe_is_one_clear_line(galstore: Command) -> None:
    assert_one_clear_line(galstore("train", "dmeo"), "'dmeo'", "recipe")


@pytest.mark.parametrize("command", [["info"], ["train", "demo", "--set"], ["report", "demo", "--set"]])
def test_a_missing_store_is_one_clear_line(galstore: Command, command: list[str], tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    last = place if command == ["info"] else f"store.path='{place}'"
    assert_one_clear_line(galstore(*command, last), place, "`galstore ingest RECIPE`")


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("objID,g,r\n1,17,16\n", (" ra", " dec")),
        ("objID,ra,dec\n1.2376487029734E+18,1,2\n", ("2^53",)),
        ("objID,ra,dec\n", ("row",)),
        ("", ("header",)),
    ],
    ids=["no ra and dec", "damaged ids", "no rows", "empty file"],
)
def test_a_bad_new_catalog_is_one_clear_line(
    galstore: Command, content: str, facts: tuple[str, ...], tmp_path: Path, small_store: str
) -> None:
    catalog = tmp_path / "tonight.csv"
    catalog.write_text(content)
    result = galstore("score", "sdss", "--set", f"store.path='{small_store}'", "--catalog", str(catalog))
    assert_one_clear_line(result, "tonight.csv", *facts)


def test_a_catalog_path_may_contain_an_apostrophe(galstore: Command, tmp_path: Path, small_store: str) -> None:
    catalog = tmp_path / "o'neill.csv"
    catalog.write_text("objID,ra,dec\n")
    result = galstore("score", "sdss", "--set", f"store.path='{small_store}'", "--catalog", str(catalog))
    assert_one_clear_line(result, "o'neill.csv", "row")


@pytest.mark.slow
def test_an_unreachable_survey_is_one_clear_line(galstore: Command, tmp_path: Path, prefect_server: None) -> None:
    places = [f"store.path='{tmp_path / 'cube'}'", f"output.folder='{tmp_path}'", "survey.base_url=http://127.0.0.1:1"]
    result = galstore("ingest", "sdss", *(a for place in places for a in ("--set", place)))
    assert_one_clear_line(result, "http://127.0.0.1:1", "survey.base_url")


def test_info_prints_counts_for_people_and_for_programs(galstore: Command, small_store: str) -> None:
    plain = json.loads(galstore("info", small_store, "--json").stdout)
    assert {key: plain[key] for key in ("registered", "stored", "quarantined", "pending")} == {
        "registered": 2, "stored": 0, "quarantined": 0, "pending": 2,
    }  # fmt: skip
    assert facts_near(galstore("info", small_store).stdout, "2", "pending", within=30)


def test_quarantine_lists_and_sums_objects_and_rejected_rows(galstore: Command, tmp_path: Path) -> None:
    path = store_with_one_quarantined(tmp_path)
    plain = json.loads(galstore("quarantine", path, "--json").stdout)
    assert (plain["n_quarantined"], plain["tally"], plain["n_rejected"]) == (1, {"truncated": 1}, 1)
    assert plain["quarantined"][0]["object_id"] == 1237648702973411443
    printed = galstore("quarantine", path, "--csv", str(tmp_path / "q.csv")).stdout
    assert facts_near(printed, "1", "quarantined", within=30)
    assert facts_near(printed, "1", "rejected", within=30)
    for part in ("truncated", "1237648702973411443", "out_of_range"):
        assert part in printed
    assert pd.read_csv(tmp_path / "q.csv")["object_id"].tolist() == [1237648702973411443]
    assert pd.read_csv(tmp_path / "q-rejected.csv")["value"].tolist() == [400]
    assert facts_near(galstore("quarantine", path, "--reason", "flat").stdout, "0", "quarantined", within=30)
    assert_one_clear_line(galstore("quarantine", path, "--reason", "tired"), "'tired'")


def test_an_unknown_reason_to_retry_is_refused_before_anything_starts(galstore: Command) -> None:
    assert_one_clear_line(galstore("ingest", "demo", "--retry-quarantined=tired"), "'tired'")


def test_the_option_to_retry_may_stand_without_a_reason(galstore: Command) -> None:
    # every spelling reaches the check of the recipe, which does not exist
    for words in (["--retry-quarantined"], ["--retry-quarantined=truncated", "--retry-quarantined"]):
        assert_one_clear_line(galstore("ingest", "dmeo", *words), "'dmeo'")


def test_verify_finds_a_flipped_byte_and_rebuild_repairs_it(galstore: Command, tmp_path: Path) -> None:
    path = store_with_one_stored(tmp_path)
    sound = galstore("verify", path)
    assert sound.returncode == 0
    assert path in sound.stdout
    assert "damaged" not in sound.stdout
    assert galstore("rebuild", path, "--damaged").returncode == 0
    flip_a_byte(path, "images/128/pixels")
    found = galstore("verify", path)
    assert found.returncode == 1
    assert "damaged" in found.stdout
    assert "images/128/pixels" in found.stdout
    plain = json.loads(galstore("verify", path, "--json").stdout)
    assert not plain["ok"]
    assert any(problem["path"] == "images/128/pixels" for problem in plain["problems"])
    assert_rebuilt(galstore("rebuild", path, "--damaged"))
    assert galstore("verify", path).returncode == 0
    assert_rebuilt(galstore("rebuild", path, "--block", "0"))


def assert_rebuilt(printed: subprocess.CompletedProcess[str]) -> None:
    """Check the printed line: one object of block 0 was rebuilt, 0 are pending."""
    assert printed.returncode == 0
    (line,) = printed.stdout.splitlines()
    assert facts_near(line, "block 0", "1 object")
    assert re.findall(r"\b\d+\b", line.replace("block 0", "")) == ["1", "0"]


def test_rebuild_writes_the_indexes_again(galstore: Command, small_store: str) -> None:
    printed = galstore("rebuild", small_store, "--index")
    assert printed.returncode == 0
    assert facts_near(printed.stdout, "2 objects", "index")


def test_log_lines_go_to_stderr_and_results_to_stdout(galstore: Command, tmp_path: Path) -> None:
    printed = galstore("rebuild", store_with_one_stored(tmp_path), "--index", "--damaged")
    assert facts_near(printed.stdout, "2 objects", "index")
    assert "no block is damaged" in printed.stderr
    assert "no block is damaged" not in printed.stdout


def test_rebuild_asks_for_a_block(galstore: Command, small_store: str) -> None:
    assert_one_clear_line(galstore("rebuild", small_store), "--block N")
    assert_one_clear_line(galstore("rebuild", small_store, "--block", "7"), "1 block", "block 7")


def test_gc_frees_old_snapshots_and_keeps_young_files(galstore: Command, tmp_path: Path) -> None:
    path = store_with_one_stored(tmp_path)
    assert facts_near(galstore("gc", path, "--keep", "0d").stdout, "0 files")
    printed = galstore("gc", path, "--keep", "0d", "--grace", "0d").stdout
    assert re.search(r"\b[1-9][\d,]* files", printed)
    assert galstore("verify", path).returncode == 0
    assert_one_clear_line(galstore("gc", path, "--keep", "a month"), "'a month'")


def test_the_emulator_prints_its_address_first(cutout_folder: Path) -> None:
    arguments = ["--catalog", str(cutout_folder / "catalog.csv"), "--cutouts", str(cutout_folder / "cutouts")]
    with running_emulator(*arguments) as base_url:
        assert base_url.startswith("http://127.0.0.1:")


@pytest.fixture
def small_store(tmp_path: Path) -> str:
    """Cube with two registered objects."""
    path = str(tmp_path / "cube")
    ensure_cube(path, survey="two", scale=SCALE)
    rows = pd.DataFrame({"object_id": [1, 2], "ra": [0.0, 1.0], "dec": [0.0, 1.0]})
    add_objects(path, rows, catalog="two")
    return path


def store_with_one_quarantined(folder: Path) -> str:
    """Create a cube with one quarantined object, one pending one and one rejected row."""
    return store_with(folder, CutoutResponse(row=0, reason=Reason.TRUNCATED, http_status=200, attempts=5))


def store_with_one_stored(folder: Path) -> str:
    """Create a cube with one stored object, one pending one and one rejected row."""
    body = encode(draw_blobs(1)[0])
    digest = hashlib.sha256(body).digest()
    return store_with(
        folder, CutoutResponse(row=0, reason=Reason.NONE, http_status=200, attempts=1, body=body, digest=digest)
    )


def store_with(folder: Path, response: CutoutResponse) -> str:
    path = str(folder / "cube")
    ensure_cube(path, survey="three", scale=SCALE)
    catalog = folder / "three.csv"
    catalog.write_text("objID,ra,dec\n1237648702973411443,1,2\n5,3,4\n6,400,4\n")
    register_file(path, catalog)
    fetched = FetchedBlock(
        task=BlockTask(block=Block(0, 2)), rows=np.array([0]), responses=(response,), scales_arcsec=np.array([0.296])
    )
    commit_blocks(path, [write_block(path, fetched)])
    return path


def flip_a_byte(path: str, array: str) -> None:
    """Change one byte of the chunk file that holds an array's first rows."""
    wanted = open_cube(path).array(array)
    for file in sorted((Path(path) / "chunks").iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[:5] + bytes([whole[5] ^ 1]) + whole[6:])
        try:
            wanted[:]
        except (ValueError, RuntimeError, icechunk.IcechunkError):
            return
        file.write_bytes(whole)
    raise AssertionError(f"no chunk file of {array}")
