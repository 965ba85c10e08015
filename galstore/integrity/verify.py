"""Verification of a cube: readability and consistency of its contents.

Three parts are checked: the arrays of one snapshot, chunk by chunk; the delivered bytes of each stored object, their
digest, the decoded image and its pyramid; and the chunk files of all snapshots of a local cube. Every chunk ends with
its CRC-32C, which detects a single changed byte.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import zarr

from galstore.cube.blocks import Block
from galstore.cube.commits import open_repository
from galstore.cube.reader import Cube
from galstore.integrity.checks.files import SnapshotHistory, check_files, check_labels
from galstore.integrity.checks.images import check_block
from galstore.integrity.checks.indexes import check_indexes
from galstore.integrity.checks.state import (
    IMAGE_LAYOUTS,
    check_columns,
    check_lengths,
    check_rejected,
    check_state,
    has_layout,
    read_state,
)
from galstore.integrity.findings import Problem, ProblemKind, Verification
from galstore.parallel import map_ahead
from schemas.cube import BLOCK_ROWS

logger = logging.getLogger(__name__)


def verify_cube(cube: Cube, *, on_progress: Callable[[int], None] = lambda _: None, n_threads: int = 0) -> Verification:
    """Read the whole content of a cube and check it.

    For a local cube the chunk files of all snapshots are read, on an object store only the chunks of this snapshot,
    since each other file would cost a request. Open an older snapshot to verify it. An object store that does not
    respond looks like damage; the text of the problem contains its error.

    Parameters
    ----------
    cube
        Snapshot to verify.
    on_progress
        Called with the number of objects checked since the last call.
    n_threads
        Number of threads; 0 takes the number of processors. Each holds one block in memory, about 60 MB.

    Returns
    -------
    Verification
        Totals and problems. Damage never raises.
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
    images = {path: arrays[path] for path in IMAGE_LAYOUTS if has_layout(arrays, path, n_objects)}

    def check(block: Block) -> tuple[int, list[Problem]]:
        return block.n_objects, check_block(images, state, block)

    found = []
    for n_checked, block_problems in map_ahead(check, blocks, n_threads=n_threads, n_ahead=n_threads + 1):
        found += block_problems
        on_progress(n_checked)
    add(found, f"the delivered bytes and images of {len(blocks):,} blocks")

    repository = open_repository(cube.path)
    history = SnapshotHistory(repository, cube.snapshot_id)
    files = check_files(history, cube.path, n_threads=n_threads)
    add(history.problems + files.problems, f"{len(history.snapshots):,} snapshots and {files.n_files:,} chunk files")
    add(check_labels(repository, history, root), "the superseded versions of the labels")
    order = list(ProblemKind)
    return Verification(
        path=cube.path,
        snapshot_id=cube.snapshot_id,
        n_objects=n_objects,
        n_blocks=len(blocks),
        n_chunks=history.n_chunks,
        n_bytes=sum(int(array.nbytes) for array in arrays.values()),
        n_files=files.n_files,
        file_bytes=files.n_bytes,
        n_garbage=files.n_garbage,
        garbage_bytes=files.garbage_bytes,
        n_garbage_damaged=files.n_garbage_damaged,
        problems=tuple(sorted(problems, key=lambda problem: order.index(problem.kind))),
    )
