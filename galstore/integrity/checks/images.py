"""Check of the delivered bytes and images of one block against its state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import AnyArray
from galstore.cube.blocks import Block
from galstore.cube.pyramid import build_pyramid
from galstore.integrity.checks.state import StateTable, chunk_problems
from galstore.integrity.damaged_reads import BODY_PATH, PartialRows, decode_stored_body, read_partial_rows
from galstore.integrity.findings import Problem, ProblemKind
from schemas.cube import DELIVERED_BYTES, DELIVERED_CHUNK_ROWS, LEVEL, LEVELS
from schemas.cutouts import BANDS, SIDE_PX


class _BlockProblems:
    """Problems of a block, one for all rows with the same problem, so that a bad block gives few lines."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProblemKind, str, str], list[int]] = defaultdict(list)
        self.chunks: list[Problem] = []

    def add(self, kind: ProblemKind, path: str, text: str, rows: Iterable[int]) -> None:
        self.rows[kind, path, text].extend(int(row) for row in rows)


def check_block(arrays: Mapping[str, AnyArray], state: StateTable, block: Block) -> list[Problem]:
    """Check the bytes of a block, their digests, the decoded images and pyramids, and values of unstored objects."""
    found = _BlockProblems()

    def read(path: str, start: int, stop: int) -> PartialRows | None:
        if path not in arrays:
            return None
        rows = read_partial_rows(arrays[path], start, stop)
        found.chunks += chunk_problems(path, rows)
        _check_orphans(rows, path, state, start, found)
        return rows

    levels = {side: read(LEVEL[side].path, block.start, block.stop) for side in LEVELS[1:]}
    # the finest level and the bytes are read in strips, since they take 66 MB per block
    for start in range(block.start, block.stop, DELIVERED_CHUNK_ROWS):
        stop = min(start + DELIVERED_CHUNK_ROWS, block.stop)
        finest, bodies = read(LEVEL[SIDE_PX].path, start, stop), read(BODY_PATH, start, stop)
        if bodies is None:
            continue
        offsets, pixels = _decode_strip(bodies, state, start, found)
        if offsets.size:
            stored = {side: (level, offsets + start - block.start) for side, level in levels.items()}
            _compare_levels(stored | {SIDE_PX: (finest, offsets)}, pixels, offsets + start, found)
    grouped = [state.row_problems(kind, path, rows, text) for (kind, path, text), rows in found.rows.items()]
    return found.chunks + [problem for problems in grouped for problem in problems]


def _check_orphans(rows: PartialRows, path: str, state: StateTable, start: int, found: _BlockProblems) -> None:
    unstored = np.flatnonzero(rows.is_intact & state.is_unstored[start : start + rows.is_intact.size])
    if unstored.size:
        has_value = rows.values[unstored].reshape(unstored.size, -1).any(axis=1)
        content = "delivered bytes" if path == BODY_PATH else "pixels"
        found.add(ProblemKind.ORPHAN, path, f"{content} of an object that is not stored", unstored[has_value] + start)


def _decode_strip(
    bodies: PartialRows, state: StateTable, start: int, found: _BlockProblems
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return the rows of a strip whose delivered bytes are good, and their decoded images."""
    strip = slice(start, start + bodies.is_intact.size)
    is_described = state.is_described[strip] & bodies.is_intact
    lengths = state["body_length"][strip]
    is_padding = np.arange(DELIVERED_BYTES) >= lengths[:, None]
    has_bad_padding = (bodies.values.astype(bool) & is_padding).any(axis=1)
    bad_rows = np.flatnonzero(is_described & has_bad_padding) + start
    found.add(ProblemKind.BODY, BODY_PATH, "bytes after state/body_length are not zero", bad_rows)
    offsets, decoded = [], []
    digests = state["body_sha256"][strip]
    for offset in np.flatnonzero(is_described):
        error, pixels = decode_stored_body(bodies.values[offset], int(lengths[offset]), digests[offset])
        if pixels is None:
            found.add(ProblemKind.BODY, BODY_PATH, error, [start + int(offset)])
        else:
            offsets.append(offset)
            decoded.append(pixels)
    return np.array(offsets, dtype=np.int64), np.array(decoded, dtype=np.uint8).reshape(
        -1, SIDE_PX, SIDE_PX, len(BANDS)
    )


def _compare_levels(
    stored: Mapping[int, tuple[PartialRows | None, npt.NDArray[np.int64]]],
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    found: _BlockProblems,
) -> None:
    for side, expected in build_pyramid(pixels).items():
        level, offsets = stored[side]
        if level is None:
            continue
        differs = (level.values[offsets] != expected).any(axis=(1, 2, 3)) & level.is_intact[offsets]
        if side == SIDE_PX:
            kind, text = ProblemKind.PIXELS, "the pixels differ from the decoded delivered bytes"
        else:
            kind, text = ProblemKind.PYRAMID, "the level is not the average of the delivered image"
        found.add(kind, LEVEL[side].path, text, rows[differs])
