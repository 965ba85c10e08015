"""Test tiers and fixtures shared by several packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import simplejpeg
from filelock import FileLock
from hypothesis import settings

from flows.runtime import dask_client
from galstore.survey.skyserver import SkyServer
from schemas.recipes import DaskSection

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

LONGEST_FIRST = ("tests/slow/integration", "tests/flows", "tests/slow/crash", "tests/slow", "tests/modeling")
"""Groups of tests that take minutes start first, so that none runs alone at the end."""

EMULATOR_RECORD = "emulator.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long versions: 200 kills, 20,000 mutated responses")


def pytest_configure(config: pytest.Config) -> None:
    for name, n_examples in (("default", 25), ("long", 200)):
        settings.register_profile(name, deadline=None, max_examples=n_examples)
    settings.load_profile("long" if config.getoption("--long") else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tier, skip long tests, and give the tests of one folder to one process.

    Runs first: xdist reads the groups in the same hook.
    """
    for item in items:
        folder = item.path.parent.relative_to(ROOT)
        if folder.parts[:2] == ("tests", "slow"):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
            if not config.getoption("--long"):
                item.add_marker(pytest.mark.skip(reason="runs with --long"))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(folder)))
    rank = {group: number for number, group in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.get_closest_marker("xdist_group").args[0], len(rank)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the emulator that the processes of this session share."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if hasattr(session.config, "workerinput") or factory is None:
        return
    for record in factory.getbasetemp().rglob(EMULATOR_RECORD):
        with suppress(ProcessLookupError):
            os.kill(json.loads(record.read_text())["pid"], signal.SIGTERM)


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of one test session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Tests of two sizes run in the large one (`make test-long`)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cutouts and recorded responses; not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data with real cutouts and recorded responses is not beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def real_bodies(shared_data: Path) -> list[bytes]:
    """400 real SDSS cutouts as delivered: JPEGs of 128 x 128 px."""
    return [file.read_bytes() for file in sorted((shared_data / "sdss_demo" / "cutouts").glob("*.jpg"))]


def draw_blobs(n: int, *, seed: int = 0) -> np.ndarray:
    """Draw round blobs of three colours on a noisy sky, shape (n, 128, 128, 3), uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128] - 63.5
    radius = rng.uniform(4, 16, size=(n, 1, 1, 1))
    colour = rng.uniform(80, 220, size=(n, 1, 1, 3))
    light = colour * np.exp(-np.hypot(x, y)[None, :, :, None] / radius)
    return np.clip(light + rng.normal(8, 3, size=(n, 128, 128, 3)), 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=75)


@pytest.fixture(scope="session")
def cutout_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Survey as a folder: catalog.csv (objID, ra, dec, oh_p50) and 1,100 drawn JPEGs, more than one block."""
    folder = shared_folder(tmp_path_factory) / "survey"
    with FileLock(f"{folder}.lock"):
        if not (folder / "catalog.csv").exists():
            _write_survey(folder)
    return folder


def _write_survey(folder: Path) -> None:
    n = 1100
    ids = 1237648702973411443 + 7919 * np.arange(n, dtype=np.int64)
    (folder / "cutouts").mkdir(parents=True)
    for object_id, pixels in zip(ids, draw_blobs(n), strict=True):
        (folder / "cutouts" / f"{object_id}.jpg").write_bytes(encode(pixels))
    rng = np.random.default_rng(1)
    pd.DataFrame(
        {
            "objID": ids,
            "ra": np.linspace(120, 240, n).round(6),
            "dec": rng.uniform(-5, 60, n).round(6),
            "oh_p50": rng.normal(8.9, 0.2, n).round(4),
        }
    ).to_csv(folder / "catalog.csv", index=False)


@pytest.fixture(scope="session")
def folder_service(cutout_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SkyServer:
    """SkyServer emulator over `cutout_folder`, one process for the whole test session."""
    record = shared_folder(tmp_path_factory) / EMULATOR_RECORD
    with FileLock(f"{record}.lock"):
        if not record.exists():
            emulator = _start_emulator(
                "--catalog", str(cutout_folder / "catalog.csv"), "--cutouts", str(cutout_folder / "cutouts")
            )
            base_url = emulator.stdout.readline().strip()
            record.write_text(json.dumps({"pid": emulator.pid, "base_url": base_url}))
            # `pytest_sessionfinish` stops it; another process may still need it when this one ends
            emulator.stdout.close()
            emulator.returncode = 0
    return SkyServer(base_url=json.loads(record.read_text())["base_url"])


def _start_emulator(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "emulate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@contextmanager
def running_emulator(*arguments: str) -> Iterator[str]:
    """Run `galstore emulate ARGUMENTS` on a free port and yield its base URL."""
    with _start_emulator(*arguments) as emulator:
        try:
            yield emulator.stdout.readline().strip()
        finally:
            emulator.terminate()


@pytest.fixture(scope="session")
def dask_workers() -> Iterator[distributed.Client]:
    """Two Dask worker processes."""
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        yield client
