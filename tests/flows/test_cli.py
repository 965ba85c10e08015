"""The command line as a user meets it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pandas as pd
import pytest

from flows.cli import main
from galstore.cube import ensure_cube
from galstore.register import append_objects
from tests.conftest import ROOT, running_emulator
from tests.galstore.conftest import SCALE


class Command(Protocol):
    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def galstore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, which has its imports behind it; output and exit code come back."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["galstore", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), told.out, told.err)

    return run


def assert_one_clear_line(result: subprocess.CompletedProcess[str], *told: str) -> None:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in told:
        assert part in line


def test_help_names_every_command_with_an_example(galstore: Command) -> None:
    commands = ("run", "ingest", "train", "score", "report", "info", "emulate")
    overview = galstore("--help").stdout
    for command in commands:
        assert command in overview
        assert "Example: galstore" in galstore(command, "--help").stdout


def test_a_misspelt_key_is_one_clear_line(galstore: Command) -> None:
    assert_one_clear_line(galstore("run", "demo", "--set", "train.epoch=3"), "unknown key 'train.epoch'", "'epochs'")


def test_a_process_of_its_own_ends_with_the_same_line_and_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "info", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert_one_clear_line(ended, "there is no cube at")


def test_an_unknown_recipe_is_one_clear_line(galstore: Command) -> None:
    assert_one_clear_line(galstore("train", "dmeo"), "recipe 'dmeo' is unknown")


@pytest.mark.parametrize("command", [["info"], ["train", "demo", "--set"], ["report", "demo", "--set"]])
def test_a_missing_store_is_one_clear_line(galstore: Command, command: list[str], tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    last = place if command == ["info"] else f"store.path='{place}'"
    assert_one_clear_line(galstore(*command, last), f"there is no cube at {place}", "run `galstore ingest RECIPE`")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("objID,g,r\n1,17,16\n", "has no column ra and no column dec"),
        ("objID,ra,dec\n1.2376487029734E+18,1,2\n", "decimal number beyond 2^53, so its last digits are lost"),
        ("objID,ra,dec\n", "has no rows"),
        ("", "is empty: it needs a header line"),
    ],
    ids=["no ra and dec", "damaged ids", "no rows", "empty file"],
)
def test_a_bad_new_catalog_is_one_clear_line(
    galstore: Command, content: str, told: str, tmp_path: Path, small_store: str
) -> None:
    catalog = tmp_path / "tonight.csv"
    catalog.write_text(content)
    result = galstore("score", "sdss", "--set", f"store.path='{small_store}'", "--catalog", str(catalog))
    assert_one_clear_line(result, "tonight.csv", told)


@pytest.mark.slow
def test_an_unreachable_survey_is_one_clear_line(galstore: Command, tmp_path: Path, prefect_server: None) -> None:
    places = [f"store.path='{tmp_path / 'cube'}'", f"output.folder='{tmp_path}'", "survey.base_url=http://127.0.0.1:1"]
    result = galstore("ingest", "sdss", *(a for place in places for a in ("--set", place)))
    assert_one_clear_line(result, "the survey at http://127.0.0.1:1 does not answer", "check survey.base_url")


def test_info_prints_counts_for_people_and_for_programs(galstore: Command, small_store: str) -> None:
    plain = json.loads(galstore("info", small_store, "--json").stdout)
    assert {key: plain[key] for key in ("registered", "stored", "quarantined", "pending")} == {
        "registered": 2, "stored": 0, "quarantined": 0, "pending": 2,
    }  # fmt: skip
    assert "2 pending" in galstore("info", small_store).stdout


def test_the_emulator_tells_its_address_first(cutout_folder: Path) -> None:
    arguments = ["--catalog", str(cutout_folder / "catalog.csv"), "--cutouts", str(cutout_folder / "cutouts")]
    with running_emulator(*arguments) as base_url:
        assert base_url.startswith("http://127.0.0.1:")


@pytest.fixture
def small_store(tmp_path: Path) -> str:
    """A cube with two registered objects."""
    path = str(tmp_path / "cube")
    ensure_cube(path, survey="two", scale=SCALE)
    rows = pd.DataFrame({"object_id": [1, 2], "ra": [0.0, 1.0], "dec": [0.0, 1.0]})
    append_objects(path, rows, catalog="two", provenance={})
    return path
