"""Cutouts over HTTP: many at once, politely, each until it is an image or known not to be one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import aiohttp
import numpy as np
import numpy.typing as npt
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from galstore.quality import judge_body
from schemas.cutouts import Reason
from schemas.errors import ServiceError

USER_AGENT = f"galstore/{version('galstore')} (survey ingest; python aiohttp)"

PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Politeness:
    """How hard one process may press the service."""

    requests_per_second: float
    concurrency: int
    timeout_s: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutRequest:
    """One object's cutout: its row in the cube and what to ask for."""

    row: int
    url: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one request.

    `pixels` are counts, shape (128, 128, band), and `body` the delivered bytes, where `reason` is NONE.
    `http_status` is the last one seen, 0 where no answer came.
    """

    row: int
    reason: Reason
    http_status: int
    attempts: int
    body: bytes = b""
    pixels: npt.NDArray[np.uint8] | None = None


class _PassingError(ServiceError):
    """An answer that may be better next time."""

    def __init__(self, delivery: Delivery, *, wait_s: float | None = None) -> None:
        super().__init__(f"{delivery.reason.name} (status {delivery.http_status})")
        self.delivery = delivery
        self.wait_s = wait_s


async def fetch_cutouts(requests: Iterable[CutoutRequest], politeness: Politeness) -> AsyncIterator[Delivery]:
    """Fetch cutouts concurrently; deliveries come in the order in which they finish, one for each request.

    Parameters
    ----------
    requests
        What to ask for.
    politeness
        Limits; `requests_per_second` counts retries too.
    """
    # bursts of a tenth of a second at most: aiolimiter lets a whole period's allowance through at once
    allowance = max(1.0, politeness.requests_per_second / 10)
    limiter = AsyncLimiter(allowance, time_period=allowance / politeness.requests_per_second)
    gate = asyncio.Semaphore(politeness.concurrency)
    timeout = aiohttp.ClientTimeout(total=politeness.timeout_s)
    connector = aiohttp.TCPConnector(limit=politeness.concurrency)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, headers={"User-Agent": USER_AGENT}
    ) as session:

        async def fetch(request: CutoutRequest) -> Delivery:
            async with gate:
                return await _fetch_until_settled(session, limiter, request, politeness.attempts)

        tasks = [asyncio.create_task(fetch(request)) for request in requests]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _fetch_until_settled(
    session: aiohttp.ClientSession, limiter: AsyncLimiter, request: CutoutRequest, attempts: int
) -> Delivery:
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(_PassingError), stop=stop_after_attempt(attempts), wait=_wait, reraise=True
    )
    tried = 0
    try:
        async for attempt in retrying:
            with attempt:
                tried = attempt.retry_state.attempt_number
                async with limiter:
                    delivery = await _fetch_once(session, request)
    except _PassingError as failure:
        delivery = failure.delivery
    return replace(delivery, attempts=tried)


async def _fetch_once(session: aiohttp.ClientSession, request: CutoutRequest) -> Delivery:
    def settled(reason: Reason, status: int) -> Delivery:
        return Delivery(row=request.row, reason=reason, http_status=status, attempts=0)

    try:
        async with session.get(request.url, params=request.params) as response:
            status = response.status
            if status in PASSING_STATUSES:
                wait_s = retry_after_s(response.headers.get("Retry-After"))
                raise _PassingError(settled(Reason.SERVICE_ERROR, status), wait_s=wait_s)
            body = await response.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise _PassingError(settled(Reason.SERVICE_ERROR, 0)) from error
    if status == 404:
        return settled(Reason.OUT_OF_FOOTPRINT, status)
    if status >= 400:
        return settled(Reason.CLIENT_ERROR, status)
    judgement = judge_body(body)
    delivery = replace(settled(judgement.reason, status), body=body, pixels=judgement.pixels)
    if judgement.reason in (Reason.TRUNCATED, Reason.NOT_A_JPEG):
        raise _PassingError(delivery)
    return delivery


def retry_after_s(header: str | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, §10.2.3): a number of seconds or a date; None if neither.

    Examples
    --------
    >>> retry_after_s("3")
    3.0
    >>> retry_after_s("Mon, 23 Nov 2026 08:00:05 GMT", now=lambda: datetime(2026, 11, 23, 8, tzinfo=UTC))
    5.0
    """
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now()).total_seconds())
    except (TypeError, ValueError):
        return None


_BACKOFF = wait_random_exponential(multiplier=0.25, max=LONGEST_WAIT_S)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait_s if isinstance(error, _PassingError) else None
    return min(LONGEST_WAIT_S, max(asked or 0.0, _BACKOFF(state)))
