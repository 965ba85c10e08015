"""Scoring on Dask workers: each holds the network once, reads blocks of the cube itself, and hands back predictions."""

from __future__ import annotations

import os
import pickle
import re
import threading
import warnings
from collections.abc import Generator, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import distributed

from flows.engine.scoring import Describe, Piece, Rows, ScoredRows, describe_block
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.fill import scheduler_errors
from schemas.errors import ServiceError

if TYPE_CHECKING:
    from modeling.scoring.scorer import Scorer

TASKS_PER_THREAD = 2
"""Blocks under way for each thread of a worker: the next one waits at the worker when one is done."""

THREADS_PER_WORKER = 2
"""One reads a block while the network has the other's."""


class HeldScorer:
    """A scorer on its way to workers, as bytes; each worker makes a network of them once, with its first block.

    Parameters
    ----------
    pickled
        Of a `Scorer`: made and read by processes of one run, and never kept.
    n_threads
        Of torch in each worker; 0 = torch's own choice.
    """

    def __init__(self, pickled: bytes, n_threads: int = 0) -> None:
        self._pickled = pickled
        self._n_threads = n_threads
        self._scorer: Scorer | None = None
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # the network may be on a GPU by now: what goes on to another worker are the bytes
        return HeldScorer, (self._pickled, self._n_threads)

    def __sizeof__(self) -> int:
        return len(self._pickled)

    def score(self, path: str, snapshot_id: str, block: int, rows: Rows) -> ScoredRows:
        """Read some rows of a block and score them; one thread at a time has the network, others read meanwhile."""
        with self._turn:
            if self._scorer is None:
                self._scorer = self._load()
            scorer = self._scorer
        piece = Piece(block=block, rows=rows, cube=_cube_at(path, snapshot_id))
        pixels = piece.cube.read_pixels(scorer.level, rows)
        with self._turn:
            _use_own_gpu()
            prediction = scorer.predict(pixels)
        return describe_block(scorer, piece, pixels, prediction)

    def _load(self) -> Scorer:
        import torch

        if self._n_threads:
            torch.set_num_threads(self._n_threads)
        scorer: Scorer = pickle.loads(self._pickled)  # noqa: S301 - of our own run, by Dask's own way
        return scorer


def score_block(held: HeldScorer, path: str, snapshot_id: str, block: int, rows: Rows) -> ScoredRows:
    """A worker's task. It writes nothing, and may be repeated."""
    return held.score(path, snapshot_id, block, rows)


def score_on_workers(
    scorer: Scorer, client: distributed.Client, pieces: Iterable[Piece], *, is_own_cluster: bool
) -> Generator[Describe]:
    """Score on a client's workers, at most `TASKS_PER_THREAD` blocks for each of their threads at a time.

    Parameters
    ----------
    scorer
        Sent to the workers once.
    client
        Of workers that have galstore and torch installed and reach the cube. What a worker that dies was doing is done
        by another one.
    pieces
        Taken in the calling thread.
    is_own_cluster
        The workers share this machine's cores, and torch takes an equal part of them in each.

    Raises
    ------
    ServiceError
        The scheduler is gone, or a block ended several workers. What was committed stands.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    n_at_once = max(1, sum(worker["nthreads"] for worker in workers.values())) * TASKS_PER_THREAD
    n_threads = max(1, (os.cpu_count() or 1) // max(1, len(workers))) if is_own_cluster else 0
    under_way, futures = distributed.as_completed(), {}
    queue = iter(pieces)
    with scheduler_errors():
        # a task, and no data: where the last worker that has it dies, it is made again from its arguments
        with warnings.catch_warnings():
            # tens of megabytes in the task graph, once: that is meant
            warnings.filterwarnings("ignore", message="Sending large graph")
            held = client.submit(HeldScorer, pickle.dumps(scorer), n_threads, pure=False)
        client.replicate([held])

        def start_next() -> None:
            piece = next(queue, None)
            if piece is not None:
                future = client.submit(
                    score_block, held, piece.cube.path, piece.cube.snapshot_id, piece.block, piece.rows, pure=False
                )
                futures[future] = piece
                under_way.add(future)

        try:
            for _ in range(n_at_once):
                start_next()
            for future in under_way:
                piece = futures.pop(future)
                try:
                    scored = future.result()
                except distributed.KilledWorker as error:
                    raise ServiceError(
                        f"workers died one after the other while they scored rows {piece.rows[0]}-{piece.rows[-1]} "
                        "(is their memory enough for the network and a block of images?): run the same command again "
                        "to go on from the last commit"
                    ) from error
                start_next()
                yield partial(_described_already, scored)
        finally:
            client.cancel(list(futures))


def _described_already(scored: ScoredRows) -> ScoredRows:
    return scored


@lru_cache(maxsize=2)
def _cube_at(path: str, snapshot_id: str) -> Cube:
    return open_cube(path, snapshot_id=snapshot_id)


def _use_own_gpu() -> None:
    """Worker k of a machine uses GPU k mod n, by the number at the end of its name or else of its address."""
    import torch

    n_gpus = torch.cuda.device_count()
    if n_gpus > 1:
        # torch keeps the current GPU for each thread
        torch.cuda.set_device(worker_number(str(distributed.get_worker().name)) % n_gpus)


def worker_number(name: str) -> int:
    """The number at the end of a worker's name: Dask's own clusters count from 0; 0 where there is none.

    Examples
    --------
    >>> worker_number("3"), worker_number("scoring-12"), worker_number("tcp://10.0.0.7:40001"), worker_number("alone")
    (3, 12, 40001, 0)
    """
    found = re.search(r"\d+$", name)
    return int(found.group()) if found else 0
