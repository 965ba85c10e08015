"""Ingest: fill registered rows with cutouts, block by block in parallel, one commit a wave.

A block task owns its 1,024 rows at every level: it fetches, decodes, averages and writes them inside a fork of the
wave's session. The committer merges the forks, writes the state of their rows and commits. Until then readers see
nothing of the wave, and a run that dies repeats only its uncommitted wave.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed
import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from galstore.blocks import Block, blocks_with
from galstore.commits import transaction
from galstore.pyramid import build_pyramid
from galstore.reader import Cube
from galstore.services.http import CutoutRequest, Delivery, Politeness, fetch_cutouts
from galstore.services.skyserver import SkyServer
from schemas.cube import DELIVERED_BYTES, LEVEL, STATE_COLUMNS
from schemas.cutouts import CutoutScale, Reason, Status
from schemas.errors import ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutSource:
    """Everything that a block task needs to ask for cutouts."""

    service: SkyServer
    scale: CutoutScale
    politeness: Politeness


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledBlock:
    """What a block task hands back: its fork of the session, and the state of the rows that it settled.

    `state` has one value a row for each of the task's state columns, in the order of `rows`.
    """

    block: Block
    fork: icechunk.ForkSession
    rows: npt.NDArray[np.int64]
    state: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What one wave, or several, brought: `n_settled = n_stored + n_quarantined`."""

    n_stored: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    n_requests: int = 0

    @property
    def n_quarantined(self) -> int:
        return sum(self.quarantined.values())

    @property
    def n_settled(self) -> int:
        return self.n_stored + self.n_quarantined

    def __add__(self, other: Filled) -> Filled:
        return Filled(
            n_stored=self.n_stored + other.n_stored,
            quarantined=dict(Counter(self.quarantined) + Counter(other.quarantined)),
            n_requests=self.n_requests + other.n_requests,
        )


def pending_blocks(cube: Cube, rows: npt.NDArray[np.int64] | None = None) -> tuple[Block, ...]:
    """Blocks with cutouts still to fetch; among some rows only, if given."""
    pending = cube.read_state("status") == Status.PENDING
    if rows is not None:
        asked = np.zeros_like(pending)
        asked[rows] = True
        pending &= asked
    return blocks_with(pending)


def pending_in(cube: Cube, blocks: Sequence[Block]) -> int:
    """How many cutouts are still to fetch in some blocks."""
    status = cube.read_state("status")
    return sum(int(np.count_nonzero(status[block.rows] == Status.PENDING)) for block in blocks)


def fill_wave(
    path: str,
    blocks: Sequence[Block],
    source: CutoutSource,
    client: distributed.Client,
    *,
    on_block: Callable[[int], None] = lambda _: None,
) -> Filled:
    """Fill the pending rows of some blocks and commit them together.

    Parameters
    ----------
    path
        Folder of the cube.
    blocks
        The wave.
    source
        Whom to ask, and how.
    client
        Dask; every block is one task.
    on_block
        Called with the number of objects that each finished block settled.

    Raises
    ------
    ServiceError
        The service gave no image for a whole block; nothing of the wave is committed, its rows stay pending.
    """
    metadata = {"operation": "fill", "blocks": [block.index for block in blocks]}
    with transaction(path, f"fill {len(blocks)} blocks", metadata) as session:
        fork = session.fork()
        # a task repeats safely: it writes its own rows of its own fork and nothing else
        futures = client.map(fill_block, list(blocks), fork=fork, source=source, pure=False, retries=2)
        filled: list[FilledBlock] = []
        for _, result in distributed.as_completed(futures, with_results=True):
            filled.append(result)
            on_block(result.rows.size)
        session.merge(*(one.fork for one in filled))
        root = zarr.open_group(session.store, mode="a")
        rows = np.concatenate([one.rows for one in filled])
        state = {name: np.concatenate([one.state[name] for one in filled]) for name in filled[0].state}
        for name, values in state.items():
            root[f"state/{name}"].oindex[rows] = values  # type: ignore[union-attr]
    reasons = Counter(int(code) for code in state["reason"] if code != Reason.NONE)
    return Filled(
        n_stored=int(np.count_nonzero(state["status"] == Status.STORED)),
        quarantined={Reason(code).name.lower(): n for code, n in sorted(reasons.items())},
        n_requests=int(state["attempts"].sum()),
    )


def fill_block(block: Block, *, fork: icechunk.ForkSession, source: CutoutSource) -> FilledBlock:
    """Fetch, decode, average and write the pending rows of one block, in a worker process."""
    root = zarr.open_group(fork.store, mode="a")

    def column(name: str) -> npt.NDArray[Any]:
        return np.asarray(root[name][block.rows])  # type: ignore[index]

    pending = np.flatnonzero(column("state/status") == Status.PENDING)
    rows = pending + block.start
    ra_deg, dec_deg = column("catalog/ra")[pending], column("catalog/dec")[pending]
    scales_arcsec = np.array([source.scale.of(float(size)) for size in column("catalog/petroR90_r")[pending]])
    requests = [
        CutoutRequest(
            row=index,
            url=source.service.cutout_url,
            params=source.service.cutout_params(ra_deg=ra, dec_deg=dec, scale_arcsec=scale),
        )
        for index, (ra, dec, scale) in enumerate(zip(ra_deg, dec_deg, scales_arcsec, strict=True))
    ]
    deliveries = asyncio.run(_collect(requests, source.politeness))
    if all(delivery.reason is Reason.SERVICE_ERROR for delivery in deliveries):
        raise ServiceError(
            f"the survey at {source.service.base_url} gave no image for any of {len(deliveries)} objects (last status "
            f"{deliveries[-1].http_status}): nothing was quarantined; run the same command again when it is back"
        )
    _write_images(root, rows, deliveries)
    return FilledBlock(block=block, fork=fork, rows=rows, state=_state_of(deliveries, scales_arcsec))


async def _collect(requests: Sequence[CutoutRequest], politeness: Politeness) -> list[Delivery]:
    return sorted([delivery async for delivery in fetch_cutouts(requests, politeness)], key=lambda one: one.row)


def _write_images(root: zarr.Group, rows: npt.NDArray[np.int64], deliveries: Sequence[Delivery]) -> None:
    stored = [delivery for delivery in deliveries if delivery.pixels is not None]
    if not stored:
        return
    stored_rows = rows[[delivery.row for delivery in stored]]
    bodies = np.zeros((len(stored), DELIVERED_BYTES), dtype=np.uint8)
    for padded, delivery in zip(bodies, stored, strict=True):
        padded[: len(delivery.body)] = np.frombuffer(delivery.body, dtype=np.uint8)
    _overlay(root["delivered/body"], stored_rows, bodies)
    pyramid = build_pyramid(np.stack([delivery.pixels for delivery in stored if delivery.pixels is not None]))
    for side, pixels in pyramid.items():
        _overlay(root[LEVEL[side].path], stored_rows, pixels)


def _overlay(array: Any, rows: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
    """Put values on some rows of a block with one write; rows between them keep what they hold."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == rows.size:
        array[first:last] = values
        return
    held = np.asarray(array[first:last])
    held[rows - first] = values
    array[first:last] = held


def _state_of(deliveries: Sequence[Delivery], scales_arcsec: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    digests = [hashlib.sha256(one.body).digest() if one.reason is Reason.NONE else bytes(32) for one in deliveries]
    values = {
        "status": [Status.STORED if one.reason is Reason.NONE else Status.QUARANTINED for one in deliveries],
        "reason": [one.reason for one in deliveries],
        "attempts": [one.attempts for one in deliveries],
        "http_status": [one.http_status for one in deliveries],
        "pixel_scale": scales_arcsec,
        "body_length": [len(one.body) if one.reason is Reason.NONE else 0 for one in deliveries],
        "body_sha256": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32),
    }
    dtypes = {column.name: column.dtype for column in STATE_COLUMNS}
    return {name: np.asarray(column, dtype=dtypes[name]) for name, column in values.items()}
