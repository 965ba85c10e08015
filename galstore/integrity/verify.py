"""Verification of a cube: readability and consistency of its contents.

Three parts are checked: the arrays of one snapshot, chunk by chunk; the delivered bytes of each stored object, their
digest, the decoded image and its pyramid; and the chunk files of all snapshots of a local cube. Every chunk ends with
its CRC-32C, which detects a single changed byte.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

import zarr

from galstore.cube.blocks import Block
from galstore.cube.commits import open_repository
from galstore.cube.reader import Cube
from galstore.integrity.checks.files import SnapshotHistory, check_files, check_labels
from galstore.integrity.checks.images import check_block
from galstore.integrity.checks.indexes import check_indexes
from galstore.integrity.checks.state import (
    check_columns,
    check_lengths,
    check_rejected,
    check_state,
    image_arrays,
    read_state,
)
from galstore.integrity.findings import Problem, ProblemKind, Verification
from galstore.parallel import map_ahead
from schemas.cube import BLOCK_ROWS

logger = logging.getLogger(__name__)


def verify_cube(cube: Cube, *, on_progress: Callable[[int], None] = lambda _: None, n_threads: int = 0) -> Verification:
    """Read the whole content of a cube and check it; damage never raises.

    For a local cube the chunk files of all snapshots are read, on an object store only the chunks of this snapshot,
    since each other file would cost a request. Open an older snapshot to verify it. An object store that does not
    respond looks like damage; the text of the problem contains its error.

    Parameters
    ----------
    on_progress
        Called with the number of objects checked since the last call.
    n_threads
        Number of threads; 0 takes the number of processors. Each holds one block in memory, about 60 MB.
    """
    root = zarr.open_group(cube.store, mode="r")
    arrays = {path: node for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
    n_threads = n_threads or os.cpu_count() or 1
    problems: list[Problem] = []

    def add(found: list[Problem], checked: str) -> None:
        problems.extend(found)
        logger.info("verified %s: %d problems", checked, len(found))

    n_objects, found = check_lengths(arrays)
    add(found, f"the layout of {len(arrays):,} arrays")
    state, found = read_state(arrays, n_objects, n_threads=n_threads)
    add(found + check_state(state, cube), f"the state of {n_objects:,} objects")
    found = check_columns(arrays, state, n_threads=n_threads) + check_rejected(arrays, cube)
    add(found, "the columns of the catalog, labels, predictions and rejected rows")
    add(check_indexes(root, arrays, state), "the indexes")

    blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
    check = partial(check_block, image_arrays(arrays, n_objects), state)
    checks = map_ahead(check, blocks, n_threads=n_threads, n_ahead=n_threads + 1)
    found = []
    for block, block_problems in zip(blocks, checks, strict=True):
        found += block_problems
        on_progress(block.n_objects)
    add(found, f"the delivered bytes and images of {len(blocks):,} blocks")

    repository = open_repository(cube.path)
    history = SnapshotHistory(repository, cube.snapshot_id)
    totals, found = check_files(history, cube.path, n_threads=n_threads)
    n_files = totals.get("n_files", 0)
    add(history.problems + found, f"{len(history.snapshots):,} snapshots and {n_files:,} chunk files")
    add(check_labels(repository, history, root), "the superseded versions of the labels")
    order = list(ProblemKind)
    return Verification(
        path=cube.path,
        snapshot_id=cube.snapshot_id,
        n_objects=n_objects,
        n_blocks=len(blocks),
        n_chunks=history.n_chunks,
        n_bytes=sum(int(array.nbytes) for array in arrays.values()),
        **totals,
        problems=tuple(sorted(problems, key=lambda problem: order.index(problem.kind))),
    )
