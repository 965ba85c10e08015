"""Verify: whether a cube still holds what was written into it, and whether that hangs together.

Three things are looked at: every array of one snapshot, chunk by chunk; for every stored object its delivered bytes,
their digest, the image that they decode to and its pyramid; and, of a local cube, every file in `chunks/`, whichever
snapshot uses it. Every chunk ends with its CRC-32C, so that one changed byte is found in each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.blocks import Block
from galstore.cube.commits import open_repository
from galstore.cube.reader import Cube
from galstore.integrity.checks.files import History, check_files, check_labels
from galstore.integrity.checks.images import check_block
from galstore.integrity.checks.indexes import check_indexes
from galstore.integrity.checks.state import (
    IMAGE_SHAPES,
    check_columns,
    check_lengths,
    check_rejected,
    check_state,
    has_layout,
    read_state,
)
from galstore.integrity.damaged_reads import in_order
from galstore.integrity.findings import Problem, ProblemKind, Verification
from schemas.cube import (
    BLOCK_ROWS,
)

_Array = zarr.Array[Any]
_Flags = npt.NDArray[np.bool_]


def verify_cube(cube: Cube, *, on_progress: Callable[[int], None] = lambda _: None, n_threads: int = 0) -> Verification:
    """Read everything that a cube holds and check it.

    Of a local cube all snapshots' chunk files are read, of one on an object store the chunks of this snapshot alone:
    listing and reading all others there would cost a request each. Open an older snapshot to verify it. An object store
    that does not answer looks like damage: the problem's text has what it said.

    Parameters
    ----------
    cube
        The snapshot.
    on_progress
        Called with how many objects have been checked since the last call.
    n_threads
        As many blocks are in memory, about 60 MB each; 0 = as many as there are processors.

    Returns
    -------
    Verification
        What was read and what is wrong. Damage never raises.
    """
    root = zarr.open_group(cube.store, mode="r")
    arrays = {path: node for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
    n_objects, problems = check_lengths(arrays)
    n_threads = n_threads or os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        state, found = read_state(arrays, n_objects, pool)
        problems += found + check_state(state, cube) + check_columns(arrays, state, pool) + check_rejected(arrays, cube)
        problems += check_indexes(root, arrays, state)
        blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
        sound = {path: arrays[path] for path in IMAGE_SHAPES if has_layout(arrays, path, n_objects)}

        def check(block: Block) -> tuple[int, list[Problem]]:
            return block.n_objects, check_block(sound, state, block)

        for n_checked, found in in_order(pool, check, blocks, n_ahead=n_threads + 1):
            problems += found
            on_progress(n_checked)
        repository = open_repository(cube.path)
        history = History(repository, cube.snapshot_id)
        files = check_files(history, cube.path, pool)
    problems += history.problems + files.problems + check_labels(repository, history, root)
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
