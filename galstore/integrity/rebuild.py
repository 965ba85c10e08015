"""Rebuild: the images of a block made anew from the bytes that the survey delivered.

Nothing that is damaged is read: every chunk of the block is written whole. An object whose delivered bytes are damaged
themselves becomes pending, so that the next ingest fetches it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.blocks import Block
from galstore.cube.commits import commit
from galstore.cube.index.lookup import index_entries, open_index
from galstore.cube.pyramid import build_pyramid
from galstore.cube.reader import open_cube
from galstore.integrity.damaged_reads import BODY_PATH, Rows, decode_delivered, read_rows
from galstore.integrity.findings import ProblemKind, Verification
from schemas.cube import BLOCK_ROWS, LEVEL
from schemas.cutouts import BANDS, SIDE_PX, Status
from schemas.errors import StoreError

_NEEDED = ("status", "body_length", "body_sha256")
_GO_BACK = "put the file that `galstore verify` names back from a copy, or start from an older snapshot"

_REPAIRED = frozenset(
    {ProblemKind.CHUNK, ProblemKind.BODY, ProblemKind.PIXELS, ProblemKind.PYRAMID, ProblemKind.ORPHAN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What became of the stored objects of a block: rebuilt, or pending until they are fetched again."""

    block_index: int
    n_rebuilt: int
    n_pending: int


def damaged_blocks(verification: Verification) -> tuple[int, ...]:
    """Numbers of the blocks in which something is wrong that `rebuild_block` mends, ascending."""
    blocks = {
        problem.block for problem in verification.problems if problem.kind in _REPAIRED and problem.block is not None
    }
    return tuple(sorted(blocks))


def rebuild_block(path: str, block_index: int, *, run_id: str = "") -> Rebuilt:
    """Make a block's images anew from the delivered bytes, in one commit.

    All eight levels of its stored objects are decoded and averaged anew; rows that are not stored become empty. Objects
    whose delivered bytes cannot be read, have another digest or do not decode become pending: bytes, digest, images and
    predictions are cleared. Superseded chunks, also damaged ones, stay on disk as part of older snapshots until these
    are expired.

    Let no ingest fill the same block meanwhile: what it has read before may be what is damaged.

    Parameters
    ----------
    path
        Place of the cube.
    block_index
        Which block, as `Problem.block` and `damaged_blocks` name it.
    run_id
        Kept with the commit.

    Returns
    -------
    Rebuilt
        Counts.

    Raises
    ------
    StoreError
        No such block, or the state of its rows cannot be read.
    """

    def rebuild(session: icechunk.Session) -> Rebuilt:
        root = zarr.open_group(session.store, mode="a")
        block = _block(root, block_index, path)
        status, lengths, digests = (_read_column(root, name, block, path) for name in _NEEDED)
        if not np.isin(status, [int(code) for code in Status]).all():
            raise StoreError(f"state/status of block {block_index} in {path} has unknown codes: {_GO_BACK}")
        bodies = read_rows(_array(root, BODY_PATH, path), block.start, block.stop)
        stored = status == Status.STORED
        good, pixels = _decode(bodies, stored, lengths, digests)
        for side, level in build_pyramid(pixels).items():
            whole = np.zeros((block.n_objects, *level.shape[1:]), dtype=level.dtype)
            whole[good] = level
            _array(root, LEVEL[side].path, path)[block.rows] = whole
        _write_bodies(root, block, bodies, np.where(good, lengths, 0))
        lost = stored & ~good
        forgotten = {"body_length": ~good, "body_sha256": ~good}
        if lost.any():
            forgotten |= dict.fromkeys(("status", "reason", "http_status", "pixel_scale"), lost)
        for name, rows in forgotten.items():
            _clear(root, name, rows, block, path)
        _clear_predictions(root, ~good, block)
        return Rebuilt(block_index=block_index, n_rebuilt=int(good.sum()), n_pending=int(lost.sum()))

    # `base` tells `verify` which chunks this commit replaces
    base = open_cube(path).snapshot_id
    metadata = {"operation": "rebuild", "run": run_id, "blocks": [block_index], "base": base}
    return commit(path, rebuild, message=f"rebuild block {block_index}", metadata=metadata)


def rebuild_index(path: str, *, run_id: str = "") -> int:
    """Make both indexes, of ids and of places, anew from the catalog's columns, in one commit.

    Parameters
    ----------
    path
        Place of the cube.
    run_id
        Kept with the commit.

    Returns
    -------
    int
        How many objects they have.

    Raises
    ------
    StoreError
        An array is missing, or a column of the catalog cannot be read.
    """

    def rebuild(session: icechunk.Session) -> int:
        root = zarr.open_group(session.store, mode="a")
        columns = {}
        for name in ("object_id", "ra", "dec"):
            array = _array(root, f"catalog/{name}", path)
            rows = read_rows(array, 0, array.shape[0])
            if rows.damage:
                raise StoreError(f"catalog/{name} in {path} cannot be read ({rows.damage[0][2]}): {_GO_BACK}")
            columns[name] = rows.values
        for name, entries in index_entries(pd.DataFrame(columns)).items():
            for column in entries:
                _array(root, f"index/{name}/{column}", path)
            open_index(root, name).replace(entries)
        return int(columns["object_id"].size)

    metadata = {"operation": "rebuild index", "run": run_id}
    return commit(path, rebuild, message="rebuild the indexes", metadata=metadata)


def _block(root: zarr.Group, block_index: int, path: str) -> Block:
    n_objects = int(_array(root, "state/status", path).shape[0])
    n_blocks = -(-n_objects // BLOCK_ROWS)
    if not 0 <= block_index < n_blocks:
        raise StoreError(
            f"the cube at {path} has {n_blocks} blocks, numbered from 0, got block {block_index}: take a number that "
            "`galstore verify` names"
        )
    start = block_index * BLOCK_ROWS
    return Block(start, min(start + BLOCK_ROWS, n_objects))


def _array(root: zarr.Group, name: str, path: str) -> Any:
    if name not in root:
        raise StoreError(f"the cube at {path} has no array {name}: {_GO_BACK}")
    return root[name]


def _read_column(root: zarr.Group, name: str, block: Block, path: str) -> npt.NDArray[Any]:
    rows = read_rows(_array(root, f"state/{name}", path), block.start, block.stop)
    if rows.damage:
        first, last, why = rows.damage[0]
        raise StoreError(
            f"state/{name} of rows {first}-{last - 1} in {path} cannot be read ({why}), so that nobody knows which "
            f"images belong there: {_GO_BACK}"
        )
    return rows.values


def _decode(
    bodies: Rows, stored: npt.NDArray[np.bool_], lengths: npt.NDArray[np.uint32], digests: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Which rows have good delivered bytes, and their images, shape (good row, 128, 128, band)."""
    good = np.zeros(stored.size, dtype=bool)
    images = []
    for row in np.flatnonzero(stored & bodies.known):
        _, pixels = decode_delivered(bodies.values[row], int(lengths[row]), digests[row])
        if pixels is not None:
            good[row] = True
            images.append(pixels)
    return good, np.stack(images) if images else np.empty((0, SIDE_PX, SIDE_PX, len(BANDS)), dtype=np.uint8)


def _write_bodies(root: zarr.Group, block: Block, bodies: Rows, lengths: npt.NDArray[Any]) -> None:
    """Clear what belongs to no stored object; chunks that are as they should be are not written again."""
    kept = np.where(np.arange(bodies.values.shape[1]) < lengths[:, None], bodies.values, 0).astype(np.uint8)
    if bodies.damage or not np.array_equal(kept, bodies.values):
        array: Any = root[BODY_PATH]
        array[block.rows] = kept


def _clear(root: zarr.Group, name: str, rows: npt.NDArray[np.bool_], block: Block, path: str) -> None:
    """Put the fill value of a state column on some rows of a block."""
    array = _array(root, f"state/{name}", path)
    held = _read_column(root, name, block, path)
    cleared = held.copy()
    cleared[rows] = array.fill_value
    if not np.array_equal(cleared, held, equal_nan=held.dtype.kind == "f"):
        array[block.rows] = cleared


def _clear_predictions(root: zarr.Group, rows: npt.NDArray[np.bool_], block: Block) -> None:
    """Some rows of a block are as if never scored; a column that cannot be read is left to `verify`, which names it."""
    group = root.get("predictions")
    for name, array in group.members(max_depth=None) if isinstance(group, zarr.Group) else ():
        if not isinstance(array, zarr.Array):
            continue
        held = read_rows(array, block.start, block.stop)
        cleared = np.where(rows, array.fill_value, held.values).astype(array.dtype)
        if not held.damage and not np.array_equal(cleared, held.values, equal_nan=True):
            column: Any = root[f"predictions/{name}"]
            column[block.rows] = cleared
