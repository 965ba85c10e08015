"""Download of the cutouts of one block: from open rows of the cube to final responses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from galstore.cube.blocks import Block
from galstore.cube.reader import Cube
from galstore.event_loop import run
from galstore.ingest.refused_responses import limit_refused
from galstore.survey.collect import Collected, collect_cutouts, recheck_cutouts
from galstore.survey.cutout_service import CutoutService
from galstore.survey.rate_limit import RateLimiter
from galstore.survey.repeated_bodies import ReceivedImage
from galstore.survey.responses import CutoutRequest, CutoutResponse
from galstore.survey.retry import RequestLimits
from galstore.survey.service_state import ServiceState
from schemas.cutouts import CutoutScale, Reason, Status

MAX_OTHERS = 8
"""Stored objects of a block that are requested between those to recheck."""

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutSource:
    """Service and settings for cutout requests.

    `known_good` is a request that succeeded before; it distinguishes an object's failure from an outage.
    """

    service: CutoutService
    scale: CutoutScale
    request_limits: RequestLimits
    known_good: CutoutRequest | None = None

    def with_known_good(self, cube: Cube, row: int) -> CutoutSource:
        """Return a copy with the request of an object whose cutout is stored."""
        ra, dec, scale = (
            np.asarray(cube.array(name)[row]).item() for name in ("catalog/ra", "catalog/dec", "state/pixel_scale")
        )
        return replace(self, known_good=self.build_request(row, ra_deg=ra, dec_deg=dec, scale_arcsec=scale))

    def build_request(self, row: int, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> CutoutRequest:
        params = self.service.cutout_params(ra_deg=ra_deg, dec_deg=dec_deg, scale_arcsec=scale_arcsec)
        return CutoutRequest(row=row, url=self.service.cutout_url, params=params)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTask:
    """Open rows of one block: pending ones, and those in quarantine for the reasons that are retried.

    `to_recheck` holds row and number of requests so far, for objects that share their image. If given, only these are
    requested.
    """

    block: Block
    retried: frozenset[Reason] = frozenset()
    to_recheck: tuple[tuple[int, int], ...] = ()

    def open_rows(self, status: npt.NDArray[np.uint8], reason: npt.NDArray[np.uint8]) -> _Flags:
        """Return which rows may get a final response, from their state columns."""
        is_retried = (status == Status.QUARANTINED) & np.isin(reason, [int(code) for code in self.retried])
        return np.asarray((status == Status.PENDING) | is_retried, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedBlock:
    """Final responses for open rows of a block.

    Attributes
    ----------
    keys
        `CutoutRequest.query` of each object; without keys, images are not checked for repeats.
    to_recheck, n_extra_requests
        See `Collected`.
    down
        Message of the circuit breaker, if the service failed before all rows had a response.
    """

    task: BlockTask
    rows: npt.NDArray[np.int64]
    responses: tuple[CutoutResponse, ...]
    scales_arcsec: npt.NDArray[np.float64]
    keys: tuple[str, ...] = ()
    to_recheck: tuple[tuple[int, int], ...] = ()
    n_extra_requests: int = 0
    down: str = ""

    @property
    def images(self) -> tuple[ReceivedImage, ...]:
        """Images for the repeat detector; empty without keys."""
        responses = self.responses if self.keys else ()
        return tuple(
            ReceivedImage(key, response.digest, response.confirmed)
            for key, response in zip(self.keys, responses, strict=True)
        )

    def without_pixels(self) -> FetchedBlock:
        """Return a copy that is small to send: without pixels, which follow from the bodies, and few refused bodies."""
        responses = tuple(replace(response, pixels=None) for response in limit_refused(self.responses))
        return replace(self, responses=responses)

    def select(self, is_selected: _Flags) -> FetchedBlock:
        chosen = np.flatnonzero(is_selected)
        return replace(
            self,
            rows=self.rows[chosen],
            responses=tuple(self.responses[index] for index in chosen),
            scales_arcsec=self.scales_arcsec[chosen],
            keys=tuple(self.keys[index] for index in chosen) if self.keys else (),
        )


def fetch_block(cube: Cube, task: BlockTask, source: CutoutSource, service_state: ServiceState) -> FetchedBlock:
    """Request the open rows of one block, or its rows to recheck.

    Rows without a final response are omitted: those to recheck, and all others if the service goes down.
    """
    block, n_requests_before = task.block, dict(task.to_recheck)
    status, reason = (np.asarray(cube.array(f"state/{name}")[block.rows]) for name in ("status", "reason"))
    is_open = task.open_rows(status, reason)
    if task.to_recheck:
        is_open &= np.isin(np.arange(block.start, block.stop), list(n_requests_before))
    requests, scales_arcsec = _build_requests(np.flatnonzero(is_open), cube, block, source)
    others: list[CutoutRequest] = []
    if task.to_recheck:
        stored = np.flatnonzero(status == Status.STORED)[:MAX_OTHERS]
        others = _build_requests(stored, cube, block, source)[0]
        if not others and source.known_good:
            others = [source.known_good]
    collected = Collected(responses=())
    if requests:
        base_url, limits = source.service.base_url, source.request_limits
        rate_limiter = RateLimiter(limits.requests_per_second, partial(service_state.lease_slots, base_url))
        shared = rate_limiter, partial(service_state.find_repeats, base_url)
        if task.to_recheck:
            collected = run(recheck_cutouts(requests, others, limits, *shared))
        else:
            collected = run(collect_cutouts(requests, limits, *shared, known_good=source.known_good))
    responses = collected.responses
    rows = {response.row for response in responses}
    is_final = [request.row in rows for request in requests]
    return FetchedBlock(
        task=task,
        rows=np.array([response.row for response in responses], dtype=np.int64),
        responses=tuple(
            replace(response, attempts=response.attempts + n_requests_before.get(response.row, 0))
            for response in responses
        ),
        scales_arcsec=np.array([scale for scale, final in zip(scales_arcsec, is_final, strict=True) if final]),
        keys=tuple(request.query for request, final in zip(requests, is_final, strict=True) if final),
        to_recheck=collected.to_recheck,
        n_extra_requests=collected.n_extra_requests,
        down=str(collected.down or ""),
    )


def _build_requests(
    offsets: npt.NDArray[np.int64], cube: Cube, block: Block, source: CutoutSource
) -> tuple[list[CutoutRequest], list[float]]:
    """Build requests for rows at offsets in a block, and return them with their pixel scales (arcsec/px)."""
    columns = ("ra", "dec", "petroR90_r")
    ra_deg, dec_deg, size_arcsec = (np.asarray(cube.array(f"catalog/{name}")[block.rows])[offsets] for name in columns)
    scales_arcsec = [source.scale.of(float(size)) for size in size_arcsec]
    rows = (offsets + block.start).tolist()
    requests = [
        source.build_request(row, ra_deg=ra, dec_deg=dec, scale_arcsec=scale)
        for row, ra, dec, scale in zip(rows, ra_deg, dec_deg, scales_arcsec, strict=True)
    ]
    return requests, scales_arcsec
