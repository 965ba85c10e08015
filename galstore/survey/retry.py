"""Retries and circuit breaker of a client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from galstore.survey.rate_limit import RateLimiter
from galstore.survey.responses import CutoutRequest, CutoutResponse, TransientError
from schemas.cutouts import DOWN_REASONS, Reason

MAX_WAIT_S = 60.0
"""Longest wait before a retry, also if Retry-After asks for more."""

LONG_PAUSE_S = 10.0
"""A pause from here on is a warning; shorter ones are a service's normal throttling."""

SendRequest = Callable[[CutoutRequest], Awaitable[CutoutResponse]]
"""Function that sends one request once; it raises TransientError if a retry may help."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limits on the load that a run puts on a service.

    The rate holds for the whole run, including retries. Concurrency counts the requests of this process, without the
    objects that wait for a retry. `read_timeout_s` limits the whole response, from the connection on. No retry starts
    later than `retry_budget_s` after the first request for the object. `breaker_failures` failures in a row open the
    circuit breaker.
    """

    requests_per_second: float
    concurrency: int
    connect_timeout_s: float
    read_timeout_s: float
    attempts: int
    retry_budget_s: float
    breaker_failures: int


class RetryLoop:
    """Retries for the requests of one call, which share the rate limit, the pauses and the circuit breaker."""

    def __init__(self, send: SendRequest, request_limits: RequestLimits, rate_limiter: RateLimiter) -> None:
        self._send = send
        self._request_limits = request_limits
        self._rate_limiter = rate_limiter
        self._slots = asyncio.Semaphore(request_limits.concurrency)
        self._breaker = CircuitBreaker(request_limits.breaker_failures)
        self._paused_until_s = 0.0

    async def is_working(self, known_good: CutoutRequest) -> bool:
        """Repeat a request that succeeded before, and return True unless the service fails."""
        await self._slots.acquire()
        _, response = await self._complete(known_good)
        return response.reason not in DOWN_REASONS

    async def run(self, requests: Iterable[CutoutRequest]) -> AsyncGenerator[tuple[CutoutRequest, CutoutResponse]]:
        """Yield every request with its final response, in the order of completion."""
        finished: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        running: set[asyncio.Task[tuple[CutoutRequest, CutoutResponse]]] = set()

        async def start_all() -> int:
            n_started = 0
            for n_started, request in enumerate(requests, start=1):  # noqa: B007 - the last value is returned
                await self._breaker.wait_to_start()
                # take the slot here and pass it on, so that retries compete with one new object, not with all
                await self._slots.acquire()
                task = asyncio.create_task(self._complete(request))
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(finished.put_nowait)
            return n_started

        starting = asyncio.create_task(start_all())
        starting.add_done_callback(finished.put_nowait)
        n_started: int | None = None
        n_finished = 0
        try:
            while n_started is None or n_finished < n_started:
                task = await finished.get()
                if task is starting:
                    n_started = task.result()
                    continue
                n_finished += 1
                yield task.result()
        finally:
            tasks = [starting, *running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _complete(self, request: CutoutRequest) -> tuple[CutoutRequest, CutoutResponse]:
        """Send a request until its response is final; the caller has taken the slot of the first attempt."""
        n_attempts, first_s = 0, 0.0

        async def attempt() -> CutoutResponse:
            nonlocal n_attempts, first_s
            if n_attempts:
                await self._slots.acquire()
            try:
                await self._wait_for_rate_limit()
                n_attempts += 1
                first_s = first_s or time.monotonic()
                return await self._send_once(request)
            finally:
                self._slots.release()

        def is_exhausted(state: RetryCallState) -> bool:
            next_s = time.monotonic() - first_s + state.upcoming_sleep
            return n_attempts >= self._request_limits.attempts or next_s > self._request_limits.retry_budget_s

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError), stop=is_exhausted, wait=_retry_wait_s, reraise=True
        )
        try:
            response: CutoutResponse = await retrying(attempt)
        except TransientError as error:
            response = error.response
        return request, response if n_attempts == 1 else replace(response, attempts=n_attempts)

    async def _wait_for_rate_limit(self) -> None:
        await self._rate_limiter.acquire()
        while (pause_s := self._paused_until_s - time.monotonic()) > 0:
            await asyncio.sleep(pause_s)
            await self._rate_limiter.acquire()

    async def _send_once(self, request: CutoutRequest) -> CutoutResponse:
        try:
            response = await self._send(request)
        except TransientError as error:
            self._breaker.record(error.response.reason)
            if error.pauses_all and error.wait_s is not None:
                self._pause(error.wait_s, error.response.http_status)
            raise
        self._breaker.record(response.reason)
        return response

    def _pause(self, wait_s: float, http_status: int) -> None:
        now_s, wait_s = time.monotonic(), min(MAX_WAIT_S, wait_s)
        # concurrent requests get nearly the same answer; one message is enough
        if wait_s and now_s + wait_s > self._paused_until_s + 1:
            level = logging.WARNING if wait_s >= LONG_PAUSE_S else logging.INFO
            logger.log(level, "pause all requests for %.0f s (status %d with Retry-After)", wait_s, http_status)
        self._paused_until_s = max(self._paused_until_s, now_s + wait_s)


class CircuitBreaker:
    """Circuit breaker that stops new objects after `n_failures` failed requests in a row.

    While it is open, an equal number of objects may still start, because the client reports an outage after this number
    of failed objects. The service then gets their retries, not a first attempt for every object of the survey.
    """

    def __init__(self, n_failures: int) -> None:
        self._n_failures = n_failures
        self._n_failed = 0
        self._n_started = 0
        self._closed = asyncio.Event()

    def record(self, reason: Reason) -> None:
        """Record the result of an attempt; a response from a working service closes the breaker."""
        if reason in DOWN_REASONS:
            self._n_failed += 1
            if self._n_failed == self._n_failures:
                logger.warning(
                    "circuit breaker open: %d requests in a row failed, last %s", self._n_failed, reason.name
                )
            return
        if self._n_failed >= self._n_failures:
            logger.info("circuit breaker closed: the service responds again")
        self._n_failed = self._n_started = 0
        self._closed.set()

    async def wait_to_start(self) -> None:
        """Wait until another object may start."""
        while self._n_failed >= self._n_failures and self._n_started >= self._n_failures:
            self._closed.clear()
            await self._closed.wait()
        self._n_started += 1


_BACKOFF = wait_random_exponential(multiplier=0.25, max=MAX_WAIT_S)


def _retry_wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    retry_after_s = error.wait_s if isinstance(error, TransientError) else None
    return min(MAX_WAIT_S, max(retry_after_s or 0.0, _BACKOFF(state)))
