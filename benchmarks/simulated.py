"""Simulated survey for benchmarks: JPEGs with a catalog, an emulator that serves them, and cubes of many objects."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import simplejpeg
import zarr
from zarr.core.buffer import default_buffer_prototype

from galstore.cube.arrays import AnyArray, require_array
from galstore.cube.commits import commit
from galstore.cube.layout import ensure_cube
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.survey.row_checks import PreparedCatalog
from galstore.survey.skyserver import SkyServer
from schemas.catalog import REJECTED_TABLE_COLUMNS
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import CutoutScale, ScaleRule, Status
from schemas.recipes import EmulatorSection, FaultSection

FIRST_ID = 1237648702973411443
N_DRAWN = 400
"""Number of different images; further objects repeat their pixels, each with a different comment in the file."""

EMULATOR = """
import sys
from galstore.emulator.server import emulate
from schemas.recipes import EmulatorSection
emulate(EmulatorSection.model_validate_json(sys.argv[1]))
"""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def draw_bodies(n: int = N_DRAWN, *, seed: int = 0) -> list[bytes]:
    """Draw JPEGs of round blobs in three colours; the noise makes the files as long as those of SDSS."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128] - 63.5
    bodies = []
    for _ in range(n):
        light = rng.uniform(80, 220, size=3) * np.exp(-np.hypot(x, y)[:, :, None] / rng.uniform(4, 16))
        counts = np.clip(light + rng.normal(8, 2.5, size=(128, 128, 3)), 0, 255).astype(np.uint8)
        bodies.append(simplejpeg.encode_jpeg(counts, quality=75))
    return bodies


def read_bodies(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]


def with_comment(body: bytes, number: int) -> bytes:
    """Make a JPEG unique by a comment (COM segment) with its number."""
    # two objects with the same bytes would be taken for a stuck cache and requested again
    comment = f"{number:012d}".encode()
    return body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSurvey:
    """Folder that the emulator serves, and its catalog (object_id, ra, dec, oh_p50)."""

    folder: Path
    objects: pd.DataFrame

    def bodies(self, rows: slice) -> list[bytes]:
        ids = self.objects["object_id"][rows]
        return [(self.folder / "cutouts" / f"{object_id}.jpg").read_bytes() for object_id in ids]


def make_survey(folder: Path, n_objects: int, bodies: list[bytes]) -> SimulatedSurvey:
    """Write a survey whose objects repeat the given images."""
    (folder / "cutouts").mkdir(parents=True)
    objects = simulated_objects(n_objects)
    for number, object_id in enumerate(objects["object_id"]):
        file = folder / "cutouts" / f"{object_id}.jpg"
        file.write_bytes(with_comment(bodies[number % len(bodies)], number))
    objects.rename(columns={"object_id": "objID"}).to_csv(folder / "catalog.csv", index=False)
    return SimulatedSurvey(folder=folder, objects=objects)


def simulated_objects(n: int, *, first: int = 0, dec_from_deg: float = -5.0) -> pd.DataFrame:
    """Return catalog rows with distinct ids and positions."""
    rng = np.random.default_rng(first)
    return pd.DataFrame(
        {
            "object_id": FIRST_ID + 7919 * np.arange(first, first + n, dtype=np.int64),
            "ra": np.linspace(100, 260, n).round(6),
            "dec": rng.uniform(dec_from_deg, dec_from_deg + 20, n).round(6),
            "oh_p50": rng.normal(8.9, 0.2, n).round(4),
        }
    )


@contextmanager
def emulator_over(survey: SimulatedSurvey) -> Iterator[tuple[SkyServer, subprocess.Popen[str]]]:
    """Serve the survey on loopback without faults; yield a client and the server process."""
    section = EmulatorSection(
        catalog=survey.folder / "catalog.csv", cutouts=survey.folder / "cutouts", faults=FaultSection()
    )
    command = [sys.executable, "-c", EMULATOR, section.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            yield SkyServer(base_url=address), process
        finally:
            process.terminate()


def busiest_second(service: SkyServer) -> int:
    """Return the largest number of requests that the emulator received in one second."""
    with urllib.request.urlopen(f"{service.base_url}/emulator/log", timeout=10) as response:
        return int(json.load(response)["busiest_second"])


SCALE = CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296)


def new_cube(path: str) -> str:
    ensure_cube(path, survey="simulated", scale=SCALE)
    return path


def prepared(objects: pd.DataFrame) -> PreparedCatalog:
    """Return a catalog page without rejected rows."""
    rejected = pd.DataFrame(columns=list(REJECTED_TABLE_COLUMNS))
    return PreparedCatalog(rows=objects.reset_index(drop=True), rejected=rejected, ignored_columns=())


def grown_cube(path: str, n_objects: int, *, page_rows: int = 250_000) -> str:
    """Create a cube of stored objects whose pixels are all copies of one small chunk.

    Registering, writing and committing never read the chunks of other blocks, but manifests list them all.
    """
    new_cube(path)
    for first in range(0, n_objects, page_rows):
        # ids and positions differ from those of `make_survey`
        objects = simulated_objects(min(page_rows, n_objects - first), first=10**8 + first, dec_from_deg=40.0)
        register_page(path, CatalogUpdate(catalog="grown"), prepared(objects))

    def put_images(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        for name, value in (("status", Status.STORED), ("attempts", 1), ("http_status", 200), ("body_length", 1)):
            column = require_array(root, f"state/{name}")
            column[:] = np.full(n_objects, value, dtype=column.dtype)
        for name in (*(level.path for level in LEVEL.values()), "delivered/body"):
            array = require_array(root, name)
            array[:BLOCK_ROWS] = np.ones((), dtype=array.dtype)
            asyncio.run(_repeat_first_chunk(session, array))

    commit(path, put_images, message="grown", metadata={"operation": "grow"})
    return path


async def _repeat_first_chunk(session: icechunk.Session, array: AnyArray) -> None:
    dimensions = [0] * (array.ndim - 1)
    n_chunks = -(-array.shape[0] // array.chunks[0])

    def key(number: int) -> str:
        return f"{array.path}/{array.metadata.encode_chunk_key((number, *dimensions))}"

    chunk = await session.store.get(key(0), default_buffer_prototype())
    for first in range(BLOCK_ROWS // array.chunks[0], n_chunks, 64):
        await asyncio.gather(
            *(session.store.set(key(number), chunk) for number in range(first, min(first + 64, n_chunks)))
        )
