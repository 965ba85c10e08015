"""A made-up survey for benchmarks: JPEGs with a catalog, an emulator that serves them, and cubes of many objects."""

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
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import simplejpeg
import zarr
from zarr.core.buffer import default_buffer_prototype

from galstore.cube.commits import commit
from galstore.cube.layout import ensure_cube
from galstore.ingest.register import Delivery, register_page
from galstore.survey.row_checks import PreparedCatalog
from galstore.survey.skyserver import SkyServer
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import CutoutScale, ScaleRule, Status
from schemas.recipes import EmulatorSection, FaultSection
from schemas.rejections import REJECTED_TABLE_COLUMNS

FIRST_ID = 1237648702973411443
N_DRAWN = 400
"""Different galaxies of a made-up survey; the others repeat their pixels in bodies of their own."""

EMULATOR = """
import sys
from galstore.emulator.server import emulate
from schemas.recipes import EmulatorSection
emulate(EmulatorSection.model_validate_json(sys.argv[1]))
"""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def draw_bodies(n: int = N_DRAWN, *, seed: int = 0) -> list[bytes]:
    """JPEGs of round blobs in three colours on a sky as noisy as to give bodies of SDSS's length."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128] - 63.5
    bodies = []
    for _ in range(n):
        light = rng.uniform(80, 220, size=3) * np.exp(-np.hypot(x, y)[:, :, None] / rng.uniform(4, 16))
        counts = np.clip(light + rng.normal(8, 2.5, size=(128, 128, 3)), 0, 255).astype(np.uint8)
        bodies.append(simplejpeg.encode_jpeg(counts, quality=75))
    return bodies


def read_bodies(folder: Path) -> list[bytes]:
    """The JPEGs of a folder."""
    return [file.read_bytes() for file in sorted(folder.glob("*.jpg"))]


def as_its_own(body: bytes, number: int) -> bytes:
    """The same image in bytes that no other number has: a comment (COM segment) behind the start of the JPEG."""
    # two objects with the same bytes would be taken for a stuck cache and asked for again
    comment = f"{number:012d}".encode()
    return body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUpSurvey:
    """A folder as the emulator serves it, and its catalog (object_id, ra, dec, oh_p50)."""

    folder: Path
    objects: pd.DataFrame

    def bodies(self, rows: slice) -> list[bytes]:
        """Bytes of some objects' files."""
        return [(self.folder / "cutouts" / f"{one}.jpg").read_bytes() for one in self.objects["object_id"][rows]]


def make_survey(folder: Path, n_objects: int, bodies: list[bytes]) -> MadeUpSurvey:
    """Write a survey of so many objects, whose images come from some bodies again and again."""
    (folder / "cutouts").mkdir(parents=True)
    objects = made_up_objects(n_objects)
    for number, object_id in enumerate(objects["object_id"]):
        file = folder / "cutouts" / f"{object_id}.jpg"
        file.write_bytes(as_its_own(bodies[number % len(bodies)], number))
    objects.rename(columns={"object_id": "objID"}).to_csv(folder / "catalog.csv", index=False)
    return MadeUpSurvey(folder=folder, objects=objects)


def made_up_objects(n: int, *, first: int = 0, dec_from_deg: float = -5.0) -> pd.DataFrame:
    """Catalog rows with ids and places of their own."""
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
def emulator_over(survey: MadeUpSurvey) -> Iterator[tuple[SkyServer, subprocess.Popen[str]]]:
    """The survey on loopback, without faults, and the process that serves it."""
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


def log_of(service: SkyServer) -> dict[str, Any]:
    """What the emulator counted."""
    with urllib.request.urlopen(f"{service.base_url}/emulator/log", timeout=10) as answer:
        log: dict[str, Any] = json.load(answer)
    return log


SCALE = CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296)


def new_cube(path: str) -> str:
    """Create an empty cube."""
    ensure_cube(path, survey="made-up", scale=SCALE)
    return path


def prepared(objects: pd.DataFrame) -> PreparedCatalog:
    """A page of a catalog of which every row is known to be good."""
    rejected = pd.DataFrame(columns=list(REJECTED_TABLE_COLUMNS))
    return PreparedCatalog(rows=objects.reset_index(drop=True), rejected=rejected, ignored_columns=())


def grown_cube(path: str, n_objects: int, *, page_rows: int = 250_000) -> str:
    """A cube of so many objects that are all stored, with small chunks of one grey image in place of their pixels.

    Registering, writing and committing never look into other blocks' chunks, but manifests list them all.
    """
    new_cube(path)
    for first in range(0, n_objects, page_rows):
        # far from the ids and places of `make_survey`
        objects = made_up_objects(min(page_rows, n_objects - first), first=10**8 + first, dec_from_deg=40.0)
        register_page(path, Delivery(catalog="grown"), prepared(objects))

    def put_images(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        for name, value in (("status", Status.STORED), ("attempts", 1), ("http_status", 200), ("body_length", 1)):
            column: Any = root[f"state/{name}"]
            column[:] = np.full(n_objects, value, dtype=column.dtype)
        for name in (*(level.path for level in LEVEL.values()), "delivered/body"):
            array: Any = root[name]
            array[:BLOCK_ROWS] = np.ones((), dtype=array.dtype)
            asyncio.run(_repeat_first_chunk(session, array))

    commit(path, put_images, message="grown", metadata={"operation": "grow"})
    return path


async def _repeat_first_chunk(session: icechunk.Session, array: zarr.Array[Any]) -> None:
    dimensions = [0] * (array.ndim - 1)
    n_chunks = -(-array.shape[0] // array.chunks[0])

    def key(number: int) -> str:
        return f"{array.path}/{array.metadata.encode_chunk_key((number, *dimensions))}"

    chunk = await session.store.get(key(0), default_buffer_prototype())
    for first in range(BLOCK_ROWS // array.chunks[0], n_chunks, 64):
        await asyncio.gather(*(session.store.set(key(one), chunk) for one in range(first, min(first + 64, n_chunks))))
