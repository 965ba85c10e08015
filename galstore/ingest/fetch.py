"""Fetch: the cutouts of one block, from rows of the cube to settled answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from galstore.cube.blocks import Block
from galstore.cube.reader import Cube
from galstore.event_loop import run
from galstore.ingest.refused_responses import without_surplus
from galstore.survey.collect import Collected, collect_cutouts, examine_cutouts
from galstore.survey.cutout_service import CutoutService
from galstore.survey.dask_plugin import SharedPacer, SharedWitness
from galstore.survey.repeated_bodies import Claim
from galstore.survey.responses import CutoutRequest, Delivery
from galstore.survey.retry import Politeness
from schemas.cutouts import CutoutScale, Reason, Status

MOST_OTHERS = 8
"""Stored objects of a block that are asked for between those that are examined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutSource:
    """Everything that a block task needs to ask for cutouts.

    `known_good` is a request that the service answered well before; it tells an object's failure from an outage.
    """

    service: CutoutService
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

    `retried` are the reasons of quarantine that are tried again. Where there are `doubted` rows (with the requests that
    this run has made for them), the job is to examine those, and nothing else.
    """

    block: Block
    retried: frozenset[Reason] = frozenset()
    doubted: tuple[tuple[int, int], ...] = ()

    def open_rows(self, cube_state: npt.NDArray[np.uint8], reasons: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which rows may be settled, by the columns `status` and `reason` of some rows."""
        again = (cube_state == Status.QUARANTINED) & np.isin(reasons, [int(reason) for reason in self.retried])
        return np.asarray((cube_state == Status.PENDING) | again, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a block's open rows: one delivery and one pixel scale (arcsec/px) for each of `rows`.

    `keys` say what was asked for, as of `CutoutRequest.query`; without them nobody is asked whose an image is.
    `doubted` rows, with their requests so far, have an image that another object got too. `n_further` requests were for
    other objects. `down` says that the service failed before all of them were settled.
    """

    job: Job
    rows: npt.NDArray[np.int64]
    deliveries: tuple[Delivery, ...]
    scales_arcsec: npt.NDArray[np.float64]
    keys: tuple[str, ...] = ()
    doubted: tuple[tuple[int, int], ...] = ()
    n_further: int = 0
    down: str = ""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Which image each row claims, for the witness."""
        deliveries = self.deliveries if self.keys else ()
        return tuple(Claim(key, one.digest, one.examined) for key, one in zip(self.keys, deliveries, strict=True))

    def without_pixels(self) -> Settled:
        """The same, small enough to travel: pixels follow from the bodies, and of refused ones a few are kept."""
        return replace(self, deliveries=tuple(replace(one, pixels=None) for one in without_surplus(self.deliveries)))

    def at(self, kept: npt.NDArray[np.bool_]) -> Settled:
        """Some of the rows."""
        deliveries = tuple(one for one, keep in zip(self.deliveries, kept, strict=True) if keep)
        keys = tuple(key for key, keep in zip(self.keys, kept, strict=True) if keep) if self.keys else ()
        return replace(
            self, rows=self.rows[kept], deliveries=deliveries, scales_arcsec=self.scales_arcsec[kept], keys=keys
        )


def fetch_block(cube: Cube, job: Job, source: CutoutSource) -> Settled:
    """Ask for the open rows of one block, or for those that are doubted, inside a Dask task.

    Rows that are not settled because the service went down are left out, and so are those that are doubted now.
    """
    block, asked_before = job.block, dict(job.doubted)
    state = [np.asarray(cube.array(f"state/{name}")[block.rows]) for name in ("status", "reason")]
    is_open = job.open_rows(*state)
    if asked_before:
        is_open &= np.isin(np.arange(block.start, block.stop), list(asked_before))
    requests, scales_arcsec = _requests_for(np.flatnonzero(is_open), cube, block, source)
    collected = Collected(deliveries=())
    if requests and asked_before:
        stored = np.flatnonzero(state[0] == Status.STORED)[:MOST_OTHERS]
        others = _requests_for(stored, cube, block, source)[0] or [one for one in (source.known_good,) if one]
        collected = run(_examine(requests, others, source))
    elif requests:
        collected = run(_collect(requests, source))
    settled = {one.row for one in collected.deliveries}
    return Settled(
        job=job,
        rows=np.array(sorted(settled), dtype=np.int64),
        deliveries=tuple(
            replace(one, attempts=one.attempts + asked_before[one.row]) if one.row in asked_before else one
            for one in sorted(collected.deliveries, key=lambda one: one.row)
        ),
        scales_arcsec=np.array(
            [scale for request, scale in zip(requests, scales_arcsec, strict=True) if request.row in settled]
        ),
        keys=tuple(request.query for request in requests if request.row in settled),
        doubted=collected.doubted,
        n_further=collected.n_further,
        down=str(collected.down or ""),
    )


def _requests_for(
    offsets: npt.NDArray[np.int64], cube: Cube, block: Block, source: CutoutSource
) -> tuple[list[CutoutRequest], list[float]]:
    """What to ask for some rows of a block, counted from its start, and at which scale (arcsec/px)."""
    columns = ("ra", "dec", "petroR90_r")
    ra, dec, size_arcsec = (np.asarray(cube.array(f"catalog/{name}")[block.rows])[offsets] for name in columns)
    scales_arcsec = [source.scale.of(float(size)) for size in size_arcsec]
    places = zip(offsets, ra, dec, scales_arcsec, strict=True)
    requests = [
        source.request(int(offset) + block.start, ra_deg=one_ra, dec_deg=one_dec, scale_arcsec=scale)
        for offset, one_ra, one_dec, scale in places
    ]
    return requests, scales_arcsec


async def _collect(requests: list[CutoutRequest], source: CutoutSource) -> Collected:
    pacer, witness = _desk_of(source)
    return await collect_cutouts(requests, source.politeness, pacer, witness, known_good=source.known_good)


async def _examine(requests: list[CutoutRequest], others: list[CutoutRequest], source: CutoutSource) -> Collected:
    pacer, witness = _desk_of(source)
    return await examine_cutouts(requests, others, source.politeness, pacer, witness)


def _desk_of(source: CutoutSource) -> tuple[SharedPacer, SharedWitness]:
    base_url = source.service.base_url
    return SharedPacer(base_url, source.politeness.requests_per_second), SharedWitness(base_url)
