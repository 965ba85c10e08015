"""Fixtures that several packages' tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from flows.runtime import dask_client
from galstore.survey.skyserver import SkyServer
from schemas.recipes import DaskSection

LONGEST_FIRST = (
    "tests/slow/integration", "tests/flows", "tests/slow/crash", "tests", "tests/modeling", "tests/galstore", "tests/flows/score",
    "operations",
)  # fmt: skip
"""Groups of tests that take minutes: begun last, one of them would run alone at the end."""

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long versions: 200 kills, 20,000 mutated answers")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, and keep those of one folder together, and with them what they set up.

    First of all: where several processes share the tests, xdist looks at the groups at this moment too.
    """
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="runs with --long"))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path.parent.relative_to(ROOT))))
    rank = {group: number for number, group in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.get_closest_marker("xdist_group").args[0], len(rank)))


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether tests that come in two sizes run in the large one (`make test-long`)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cutouts and recorded answers; not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data with real cutouts and recorded answers is not beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def real_bodies(shared_data: Path) -> list[bytes]:
    """400 real SDSS cutouts as delivered: JPEGs of 128 x 128 px."""
    return [file.read_bytes() for file in sorted((shared_data / "sdss_demo" / "cutouts").glob("*.jpg"))]


def draw_blobs(n: int, *, seed: int = 0) -> np.ndarray:
    """Round blobs of three colours on a noisy sky, (n, 128, 128, 3) uint8: enough of a galaxy for the data plane."""
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
    """A survey as a folder: catalog.csv (objID, ra, dec, oh_p50) and 1,100 made-up JPEGs, more than one block."""
    folder = tmp_path_factory.mktemp("survey")
    n = 1100
    ids = 1237648702973411443 + 7919 * np.arange(n, dtype=np.int64)
    (folder / "cutouts").mkdir()
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
    return folder


@pytest.fixture(scope="session")
def folder_service(cutout_folder: Path) -> Iterator[SkyServer]:
    """A SkyServer emulator of its own process over `cutout_folder`."""
    arguments = ["--catalog", str(cutout_folder / "catalog.csv"), "--cutouts", str(cutout_folder / "cutouts")]
    with running_emulator(*arguments) as base_url:
        yield SkyServer(base_url=base_url)


@contextmanager
def running_emulator(*arguments: str) -> Iterator[str]:
    """`galstore emulate ARGUMENTS` on a free port; its base URL."""
    command = [sys.executable, "-m", "flows.cli", "emulate", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as emulator:
        try:
            yield emulator.stdout.readline().strip()
        finally:
            emulator.terminate()


@pytest.fixture(scope="session")
def dask_workers() -> Iterator[distributed.Client]:
    """Two Dask worker processes."""
    with dask_client(DaskSection(workers=2), n_tasks=2) as client:
        yield client
