"""Fetch: the cutouts of one block, from rows of the cube to settled answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from galstore.blocks import Block
from galstore.reader import Cube
from galstore.services.desk import SharedPacer, SharedWitness
from galstore.services.http import Collected, CutoutRequest, Delivery, Politeness, collect_cutouts
from galstore.services.skyserver import SkyServer
from schemas.cutouts import CutoutScale, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutSource:
    """Everything that a block task needs to ask for cutouts.

    `known_good` is a request that the service answered well before; it tells an object's failure from an outage.
    """

    service: SkyServer
    scale: CutoutScale
    politeness: Politeness
    known_good: CutoutRequest | None = None

    def with_known_good(self, cube: Cube, row: int) -> CutoutSource:
        """The same source, with the request of an object whose cutout is stored."""
        ra, dec, scale = (
            np.asarray(cube.array(name)[row]).item() for name in ("catalog/ra", "catalog/dec", "state/pixel_scale")
        )
        return replace(self, known_good=self.request(row, ra_deg=ra, dec_deg=dec, scale_arcsec=scale))

    def request(self, row: int, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> CutoutRequest:
        """What to ask for one object."""
        params = self.service.cutout_params(ra_deg=ra_deg, dec_deg=dec_deg, scale_arcsec=scale_arcsec)
        return CutoutRequest(row=row, url=self.service.cutout_url, params=params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Rows of one block whose cutouts a run asks for: pending ones, and quarantined ones that are tried again.

    `retried` are the reasons of quarantine that are tried again.
    """

    block: Block
    retried: frozenset[Reason] = frozenset()

    def open_rows(self, cube_state: npt.NDArray[np.uint8], reasons: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which rows may be settled, by the columns `status` and `reason` of some rows."""
        again = (cube_state == Status.QUARANTINED) & np.isin(reasons, [int(reason) for reason in self.retried])
        return np.asarray((cube_state == Status.PENDING) | again, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a block's open rows: one delivery and one pixel scale (arcsec/px) for each of `rows`.

    `down` says that the service failed before all of them were settled.
    """

    job: Job
    rows: npt.NDArray[np.int64]
    deliveries: tuple[Delivery, ...]
    scales_arcsec: npt.NDArray[np.float64]
    down: str = ""

    def without_pixels(self) -> Settled:
        """The same, small enough to travel: pixels follow from the bodies."""
        return replace(self, deliveries=tuple(replace(one, pixels=None) for one in self.deliveries))

    def at(self, kept: npt.NDArray[np.bool_]) -> Settled:
        """Some of the rows."""
        deliveries = tuple(one for one, keep in zip(self.deliveries, kept, strict=True) if keep)
        return replace(self, rows=self.rows[kept], deliveries=deliveries, scales_arcsec=self.scales_arcsec[kept])


def fetch_block(cube: Cube, job: Job, source: CutoutSource) -> Settled:
    """Ask for the open rows of one block, inside a Dask task.

    Rows that are not settled because the service went down are left out.
    """
    block = job.block

    def column(name: str) -> npt.NDArray[Any]:
        return np.asarray(cube.array(name)[block.rows])

    open_rows = np.flatnonzero(job.open_rows(column("state/status"), column("state/reason")))
    rows = open_rows + block.start
    sizes_arcsec = column("catalog/petroR90_r")[open_rows]
    scales_arcsec = np.array([source.scale.of(float(size)) for size in sizes_arcsec], dtype=np.float64)
    requests = [
        source.request(int(row), ra_deg=ra, dec_deg=dec, scale_arcsec=scale)
        for row, ra, dec, scale in zip(
            rows, column("catalog/ra")[open_rows], column("catalog/dec")[open_rows], scales_arcsec, strict=True
        )
    ]
    collected = asyncio.run(_collect(requests, source)) if requests else Collected(deliveries=())
    kept = np.isin(rows, [one.row for one in collected.deliveries])
    return Settled(
        job=job,
        rows=rows[kept],
        deliveries=collected.deliveries,
        scales_arcsec=scales_arcsec[kept],
        down=str(collected.down or ""),
    )


async def _collect(requests: list[CutoutRequest], source: CutoutSource) -> Collected:
    base_url = source.service.base_url
    pacer = SharedPacer(base_url, source.politeness.requests_per_second)
    witness = SharedWitness(base_url)
    return await collect_cutouts(requests, source.politeness, pacer, witness, known_good=source.known_good)
