"""Conversation: the requests of one call, which share the rate, pauses and what they learn of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from galstore.survey.rate_limit import Pacer
from galstore.survey.responses import CutoutRequest, Delivery, PassingError, ask_once
from schemas.cutouts import DOWN_REASONS, Reason

LONGEST_WAIT_S = 60.0
"""Longest wait before a retry, also where Retry-After asks for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Politeness:
    """How hard a run may press the service, and when it gives up.

    Parameters
    ----------
    requests_per_second
        Of the whole run, retries too; whoever hands out the turns (`Pacer`) keeps it.
    concurrency
        Requests under way at the same time, of this process. An object that waits for its retry is not under way.
    connect_timeout_s
        Until there is a connection.
    read_timeout_s
        From then until the whole answer is there.
    attempts
        Requests for one object, at most.
    retry_budget_s
        No retry starts later than this after an object's first request.
    breaker_failures
        So many objects that fail in a row stop the run.
    """

    requests_per_second: float
    concurrency: int
    connect_timeout_s: float
    read_timeout_s: float
    attempts: int
    retry_budget_s: float
    breaker_failures: int


class Conversation:
    """The requests of one call: they share the slots, the rate, and the pauses that the service asks for."""

    def __init__(self, http: aiohttp.ClientSession, politeness: Politeness, pacer: Pacer) -> None:
        self._http = http
        self._politeness = politeness
        self._pacer = pacer
        self._slots = asyncio.Semaphore(politeness.concurrency)
        self._gate = _Gate(politeness.breaker_failures)
        self._not_before_s = 0.0

    async def works_for(self, known_good: CutoutRequest) -> bool:
        """Ask for an object that was answered well before, and say whether it still is."""
        await self._slots.acquire()
        _, delivery = await self._settle(known_good)
        return delivery.reason not in DOWN_REASONS

    async def settle_all(self, requests: Iterable[CutoutRequest]) -> AsyncGenerator[tuple[CutoutRequest, Delivery]]:
        """Every request with its delivery, in the order in which they settle."""
        finished: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        under_way: set[asyncio.Task[Any]] = set()

        async def start_all() -> int:
            n_started = 0
            for n_started, request in enumerate(requests, start=1):  # noqa: B007 - the last one is the answer
                await self._gate.wait_to_start()
                # the slot is taken here and passed on, so that retries queue with one new object, not with all
                await self._slots.acquire()
                task = asyncio.create_task(self._settle(request))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(finished.put_nowait)
            return n_started

        starting = asyncio.create_task(start_all())
        starting.add_done_callback(finished.put_nowait)
        n_left: int | None = None
        n_settled = 0
        try:
            while n_left is None or n_settled < n_left:
                task = await finished.get()
                if task is starting:
                    n_left = task.result()
                    continue
                n_settled += 1
                yield task.result()
        finally:
            tasks = [starting, *under_way]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, request: CutoutRequest) -> tuple[CutoutRequest, Delivery]:
        """Ask until there is an image or a lasting reason; the first attempt uses a slot that the caller took."""
        n_attempts, first_s = 0, 0.0

        async def attempt() -> Delivery:
            nonlocal n_attempts, first_s
            if n_attempts:
                await self._slots.acquire()
            try:
                await self._wait_for_turn()
                n_attempts += 1
                first_s = first_s or time.monotonic()
                return await self._ask(request)
            finally:
                self._slots.release()

        def enough(state: RetryCallState) -> bool:
            next_s = time.monotonic() - first_s + state.upcoming_sleep
            return n_attempts >= self._politeness.attempts or next_s > self._politeness.retry_budget_s

        try:
            delivery = await attempt()
        except PassingError as failure:
            delivery = await self._settle_after(failure, attempt, enough)
        return request, delivery if n_attempts == 1 else replace(delivery, attempts=n_attempts)

    async def _settle_after(
        self,
        failure: PassingError,
        attempt: Callable[[], Awaitable[Delivery]],
        enough: Callable[[RetryCallState], bool],
    ) -> Delivery:
        """Ask again, after the first attempt failed; most objects never get here, and so spend no time on it."""
        failed: list[PassingError] = [failure]

        async def again() -> Delivery:
            if failed:
                raise failed.pop()
            return await attempt()

        retrying = AsyncRetrying(retry=retry_if_exception_type(PassingError), stop=enough, wait=_wait, reraise=True)
        try:
            delivery: Delivery = await retrying(again)
        except PassingError as last:
            return last.delivery
        return delivery

    async def _wait_for_turn(self) -> None:
        await self._pacer.turn()
        while (pause_s := self._not_before_s - time.monotonic()) > 0:
            await asyncio.sleep(pause_s)
            await self._pacer.turn()

    async def _ask(self, request: CutoutRequest) -> Delivery:
        try:
            delivery = await ask_once(self._http, request)
        except PassingError as failure:
            self._gate.note(failure.delivery.reason)
            if failure.for_all and failure.wait_s is not None:
                self._not_before_s = max(self._not_before_s, time.monotonic() + min(LONGEST_WAIT_S, failure.wait_s))
            raise
        self._gate.note(delivery.reason)
        return delivery


class _Gate:
    """Lets objects begin, and closes while attempts fail in a row.

    Parameters
    ----------
    n_failures
        So many failed attempts in a row close it. So many objects may begin all the same, since it takes as many that
        fail to call the service down: it gets their retries, not the first attempts of the whole survey.
    """

    def __init__(self, n_failures: int) -> None:
        self._n_failures = n_failures
        self._n_failed = 0
        self._n_begun = 0
        self._opened = asyncio.Event()

    def note(self, reason: Reason) -> None:
        """Note how an attempt ended; an answer from a working service opens the gate."""
        if reason in DOWN_REASONS:
            self._n_failed += 1
            return
        self._n_failed = self._n_begun = 0
        self._opened.set()

    async def wait_to_start(self) -> None:
        """Return when another object may begin."""
        while self._n_failed >= self._n_failures and self._n_begun >= self._n_failures:
            self._opened.clear()
            await self._opened.wait()
        self._n_begun += 1


_BACKOFF = wait_random_exponential(multiplier=0.25, max=LONGEST_WAIT_S)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.wait_s if isinstance(error, PassingError) else None
    return min(LONGEST_WAIT_S, max(asked_s or 0.0, _BACKOFF(state)))
