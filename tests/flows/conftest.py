"""Fixtures of the flows' tests: the command line, one Prefect server and one small simulated run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from flows.cli import main
from flows.runtime import load_recipe
from schemas.recipes import Recipe
from tests.galstore.conftest import cube_path, executor, filled_cube

__all__ = ["cube_path", "executor", "filled_cube"]

SMALL = [
    "emulator.n_galaxies=400",
    "emulator.n_new=60",
    "network.level=16",
    "train.epochs=3",
    "train.batch_size=32",
]
"""Settings of a small demo. Its network is trained too little to be accurate."""


def recipe_in(folder: Path, *more: str) -> Recipe:
    """Return the demo's recipe, small, with its outputs in a folder."""
    return load_recipe("demo", overrides_in(folder, *more))


def overrides_in(folder: Path, *more: str) -> list[str]:
    places = {
        "store.path": folder / "cube",
        "output.folder": folder,
        "score.catalog": folder / "new_catalog.csv",
        "emulator.new_catalog": folder / "new_catalog.csv",
    }
    return [*(f"{key}='{path}'" for key, path in places.items()), *SMALL, *more]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary Prefect server with a new database."""
    os.environ |= {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def small_run(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Folder and result of the demo over 400 simulated galaxies and 60 new ones."""
    from flows.run import run

    folder = tmp_path_factory.mktemp("run")
    return folder, run(recipe_in(folder))


class Command(Protocol):
    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def galstore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, whose imports are done; return its output and exit code."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["galstore", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), printed.out, printed.err)

    return run


def assert_one_clear_line(result: subprocess.CompletedProcess[str], *facts: str) -> None:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for fact in facts:
        assert fact in line
