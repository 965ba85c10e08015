"""Parallel execution of tasks on Dask workers or in threads, with the survey state that the tasks share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol, Self, TypeVar

import distributed
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.comm import CommClosedError

from galstore.survey.repeated_bodies import ReceivedImage
from galstore.survey.service_state import (
    DaskServiceState,
    ServiceRecords,
    ServiceState,
    SharedServicePlugin,
    ThreadServiceState,
    find_repeats,
)
from schemas.errors import ServiceError

TASKS_PER_THREAD = 2
"""Tasks submitted per worker thread: the next one waits at the worker when one ends."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Executor(Protocol):
    """Pool of workers. `DaskExecutor` and `ThreadExecutor` implement it."""

    @property
    def n_threads(self) -> int:
        """Number of threads of all workers."""

    def submit(self, function: Callable[..., object], *arguments: object, **keywords: object) -> Future[Any]:
        """Start a task, which must be safe to repeat. Dask's future has the interface of Python's."""

    def share_service_state(self) -> ServiceState:
        """Return the state that tasks of this executor share."""

    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        """Return which images are repeats by now, see `RecentDigests`; for use outside of tasks."""


def run_bounded(
    executor: Executor, function: Callable[..., _Result], items: Iterable[_Item], n_at_once: int, **keywords: object
) -> Generator[_Result]:
    """Run `function(item, **keywords)` for each item and yield the results in order of completion.

    Items are consumed in the calling thread, with at most `n_at_once` unfinished tasks. An error of a task is raised in
    place of its result. When the caller stops early, unfinished tasks are cancelled.

    Examples
    --------
    >>> with ThreadExecutor(2) as executor:
    ...     sorted(run_bounded(executor, abs, [-3, 2, -1], 2))
    [1, 2, 3]
    """
    queue = iter(items)
    unfinished: set[Future[Any]] = set()
    finished: SimpleQueue[Future[Any]] = SimpleQueue()

    def submit_next(n: int) -> None:
        for item in islice(queue, n):
            future = executor.submit(function, item, **keywords)
            unfinished.add(future)
            future.add_done_callback(finished.put)

    with scheduler_errors():
        try:
            submit_next(n_at_once)
            while unfinished:
                future = finished.get()
                unfinished.discard(future)
                result = future.result()
                submit_next(1)
                yield result
        finally:
            for future in unfinished:
                future.cancel()


@contextmanager
def scheduler_errors() -> Iterator[None]:
    """Convert errors of Dask's client without a scheduler to `ServiceError`."""
    try:
        yield
    except (FutureCancelledError, ClosedClientError, CommClosedError) as error:
        raise ServiceError(
            "Dask's scheduler is gone: committed results are safe; run the same command again to resume from there"
        ) from error


class DaskExecutor:
    """Executor of a Dask client. A task that fails is retried; the scheduler keeps the shared state."""

    def __init__(self, client: distributed.Client, *, retries: int = 2) -> None:
        self._client = client
        self._retries = retries

    @property
    def n_threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return max(1, sum(int(worker["nthreads"]) for worker in workers.values()))

    def submit(self, function: Callable[..., object], *arguments: object, **keywords: object) -> Future[Any]:
        submitted: Future[Any] = self._client.submit(
            _run_on_worker, function, *arguments, pure=False, retries=self._retries, **keywords
        )
        return submitted

    @scheduler_errors()
    def share_service_state(self) -> ServiceState:
        self._client.register_plugin(SharedServicePlugin())
        return DaskServiceState()

    @scheduler_errors()
    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        return find_repeats(self._client, service, images)


def _run_on_worker(function: Callable[..., _Result], *arguments: object, **keywords: object) -> _Result:
    _freeze_imports()
    return function(*arguments, **keywords)


@cache
def _freeze_imports() -> None:
    """Exclude imported modules from garbage collection, which would otherwise visit them with every task."""
    gc.freeze()


class ThreadExecutor:
    """Executor with threads of this process, and with the shared state in its memory."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._pool = ThreadPoolExecutor(n_threads)
        self._records = ServiceRecords()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., object], *arguments: object, **keywords: object) -> Future[Any]:
        return self._pool.submit(function, *arguments, **keywords)

    def share_service_state(self) -> ServiceState:
        return ThreadServiceState(self._records)

    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        return self._records.find_repeats(service, images)
