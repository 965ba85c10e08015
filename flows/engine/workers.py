"""Scoring on Dask workers: each loads the network once, reads blocks of the cube, and returns predictions."""

from __future__ import annotations

import os
import pickle
import re
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import distributed

from flows.engine.scoring import FinishBlock, Rows, ScoredBlock, ScoringTask, finish_block
from galstore.cube.reader import Cube, open_cube
from galstore.executor import TASKS_PER_THREAD, DaskExecutor, run_bounded, scheduler_errors
from schemas.errors import ServiceError

if TYPE_CHECKING:
    from modeling.scoring.scorer import Scorer

THREADS_PER_WORKER = 2
"""One reads a block while the other uses the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTask:
    """Scoring task in a form that can be sent to a worker."""

    path: str
    snapshot_id: str
    block: int
    rows: Rows


class PickledScorer:
    """Scorer for workers, sent as bytes; each worker loads the networks once, with its first block.

    Parameters
    ----------
    pickled
        Pickled `Scorer`, written and read by processes of one run and never stored.
    n_threads
        Number of torch's threads in each worker; 0 = torch's default.
    """

    def __init__(self, pickled: bytes, n_threads: int = 0) -> None:
        self._pickled = pickled
        self._n_threads = n_threads
        self._scorer: Scorer | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PickledScorer], tuple[bytes, int]]:
        # the network may be on a GPU by now: only the bytes are sent to another worker
        return PickledScorer, (self._pickled, self._n_threads)

    def __sizeof__(self) -> int:
        return len(self._pickled)

    def score(self, task: WorkerTask) -> ScoredBlock:
        """Read rows of a block and score them; one thread at a time uses the network while others read."""
        with self._lock:
            if self._scorer is None:
                self._scorer = self._load()
            scorer = self._scorer
        local_task = ScoringTask(block=task.block, rows=task.rows, cube=_cube_at(task.path, task.snapshot_id))
        pixels = local_task.cube.read_pixels(scorer.level, task.rows)
        with self._lock:
            _choose_gpu()
            prediction = scorer.predict(pixels)
        return finish_block(scorer, local_task, pixels, prediction)

    def _load(self) -> Scorer:
        import torch

        if self._n_threads:
            torch.set_num_threads(self._n_threads)
        scorer: Scorer = pickle.loads(self._pickled)  # noqa: S301 - of this run, as Dask sends all objects
        return scorer


def score_block(task: WorkerTask, *, scorer: PickledScorer) -> ScoredBlock:
    return scorer.score(task)


def score_on_workers(
    scorer: Scorer, client: distributed.Client, tasks: Iterable[ScoringTask], *, is_own_cluster: bool
) -> Generator[FinishBlock]:
    """Score on a client's workers, with at most `TASKS_PER_THREAD` blocks for each of their threads at a time.

    Parameters
    ----------
    scorer
        Sent to the workers once.
    client
        Client of workers that have galstore and torch installed and can read the cube. Tasks of a worker that dies are
        repeated by another one.
    tasks
        Consumed in the calling thread.
    is_own_cluster
        The workers share this machine's cores, and torch uses an equal part of them in each.

    Raises
    ------
    ServiceError
        The scheduler is gone, or one block ended several workers. Committed predictions stay.
    """
    executor = DaskExecutor(client, retries=0)
    sent = _send_scorer(scorer, client, is_own_cluster=is_own_cluster)
    n_at_once = executor.n_threads * TASKS_PER_THREAD
    results = run_bounded(executor, score_block, _worker_tasks(tasks), n_at_once, scorer=sent)
    try:
        with closing(results):
            for scored in results:
                yield partial(_return_finished, scored)
    except distributed.KilledWorker as error:
        raise ServiceError(
            "several workers died while scoring the same block: give them more memory (each holds the network and a "
            "block of images), then run the same command again to resume from the last commit"
        ) from error


@scheduler_errors()
def _send_scorer(scorer: Scorer, client: distributed.Client, *, is_own_cluster: bool) -> distributed.Future:
    n_workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    n_threads = max(1, (os.cpu_count() or 1) // n_workers) if is_own_cluster else 0
    # a task instead of data: if the last worker that holds it dies, Dask computes it again
    with warnings.catch_warnings():
        # tens of megabytes in the task graph, once, are intended
        warnings.filterwarnings("ignore", message="Sending large graph")
        sent = client.submit(PickledScorer, pickle.dumps(scorer), n_threads, pure=False)
    client.replicate([sent])
    return sent


def _worker_tasks(tasks: Iterable[ScoringTask]) -> Iterator[WorkerTask]:
    for task in tasks:
        yield WorkerTask(path=task.cube.path, snapshot_id=task.cube.snapshot_id, block=task.block, rows=task.rows)


def _return_finished(scored: ScoredBlock) -> ScoredBlock:
    return scored


@lru_cache(maxsize=2)
def _cube_at(path: str, snapshot_id: str) -> Cube:
    return open_cube(path, snapshot_id=snapshot_id)


def _choose_gpu() -> None:
    """Use GPU k mod n for worker k of a machine, by the number at the end of its name or else of its address."""
    import torch

    n_gpus = torch.cuda.device_count()
    if n_gpus > 1:
        # torch keeps the current GPU for each thread
        torch.cuda.set_device(worker_number(str(distributed.get_worker().name)) % n_gpus)


def worker_number(name: str) -> int:
    """Return the number at the end of a worker's name, or 0; Dask's own clusters count from 0.

    Examples
    --------
    >>> worker_number("3"), worker_number("scoring-12"), worker_number("tcp://10.0.0.7:40001"), worker_number("alone")
    (3, 12, 40001, 0)
    """
    found = re.search(r"\d+$", name)
    return int(found.group()) if found else 0
