"""Scoring a cube: blocks are claimed, read and scored here or by Dask workers, and committed some at a time.

In this process, threads read blocks ahead of the network, and one thread behind it describes and commits what was
scored, so that the network never waits for the cube.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flows.engine.claims import Claims, Tip, still_unscored
from flows.runtime import ProgressBar
from galstore.cube.predictions import read_object_columns, write_predictions
from galstore.cube.reader import Cube
from schemas.catalog import COLUMN
from schemas.cube import BLOCK_ROWS

if TYPE_CHECKING:
    from modeling.scoring.predict import Prediction
    from modeling.scoring.scorer import Scorer

COMMIT_EVERY_S = 60.0
"""A slow network commits at least this often, so that a kill costs a minute and the blocks under way."""

MOST_BEHIND = 3
"""Scored blocks that may wait to be described; their pixels are in memory."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows of one block that this run has claimed, and the snapshot in which they were still unscored."""

    block: int
    """Its index."""
    rows: Rows
    cube: Cube


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """What is written of some rows of a block."""

    block: int
    rows: Rows
    values: dict[str, npt.NDArray[Any]]
    """By name of the column of predictions, (row,)."""
    embeddings: npt.NDArray[np.float32]
    """(row, feature)."""


Describe = Callable[[], ScoredRows]
"""What is left to do of a block when the network is done with it."""

Engine = Callable[[Iterable[Piece]], Generator[Describe]]
"""Scores pieces, in any order."""


def score_blocks(
    path: str,
    predictions_id: str,
    rows: Rows,
    engine: Engine,
    *,
    attributes: Mapping[str, Any],
    blocks_per_commit: int,
    progress: ProgressBar,
) -> int:
    """Score rows of a cube that another run may be scoring too; when it returns, all of them are scored.

    Parameters
    ----------
    path
        Place of the cube.
    predictions_id
        Of the model or the ensemble.
    rows
        Ascending, each once, with stored cutouts. Those that another run scores meanwhile are left to it, and waited
        for; a block that a killed run leaves behind is scored here.
    engine
        Scores.
    attributes
        Kept with the predictions when their group is created.
    blocks_per_commit
        Scored blocks that are committed together.
    progress
        Told of every row that is scored, here or elsewhere.

    Returns
    -------
    int
        Objects that were scored here.
    """
    counter = _Counter(progress)

    def commit(wave: Sequence[ScoredRows]) -> None:
        names = wave[0].values
        write_predictions(
            path,
            predictions_id,
            np.concatenate([one.rows for one in wave]),
            {name: np.concatenate([one.values[name] for one in wave]) for name in names},
            attributes=attributes,
            embeddings=np.concatenate([one.embeddings for one in wave]),
        )
        claims.release([one.block for one in wave])
        counter.committed(sum(one.rows.size for one in wave))

    with Claims(path, predictions_id) as claims, Committer(commit, blocks_per_commit) as committer:
        tip, left = Tip(path), rows_by_block(rows)
        while left:
            busy: dict[int, Rows] = {}
            pieces = _claimed(left, claims, tip, predictions_id, busy, counter)
            with closing(engine(pieces)) as scored:
                for describe in scored:
                    committer.add(describe)
            committer.flush()
            if busy:
                progress.note(f"another run has {len(busy)} blocks: waiting for it")
                claims.wait_for(busy)
            left = busy
    return counter.n_here


def rows_by_block(rows: Rows) -> dict[int, Rows]:
    """Ascending rows by the index of their block."""
    indices, starts = np.unique(rows // BLOCK_ROWS, return_index=True)
    return dict(zip(indices.tolist(), np.split(rows, starts[1:]), strict=True))


def _claimed(
    blocks: Mapping[int, Rows], claims: Claims, tip: Tip, predictions_id: str, busy: dict[int, Rows], counter: _Counter
) -> Iterator[Piece]:
    """The blocks that nobody else has, each with what is unscored of it at the tip; others are put among the busy."""
    for block in claims.in_order(list(blocks)):
        rows = blocks[block]
        if not claims.take(block):
            busy[block] = rows
            continue
        cube = tip.open()
        left = still_unscored(cube, predictions_id, rows)
        counter.scored_elsewhere(rows.size - left.size)
        if left.size:
            yield Piece(block=block, rows=left, cube=cube)
        else:
            claims.release([block])


def score_here(scorer: Scorer, pieces: Iterable[Piece]) -> Generator[Describe]:
    """Score in this process: the next blocks are read while the network has one."""
    from threadpoolctl import threadpool_limits

    from modeling.scoring.scorer import read_ahead

    # the small matrices of the flags: BLAS's threads would wait in loops on the cores that the network has
    with threadpool_limits(1, user_api="blas"):
        for piece, pixels in read_ahead(pieces, lambda piece: piece.cube.read_pixels(scorer.level, piece.rows)):
            yield partial(describe_block, scorer, piece, pixels, scorer.predict(pixels))


def describe_block(scorer: Scorer, piece: Piece, pixels: npt.NDArray[Any], prediction: Prediction) -> ScoredRows:
    """Everything that is written of scored images: error bars and flags too."""
    from modeling.outliers.catalog_consistency import COMPARED_COLUMNS
    from modeling.scoring.prediction_columns import describe

    catalog = read_object_columns(piece.cube, piece.rows, COMPARED_COLUMNS)
    values = describe(scorer.members, prediction, pixels, catalog)
    return ScoredRows(block=piece.block, rows=piece.rows, values=values, embeddings=prediction.embedding)


def attributes_of(scorer: Scorer) -> dict[str, Any]:
    """What is kept with predictions: what they are, and which models and training sets they come from."""
    configs = [member.config for member in scorer.members]
    attributes: dict[str, Any] = {
        "target": scorer.first.config.target,
        "units": COLUMN[scorer.first.config.target].unit,
        "training_set": configs[0].training_set,
        "level": scorer.level,
        "views": scorer.views,
    }
    if len(configs) > 1:
        attributes |= {
            "members": [one.model_id for one in configs],
            "training_sets": [one.training_set for one in configs],
        }
    return attributes


class Committer:
    """One thread behind the network, which describes scored blocks and commits them some at a time.

    What was scored is committed on the way out too, whatever ended the work.

    Parameters
    ----------
    commit
        Writes some blocks.
    blocks_per_commit
        So many at a time, or fewer after `COMMIT_EVERY_S`.
    """

    def __init__(self, commit: Callable[[Sequence[ScoredRows]], None], blocks_per_commit: int) -> None:
        self._commit = commit
        self._blocks_per_commit = blocks_per_commit
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._behind: deque[Future[None]] = deque()
        self._wave: list[ScoredRows] = []
        self._last_s = time.monotonic()
        self._has_failed = False

    def __enter__(self) -> Committer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._pool.shutdown()

    def add(self, describe: Describe) -> None:
        """Hand over a scored block; errors of earlier ones are raised here."""
        self._behind.append(self._pool.submit(self._take, describe))
        while self._behind and (len(self._behind) > MOST_BEHIND or self._behind[0].done()):
            self._behind.popleft().result()

    def flush(self) -> None:
        """Wait until all that was handed over is committed."""
        self._behind.append(self._pool.submit(self._commit_wave))
        while self._behind:
            self._behind.popleft().result()

    def _take(self, describe: Describe) -> None:
        self._wave.append(describe())
        if len(self._wave) >= self._blocks_per_commit or time.monotonic() - self._last_s > COMMIT_EVERY_S:
            self._commit_wave()

    def _commit_wave(self) -> None:
        if self._wave and not self._has_failed:
            # where a commit has failed, as on a full disk, a second try on the way out would hide why
            self._has_failed = True
            self._commit(self._wave)
            self._has_failed = False
        self._wave, self._last_s = [], time.monotonic()


class _Counter:
    """Tells the progress bar how many are done, and how fast."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._started_s = time.monotonic()
        self.n_here = 0

    def committed(self, n: int) -> None:
        self.n_here += n
        self._progress.advance(n)
        self._progress.note(f"{self.n_here / (time.monotonic() - self._started_s):,.0f} images/s")

    def scored_elsewhere(self, n: int) -> None:
        if n:
            self._progress.advance(n)
