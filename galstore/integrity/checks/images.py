"""Delivered bytes and images of one block: whether they are what the state says they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.blocks import Block
from galstore.cube.pyramid import build_pyramid
from galstore.integrity.checks.state import (
    State,
    unreadable,
)
from galstore.integrity.damaged_reads import BODY_PATH, Rows, decode_delivered, read_rows
from galstore.integrity.findings import Problem, ProblemKind
from schemas.cube import (
    DELIVERED_BYTES,
    DELIVERED_CHUNK_ROWS,
    LEVEL,
    LEVELS,
)
from schemas.cutouts import BANDS, SIDE_PX

_Array = zarr.Array[Any]
_Flags = npt.NDArray[np.bool_]


class _Findings:
    """What is wrong within a block: rows by what they share, so that a bad block is some lines and not a thousand."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProblemKind, str, str], list[int]] = defaultdict(list)
        self.chunks: list[Problem] = []

    def add(self, kind: ProblemKind, path: str, text: str, rows: Iterable[int]) -> None:
        rows = [int(row) for row in rows]
        if rows:
            self.rows[kind, path, text] += rows

    def problems(self, state: State) -> list[Problem]:
        shared = [state.problem(kind, path, rows, text) for (kind, path, text), rows in self.rows.items()]
        return self.chunks + [problem for problems in shared for problem in problems]


def check_block(arrays: Mapping[str, _Array], state: State, block: Block) -> list[Problem]:
    """Problems of one block: bytes, digest, the image that they decode to, its pyramid, and what belongs to nobody."""
    findings = _Findings()
    levels = {}
    for side in LEVELS[1:]:
        path = LEVEL[side].path
        if path in arrays:
            levels[side] = read_rows(arrays[path], block.start, block.stop)
            findings.chunks += unreadable(path, levels[side])
            _check_orphans(levels[side], path, state, block.start, findings)
    # the finest level and the bytes come in strips, since a block of them takes 66 MB
    for start in range(block.start, block.stop, DELIVERED_CHUNK_ROWS):
        stop = min(start + DELIVERED_CHUNK_ROWS, block.stop)
        strip = {
            path: read_rows(arrays[path], start, stop) for path in (LEVEL[SIDE_PX].path, BODY_PATH) if path in arrays
        }
        for path, rows in strip.items():
            findings.chunks += unreadable(path, rows)
            _check_orphans(rows, path, state, start, findings)
        if BODY_PATH not in strip:
            continue
        offsets, pixels = _decode_strip(strip[BODY_PATH], state, start, findings)
        if offsets.size:
            held = {side: (rows, offsets + start - block.start) for side, rows in levels.items()}
            if LEVEL[SIDE_PX].path in strip:
                held[SIDE_PX] = strip[LEVEL[SIDE_PX].path], offsets
            _compare_levels(held, pixels, offsets + start, findings)
    return findings.problems(state)


def _check_orphans(rows: Rows, path: str, state: State, start: int, findings: _Findings) -> None:
    unstored = np.flatnonzero(rows.known & state.is_unstored[start : start + rows.known.size])
    if unstored.size:
        filled = rows.values[unstored].reshape(unstored.size, -1).any(axis=1)
        what = "delivered bytes" if path == BODY_PATH else "pixels"
        findings.add(ProblemKind.ORPHAN, path, f"{what} of an object that is not stored", unstored[filled] + start)


def _decode_strip(
    bodies: Rows, state: State, start: int, findings: _Findings
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Rows within a strip whose delivered bytes are good, and the images that they decode to."""
    here = slice(start, start + bodies.known.size)
    described = state.is_described[here] & bodies.known
    lengths = state["body_length"][here]
    behind = np.arange(DELIVERED_BYTES) >= lengths[:, None]
    padded = (bodies.values.astype(bool) & behind).any(axis=1)
    findings.add(
        ProblemKind.BODY, BODY_PATH, "bytes behind state/body_length are not zero",
        np.flatnonzero(described & padded) + start,
    )  # fmt: skip
    offsets, decoded = [], []
    for offset in np.flatnonzero(described):
        fault, pixels = decode_delivered(
            bodies.values[offset], int(lengths[offset]), state["body_sha256"][here][offset]
        )
        if pixels is None:
            findings.add(ProblemKind.BODY, BODY_PATH, fault, [start + int(offset)])
        else:
            offsets.append(offset)
            decoded.append(pixels)
    stacked = np.stack(decoded) if decoded else np.empty((0, SIDE_PX, SIDE_PX, len(BANDS)), dtype=np.uint8)
    return np.array(offsets, dtype=np.int64), stacked


def _compare_levels(
    held: Mapping[int, tuple[Rows, npt.NDArray[np.int64]]],
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    findings: _Findings,
) -> None:
    for side, expected in build_pyramid(pixels).items():
        if side not in held:
            continue
        stored, offsets = held[side]
        differs = (stored.values[offsets] != expected).any(axis=(1, 2, 3)) & stored.known[offsets]
        if side == SIDE_PX:
            kind, text = ProblemKind.PIXELS, "the pixels are not those that the delivered bytes decode to"
        else:
            kind, text = ProblemKind.PYRAMID, "the level is not the average of the delivered image"
        findings.add(kind, LEVEL[side].path, text, rows[differs])
