"""Filling of registered rows with cutouts: blocks in parallel, several blocks per commit.

A block task owns its 1,024 rows at every level. It fetches, decodes, averages and writes them into a fork of a session
at the tip. The committer merges finished forks into a new session, writes the state of their rows and commits, while
further blocks are in progress. A killed run repeats only what was not committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from galstore.cube.blocks import Block, blocks_with
from galstore.cube.reader import Cube, open_cube
from galstore.executor import TASKS_PER_THREAD, Executor, run_bounded
from galstore.ingest.fetch import BlockTask, CutoutSource, fetch_block
from galstore.ingest.write import FilledBlock, FillResult, commit_blocks, write_block
from galstore.survey.service_state import ServiceState
from schemas.cutouts import Reason
from schemas.errors import ServiceDownError

COMMIT_EVERY_S = 120.0
"""A slow survey commits at least this often, so that a kill costs two minutes of downloads."""

MAX_PASSES = 3
"""All open rows first, then twice the rows to recheck; what is left after the last pass waits for the next run."""

logger = logging.getLogger(__name__)


def plan_block_tasks(
    cube: Cube, rows: npt.NDArray[np.int64] | None = None, *, retried: frozenset[Reason] = frozenset()
) -> tuple[BlockTask, ...]:
    """Return tasks for the blocks with cutouts to fetch; with `rows`, only blocks with some of them.

    Objects in quarantine for one of the reasons `retried` are fetched as well.
    """
    is_wanted = _open_rows(cube, retried)
    if rows is not None:
        is_wanted &= np.isin(np.arange(is_wanted.size), rows)
    return tuple(BlockTask(block=block, retried=retried) for block in blocks_with(is_wanted))


def count_open(cube: Cube, tasks: Sequence[BlockTask]) -> int:
    """Return the number of cutouts that the tasks will request."""
    if not tasks:
        return 0
    is_open = _open_rows(cube, tasks[0].retried)
    return sum(int(np.count_nonzero(is_open[task.block.rows])) for task in tasks)


def _open_rows(cube: Cube, retried: frozenset[Reason]) -> npt.NDArray[np.bool_]:
    any_task = BlockTask(block=Block(0, 1), retried=retried)
    return any_task.open_rows(cube.read_state("status"), cube.read_state("reason"))


def fill_cube(
    path: str,
    tasks: Sequence[BlockTask],
    source: CutoutSource,
    executor: Executor,
    *,
    blocks_per_commit: int = 16,
    run_id: str = "",
    on_commit: Callable[[FillResult], None] = lambda _: None,
    on_block: Callable[[FillResult], None] = lambda _: None,
) -> FillResult:
    """Fill the open rows of some blocks.

    Rows that another run fills first are left to it. Memory is bounded by the blocks in progress and not yet committed:
    about 2 MB each here, 150 MB in a worker.

    Parameters
    ----------
    on_commit
        Called with the counts of each commit after it succeeds.
    on_block
        Called with the counts of each block when it is finished, before its commit. Use it for progress. The commits
        count again, and may count less if other writers filled rows first.

    Raises
    ------
    ServiceDownError
        The service failed for many objects in a row. Rows with a final response are committed; the others stay open.
    ServiceError
        Dask's scheduler is gone. Earlier commits are safe.
    """
    total = FillResult()
    service_state = executor.share_service_state()
    for _ in range(MAX_PASSES):
        to_recheck: list[BlockTask] = []
        for finished in _finished_blocks(path, tasks, source, executor, service_state, blocks_per_commit, on_block):
            blocks = _set_aside_repeats(path, finished, source, executor)
            to_recheck += [
                replace(block.fetched.task, to_recheck=block.fetched.to_recheck)
                for block in blocks
                if block.fetched.to_recheck
            ]
            while blocks:
                result, overtaken = commit_blocks(path, blocks, run_id=run_id)
                total += result
                if result.n_settled:
                    _log_commit(len(blocks) - len(overtaken), result)
                    on_commit(result)
                if overtaken:
                    logger.info("another writer overtook %d blocks: write them again on the new tip", len(overtaken))
                blocks = [write_block(path, block.fetched) for block in overtaken]
            for block in finished:
                if block.fetched.down:
                    raise ServiceDownError(block.fetched.down)
        tasks = to_recheck
    return total


def _log_commit(n_blocks: int, result: FillResult) -> None:
    reasons = ", ".join(f"{reason} {n}" for reason, n in result.quarantined.items()) or "none"
    logger.info(
        "committed %d blocks: %d objects stored, %d quarantined (%s), %d requests",
        n_blocks,
        result.n_stored,
        result.n_quarantined,
        reasons,
        result.n_requests,
    )


def _set_aside_repeats(
    path: str, finished: Sequence[FilledBlock], source: CutoutSource, executor: Executor
) -> list[FilledBlock]:
    """Set aside images that turned out to be repeats after their block was finished.

    A worker may receive an image that a cache repeats before the worker of its owner has reported it.
    """
    images = [image for block in finished for image in block.fetched.images]
    repeats = iter(executor.find_repeats(source.service.base_url, images) if images else ())
    checked = []
    for block in finished:
        is_repeat = np.array([next(repeats) for _ in block.fetched.images], dtype=bool)
        if not is_repeat.any():
            checked.append(block)
            continue
        repeated = block.fetched.select(is_repeat).responses
        to_recheck = tuple((response.row, response.attempts) for response in repeated)
        fetched = block.fetched.select(~is_repeat)
        checked.append(write_block(path, replace(fetched, to_recheck=(*fetched.to_recheck, *to_recheck))))
    return checked


def _finished_blocks(
    path: str,
    tasks: Sequence[BlockTask],
    source: CutoutSource,
    executor: Executor,
    service_state: ServiceState,
    blocks_per_commit: int,
    on_block: Callable[[FillResult], None],
) -> Iterator[list[FilledBlock]]:
    """Yield finished blocks in commit groups; further blocks run while the caller commits a group."""
    # recheck one block at a time: two at once could receive each other's images again
    n_at_once = 1 if any(task.to_recheck for task in tasks) else executor.n_threads * TASKS_PER_THREAD
    group: list[FilledBlock] = []
    last_s = time.monotonic()
    results = run_bounded(executor, fill_block, tasks, n_at_once, path=path, source=source, service_state=service_state)
    with closing(results):
        for block in results:
            group.append(block)
            on_block(block.count())
            if block.fetched.down:
                break
            if len(group) >= blocks_per_commit or time.monotonic() - last_s > COMMIT_EVERY_S:
                yield group
                group, last_s = [], time.monotonic()
    if group:
        yield group


def fill_block(task: BlockTask, *, path: str, source: CutoutSource, service_state: ServiceState) -> FilledBlock:
    """Fetch, decode, average and write the open rows of one block; safe to repeat."""
    return write_block(path, fetch_block(open_cube(path), task, source, service_state))
