"""Parallel execution of tasks on Dask workers or in threads, with the survey state that the tasks share."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, Self, TypeVar

import distributed
from distributed.client import ClosedClientError, FutureCancelledError
from distributed.comm import CommClosedError

from galstore.survey.dask_plugin import SharedRateLimiter, SharedRepeatDetector, SharedServicePlugin, find_repeats
from galstore.survey.rate_limit import LeasedRateLimiter, RateLimiter, RequestSlots
from galstore.survey.repeated_bodies import ReceivedImage, RecentDigests, RepeatDetector
from schemas.errors import ServiceError

TASKS_PER_THREAD = 2
"""Tasks submitted per worker thread: the next one waits at the worker when one ends."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class ServiceState(Protocol):
    """Rate limit and repeat detection of survey services, shared by all tasks of a run; an argument of the tasks."""

    def rate_limiter(self, service: str, requests_per_second: float) -> RateLimiter:
        """Return the limiter of the service with this base URL, for use inside one task."""

    def repeat_detector(self, service: str) -> RepeatDetector:
        """Return the repeat detector of the service with this base URL, for use inside one task."""


class TaskFuture(Protocol):
    """Handle of a submitted task."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object:
        """Call `callback` with this future when the task ends, fails or is cancelled."""


class Executor(Protocol):
    """Pool of workers. `DaskExecutor` and `ThreadExecutor` implement it."""

    @property
    def n_threads(self) -> int:
        """Number of threads of all workers."""

    def submit(self, function: Callable[..., object], *arguments: object, **keywords: object) -> TaskFuture:
        """Start a task, which must be safe to repeat."""

    def result(self, future: Any) -> Any:
        """Return the result of a finished task, or raise its error."""

    def cancel(self, futures: Iterable[Any]) -> None:
        """Cancel tasks that have not finished."""

    def share_service_state(self) -> ServiceState:
        """Return the state that tasks of this executor share."""

    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        """Return which images are repeats by now, see `RecentDigests`; for use outside of tasks."""


def run_bounded(
    executor: Executor, function: Callable[..., _Result], items: Iterable[_Item], n_at_once: int, **keywords: object
) -> Generator[_Result]:
    """Run `function(item, **keywords)` for each item and yield the results in order of completion.

    Parameters
    ----------
    items
        Consumed in the calling thread.
    n_at_once
        Maximum number of unfinished tasks.
    keywords
        Further arguments of the function.

    Notes
    -----
    An error of a task is raised in place of its result. When the caller stops early, unfinished tasks are cancelled.

    Examples
    --------
    >>> with ThreadExecutor(2) as executor:
    ...     sorted(run_bounded(executor, abs, [-3, 2, -1], 2))
    [1, 2, 3]
    """
    queue = iter(items)
    unfinished: set[TaskFuture] = set()
    finished: SimpleQueue[TaskFuture] = SimpleQueue()

    def submit_next(n: int) -> None:
        for item in islice(queue, n):
            future = executor.submit(function, item, **keywords)
            unfinished.add(future)
            future.add_done_callback(finished.put)

    try:
        submit_next(n_at_once)
        while unfinished:
            future = finished.get()
            unfinished.discard(future)
            result = executor.result(future)
            submit_next(1)
            yield result
    finally:
        executor.cancel(unfinished)


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
    """Executor of a Dask client. Its scheduler keeps the shared state.

    Parameters
    ----------
    client
        Client of the scheduler.
    retries
        Retries of a task that fails.
    """

    def __init__(self, client: distributed.Client, *, retries: int = 2) -> None:
        self._client = client
        self._retries = retries

    @property
    def n_threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return max(1, sum(int(worker["nthreads"]) for worker in workers.values()))

    @scheduler_errors()
    def submit(self, function: Callable[..., object], *arguments: object, **keywords: object) -> TaskFuture:
        future: TaskFuture = self._client.submit(
            _run_on_worker, function, *arguments, pure=False, retries=self._retries, **keywords
        )
        return future

    @scheduler_errors()
    def result(self, future: distributed.Future) -> Any:
        return future.result()

    @scheduler_errors()
    def cancel(self, futures: Iterable[distributed.Future]) -> None:
        self._client.cancel(list(futures))

    @scheduler_errors()
    def share_service_state(self) -> ServiceState:
        self._client.register_plugin(SharedServicePlugin())
        return DaskServiceState()

    @scheduler_errors()
    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        return find_repeats(self._client, service, images)


class DaskServiceState:
    """Service state kept by the Dask scheduler."""

    def rate_limiter(self, service: str, requests_per_second: float) -> RateLimiter:
        return SharedRateLimiter(service, requests_per_second)

    def repeat_detector(self, service: str) -> RepeatDetector:
        return SharedRepeatDetector(service)


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
        self._n_threads = n_threads
        self._pool = ThreadPoolExecutor(n_threads)
        self._state = ThreadServiceState()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def n_threads(self) -> int:
        return self._n_threads

    def submit(self, function: Callable[..., _Result], *arguments: object, **keywords: object) -> Future[_Result]:
        return self._pool.submit(function, *arguments, **keywords)

    def result(self, future: Future[_Result]) -> _Result:
        return future.result()

    def cancel(self, futures: Iterable[Future[Any]]) -> None:
        for future in futures:
            future.cancel()

    def share_service_state(self) -> ServiceState:
        return self._state

    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        return self._state.find_repeats(service, images)


class ThreadServiceState:
    """Service state of one process. Tasks run in threads with separate event loops."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._slots: defaultdict[str, RequestSlots] = defaultdict(RequestSlots)
        self._digests: defaultdict[str, RecentDigests] = defaultdict(RecentDigests)

    def rate_limiter(self, service: str, requests_per_second: float) -> RateLimiter:
        return _ThreadRateLimiter(self, service, requests_per_second)

    def repeat_detector(self, service: str) -> RepeatDetector:
        return _ThreadRepeatDetector(self, service)

    def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        """Lease n slots and return the seconds until the first."""
        with self._lock:
            return self._slots[service].lease(n, requests_per_second, now_s=time.monotonic())

    def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
        """Record images and return which of them are repeats."""
        with self._lock:
            return self._digests[service].find_repeats(images)


class _ThreadRateLimiter(LeasedRateLimiter):
    def __init__(self, state: ThreadServiceState, service: str, requests_per_second: float) -> None:
        super().__init__(requests_per_second)
        self._state = state
        self._service = service

    async def _lease(self, n: int, requests_per_second: float) -> float:
        return self._state.lease_slots(self._service, n, requests_per_second)


class _ThreadRepeatDetector:
    def __init__(self, state: ThreadServiceState, service: str) -> None:
        self._state = state
        self._service = service

    async def find_repeats(self, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        return self._state.find_repeats(self._service, images)
