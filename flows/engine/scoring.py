"""Scoring of a cube: blocks are claimed, read, scored here or on Dask workers, and committed in groups.

In this process, threads read blocks ahead of the network, and one thread behind it computes the prediction columns and
commits, so that the network never waits for the cube.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from flows.engine.claims import BlockClaims, LatestCube, still_unscored
from flows.runtime import ProgressBar
from galstore.cube.arrays import Attributes, Values
from galstore.cube.predictions import read_object_columns, write_predictions
from galstore.cube.reader import Cube
from galstore.parallel import map_ahead
from schemas.catalog import COLUMN
from schemas.cube import BLOCK_ROWS

if TYPE_CHECKING:
    from modeling.scoring.predict import Prediction
    from modeling.scoring.scorer import Scorer

COMMIT_EVERY_S = 60.0
"""Maximum time between commits, so that a kill costs a minute and the unfinished blocks."""

READ_AHEAD = 4
"""Maximum number of blocks being read, waiting, or in the network: 200 MB at 128 px."""

READING_THREADS = 2
"""Decoding releases the GIL."""

MAX_UNFINISHED = 3
"""Maximum number of scored blocks that wait for their prediction columns; their pixels are in memory."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringTask:
    """Unscored rows of one claimed block.

    Attributes
    ----------
    block
        Index of the block.
    cube
        Snapshot without predictions of these rows.
    """

    block: int
    rows: Rows
    cube: Cube


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBlock:
    """Predictions of rows of one block.

    Attributes
    ----------
    values
        Arrays of shape (row,) by name of the prediction column.
    embeddings
        (row, feature).
    """

    block: int
    rows: Rows
    values: Mapping[str, Values]
    embeddings: npt.NDArray[np.float32]


FinishBlock = Callable[[], ScoredBlock]
"""Computes the prediction columns of a block after the network."""

Engine = Callable[[Iterable[ScoringTask]], Generator[FinishBlock]]
"""Scores tasks in any order."""


def score_blocks(
    path: str,
    predictions_id: str,
    rows: Rows,
    engine: Engine,
    *,
    attributes: Attributes,
    blocks_per_commit: int,
    progress: ProgressBar,
) -> int:
    """Score rows of a cube; when it returns, all rows are scored, by this run or by another.

    Parameters
    ----------
    path
        Path of the cube.
    predictions_id
        Id of the model or the ensemble.
    rows
        Rows with stored cutouts, ascending and unique. Rows that another run is scoring are waited for; a block of a
        killed run is scored here.
    engine
        Scores blocks.
    attributes
        Stored with the predictions when their group is created.
    blocks_per_commit
        Number of blocks in a commit group.
    progress
        Advances with every scored row, scored here or by another run.

    Returns
    -------
    int
        Number of objects scored by this run.
    """
    n_committed = 0
    rate = _ScoringProgress(progress)

    def commit(group: Sequence[ScoredBlock]) -> None:
        nonlocal n_committed
        _write_group(path, predictions_id, group, attributes)
        claims.release([scored.block for scored in group])
        n_committed += sum(scored.rows.size for scored in group)

    with BlockClaims(path, predictions_id) as claims, Committer(commit, blocks_per_commit) as committer:
        latest, remaining = LatestCube(path), rows_by_block(rows)
        while remaining:
            busy: dict[int, Rows] = {}
            tasks = _claim_tasks(remaining, claims, latest, predictions_id, busy, progress)
            with closing(engine(tasks)) as scored_blocks:
                for finish in scored_blocks:
                    committer.add(partial(rate.finish, finish))
            committer.flush()
            if busy:
                progress.note(f"waiting for another run, which has {len(busy)} blocks")
                claims.wait_for(busy)
            remaining = busy
    return n_committed


def _write_group(path: str, predictions_id: str, group: Sequence[ScoredBlock], attributes: Attributes) -> None:
    write_predictions(
        path,
        predictions_id,
        np.concatenate([scored.rows for scored in group]),
        {name: np.concatenate([scored.values[name] for scored in group]) for name in group[0].values},
        attributes=attributes,
        embeddings=np.concatenate([scored.embeddings for scored in group]),
    )


def rows_by_block(rows: Rows) -> dict[int, Rows]:
    """Group ascending rows by the index of their block."""
    indices, starts = np.unique(rows // BLOCK_ROWS, return_index=True)
    return dict(zip(indices.tolist(), np.split(rows, starts[1:]), strict=True))


def _claim_tasks(
    blocks: Mapping[int, Rows],
    claims: BlockClaims,
    latest: LatestCube,
    predictions_id: str,
    busy: dict[int, Rows],
    progress: ProgressBar,
) -> Iterator[ScoringTask]:
    """Yield a task for each free block with unscored rows; blocks of other runs are added to `busy`."""
    for block in claims.order_blocks(list(blocks)):
        rows = blocks[block]
        if not claims.claim(block):
            busy[block] = rows
            continue
        cube = latest.open()
        unscored = still_unscored(cube, predictions_id, rows)
        progress.advance(rows.size - unscored.size)
        if unscored.size:
            yield ScoringTask(block=block, rows=unscored, cube=cube)
        else:
            claims.release([block])


def score_here(scorer: Scorer, tasks: Iterable[ScoringTask]) -> Generator[FinishBlock]:
    """Score in this process; the next blocks are read while the network works."""
    from threadpoolctl import threadpool_limits

    def read(task: ScoringTask) -> tuple[ScoringTask, Values]:
        return task, task.cube.read_pixels(scorer.level, task.rows)

    # BLAS threads would spin on the cores that the network needs; the matrices of the flags are small
    with threadpool_limits(1, user_api="blas"):
        for task, pixels in map_ahead(read, tasks, n_threads=READING_THREADS, n_ahead=READ_AHEAD):
            yield partial(finish_block, scorer, task, pixels, scorer.predict(pixels))


def finish_block(scorer: Scorer, task: ScoringTask, pixels: Values, prediction: Prediction) -> ScoredBlock:
    """Compute the prediction columns of a block: intervals and flags."""
    from modeling.outliers.catalog_consistency import COMPARED_COLUMNS
    from modeling.scoring.prediction_columns import prediction_columns

    catalog = read_object_columns(task.cube, task.rows, COMPARED_COLUMNS)
    values = prediction_columns(scorer.members, prediction, pixels, catalog)
    return ScoredBlock(block=task.block, rows=task.rows, values=values, embeddings=prediction.embedding)


def prediction_attributes(scorer: Scorer) -> Attributes:
    """Return the attributes of a group of predictions: quantity, unit, models and training sets."""
    configs = [member.config for member in scorer.members]
    attributes = {
        "target": configs[0].target,
        "units": COLUMN[configs[0].target].unit,
        "training_set": configs[0].training_set,
        "level": scorer.level,
        "views": scorer.views,
    }
    if len(configs) == 1:
        return attributes
    members = {
        "members": [config.model_id for config in configs],
        "training_sets": [config.training_set for config in configs],
    }
    return attributes | members


class Committer:
    """Thread that finishes scored blocks and commits them in groups.

    On exit, finished blocks are committed too, also after an error.

    Parameters
    ----------
    commit
        Writes a commit group.
    blocks_per_commit
        Number of blocks in a group; a group is smaller after `COMMIT_EVERY_S`.
    """

    def __init__(self, commit: Callable[[Sequence[ScoredBlock]], None], blocks_per_commit: int) -> None:
        self._commit = commit
        self._blocks_per_commit = blocks_per_commit
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._unfinished: deque[Future[None]] = deque()
        self._group: list[ScoredBlock] = []
        self._last_s = time.monotonic()
        self._has_failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._pool.shutdown()

    def add(self, finish: FinishBlock) -> None:
        """Submit a scored block; errors of earlier blocks are raised here."""
        self._unfinished.append(self._pool.submit(self._add, finish))
        while self._unfinished and (len(self._unfinished) > MAX_UNFINISHED or self._unfinished[0].done()):
            self._unfinished.popleft().result()

    def flush(self) -> None:
        """Wait until all submitted blocks are committed."""
        self._unfinished.append(self._pool.submit(self._commit_group))
        while self._unfinished:
            self._unfinished.popleft().result()

    def _add(self, finish: FinishBlock) -> None:
        self._group.append(finish())
        if len(self._group) >= self._blocks_per_commit or time.monotonic() - self._last_s > COMMIT_EVERY_S:
            self._commit_group()

    def _commit_group(self) -> None:
        if self._group and not self._has_failed:
            # after a failed commit, such as on a full disk, a second attempt on exit would hide the cause
            self._has_failed = True
            self._commit(self._group)
            self._has_failed = False
        self._group, self._last_s = [], time.monotonic()


class _ScoringProgress:
    """Advances a progress bar with each finished block and shows the rate."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._started_s = time.monotonic()
        self._n_finished = 0

    def finish(self, finish: FinishBlock) -> ScoredBlock:
        scored = finish()
        self._n_finished += scored.rows.size
        self._progress.advance(scored.rows.size)
        self._progress.note(f"{self._n_finished / (time.monotonic() - self._started_s):,.0f} images/s")
        return scored
