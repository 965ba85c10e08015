"""Repair of damaged blocks from the delivered bytes, and of the indexes from the catalog.

Damaged chunks are not read: every chunk of the block is written whole. An object whose delivered bytes are damaged
becomes pending, so that the next ingest fetches it again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import AnyArray, Values, require_array
from galstore.cube.blocks import Block
from galstore.cube.commits import commit
from galstore.cube.index.lookup import index_entries, open_index
from galstore.cube.pyramid import build_pyramid
from galstore.cube.reader import open_cube
from galstore.integrity.damaged_reads import BODY_PATH, PartialRows, decode_stored_body, read_partial_rows
from galstore.integrity.findings import ProblemKind, Verification
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import BANDS, SIDE_PX, Status
from schemas.errors import StoreError

_RESTORE = "restore the file that `galstore verify` names from a copy, or use an older snapshot"
_REPAIRABLE = (ProblemKind.CHUNK, ProblemKind.BODY, ProblemKind.PIXELS, ProblemKind.PYRAMID, ProblemKind.ORPHAN)

_Flags = npt.NDArray[np.bool_]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """Numbers of objects of a block that were rebuilt, and that became pending."""

    block_index: int
    n_rebuilt: int
    n_pending: int


def damaged_blocks(verification: Verification) -> tuple[int, ...]:
    """Return the numbers of the blocks with problems that `rebuild_block` repairs, ascending."""
    blocks = {problem.block for problem in verification.problems if problem.kind in _REPAIRABLE}
    return tuple(sorted(block for block in blocks if block is not None))


def rebuild_block(path: str, block_index: int, *, run_id: str = "") -> RebuildResult:
    """Rebuild the images of a block from the delivered bytes, in one commit.

    The delivered bytes of stored objects are decoded and all eight levels computed; other rows become empty. Objects
    whose delivered bytes cannot be read, have another digest or do not decode become pending: bytes, digest, images
    and predictions are cleared. Superseded chunks stay on disk until the snapshots that use them are expired.

    No ingest may fill the same block at the same time, since it may have read damaged data.

    Raises
    ------
    StoreError
        The block does not exist, or the state of its rows cannot be read.
    """

    def rebuild(session: icechunk.Session) -> RebuildResult:
        root = zarr.open_group(session.store, mode="a")
        block = _block(root, block_index, path)
        status, lengths, digests = (
            _read_state(root, name, block, path) for name in ("status", "body_length", "body_sha256")
        )
        if not np.isin(status, [int(code) for code in Status]).all():
            raise StoreError(f"state/status of block {block_index} in {path} has unknown codes: {_RESTORE}")
        bodies = read_partial_rows(_array(root, BODY_PATH, path), block.start, block.stop)
        is_stored = status == Status.STORED
        is_good, pixels = _decode(bodies, is_stored, lengths, digests)
        for side, level in build_pyramid(pixels).items():
            whole = np.zeros((block.n_objects, *level.shape[1:]), dtype=level.dtype)
            whole[is_good] = level
            _array(root, LEVEL[side].path, path)[block.rows] = whole
        # bytes after the length, which is 0 for unstored objects, are cleared
        is_used = np.arange(bodies.values.shape[1]) < np.where(is_good, lengths, 0)[:, None]
        expected = np.where(is_used, bodies.values, 0).astype(np.uint8)
        if bodies.damage or not np.array_equal(expected, bodies.values):
            require_array(root, BODY_PATH)[block.rows] = expected
        is_lost = is_stored & ~is_good
        cleared = {"body_length": ~is_good, "body_sha256": ~is_good}
        if is_lost.any():
            cleared |= dict.fromkeys(("status", "reason", "http_status", "pixel_scale"), is_lost)
        for name, rows in cleared.items():
            _clear(_array(root, f"state/{name}", path), _read_state(root, name, block, path), rows, block)
        _clear_predictions(root, ~is_good, block)
        return RebuildResult(block_index=block_index, n_rebuilt=int(is_good.sum()), n_pending=int(is_lost.sum()))

    # `verify` derives from `base` which chunks this commit replaces
    base = open_cube(path).snapshot_id
    metadata = {"operation": "rebuild", "run": run_id, "blocks": [block_index], "base": base}
    result = commit(path, rebuild, message=f"rebuild block {block_index}", metadata=metadata)
    logger.info(
        "rebuilt block %d of %s: %d objects rebuilt, %d pending", block_index, path, result.n_rebuilt, result.n_pending
    )
    return result


def rebuild_index(path: str, *, run_id: str = "") -> int:
    """Rebuild the indexes of ids and positions from the catalog, in one commit, and return the number of objects.

    Raises
    ------
    StoreError
        An array is missing, or a column of the catalog cannot be read.
    """

    def rebuild(session: icechunk.Session) -> int:
        root = zarr.open_group(session.store, mode="a")
        columns = {}
        for name in ("object_id", "ra", "dec"):
            rows = read_partial_rows(_array(root, f"catalog/{name}", path))
            if rows.damage:
                raise StoreError(f"catalog/{name} in {path} cannot be read ({rows.damage[0].reason}): {_RESTORE}")
            columns[name] = rows.values
        for name, entries in index_entries(pd.DataFrame(columns)).items():
            for column in entries:
                _array(root, f"index/{name}/{column}", path)
            open_index(root, name).replace(entries)
        return int(columns["object_id"].size)

    metadata = {"operation": "rebuild index", "run": run_id}
    n_objects = commit(path, rebuild, message="rebuild the indexes", metadata=metadata)
    logger.info("rebuilt the indexes of %s: %d objects", path, n_objects)
    return n_objects


def _block(root: zarr.Group, block_index: int, path: str) -> Block:
    n_objects = int(_array(root, "state/status", path).shape[0])
    n_blocks = -(-n_objects // BLOCK_ROWS)
    if not 0 <= block_index < n_blocks:
        raise StoreError(
            f"the cube at {path} has {n_blocks} blocks, numbered from 0, got block {block_index}: use a number that "
            "`galstore verify` names"
        )
    start = block_index * BLOCK_ROWS
    return Block(start, min(start + BLOCK_ROWS, n_objects))


def _array(root: zarr.Group, name: str, path: str) -> AnyArray:
    if name not in root:
        raise StoreError(f"the array {name} is missing in the cube at {path}: {_RESTORE}")
    return require_array(root, name)


def _read_state(root: zarr.Group, name: str, block: Block, path: str) -> Values:
    rows = read_partial_rows(_array(root, f"state/{name}", path), block.start, block.stop)
    if rows.damage:
        start, stop, reason = rows.damage[0]
        raise StoreError(
            f"state/{name} of rows {start}-{stop - 1} in {path} cannot be read ({reason}), so the images of these rows "
            f"are unknown: {_RESTORE}"
        )
    return rows.values


def _decode(
    bodies: PartialRows, is_stored: _Flags, lengths: npt.NDArray[np.uint32], digests: npt.NDArray[np.uint8]
) -> tuple[_Flags, npt.NDArray[np.uint8]]:
    """Return flags of the rows with good delivered bytes, and their images, shape (good row, 128, 128, band)."""
    is_good = np.zeros(is_stored.size, dtype=bool)
    images = []
    for row in np.flatnonzero(is_stored & bodies.is_intact):
        _, pixels = decode_stored_body(bodies.values[row], int(lengths[row]), digests[row])
        if pixels is not None:
            is_good[row] = True
            images.append(pixels)
    return is_good, np.array(images, dtype=np.uint8).reshape(-1, SIDE_PX, SIDE_PX, len(BANDS))


def _clear(array: AnyArray, stored: Values, rows: _Flags, block: Block) -> None:
    """Write the fill value into flagged rows of a block, unless they have it."""
    cleared = stored.copy()
    cleared[rows] = array.fill_value
    if not np.array_equal(cleared, stored, equal_nan=True):
        array[block.rows] = cleared


def _clear_predictions(root: zarr.Group, rows: _Flags, block: Block) -> None:
    """Clear the predictions of flagged rows; unreadable columns are left to `verify`, which reports them."""
    group = root.get("predictions")
    for _, array in group.members(max_depth=None) if isinstance(group, zarr.Group) else ():
        if isinstance(array, zarr.Array):
            stored = read_partial_rows(array, block.start, block.stop)
            if not stored.damage:
                _clear(array, stored.values, rows, block)
