"""Complete fetch of a list of requests, with repeated images detected and rechecked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Self

from galstore.survey.client import fetch_cutouts
from galstore.survey.rate_limit import RateLimiter
from galstore.survey.repeated_bodies import NO_IMAGE, ReceivedImage, RepeatDetector, local_repeat_detector
from galstore.survey.responses import CutoutRequest, CutoutResponse
from galstore.survey.retry import RequestLimits
from schemas.cutouts import DOWN_REASONS, Reason
from schemas.errors import ServiceDownError

REPORT_INTERVAL_S = 0.05
"""Between two messages to the repeat detector: a message costs as much as several requests."""

MIN_RECHECKS = 2
"""An image belongs to its object if it comes twice in a row, with another object's image in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Result of a list of requests.

    Attributes
    ----------
    responses
        Final responses, ordered by row.
    to_recheck
        Row and number of requests so far, for objects that share their image: input of `recheck_cutouts`.
    n_extra_requests
        Number of requests for other objects.
    down
        Error of the circuit breaker. Only then are there requests in neither list.
    """

    responses: tuple[CutoutResponse, ...]
    to_recheck: tuple[tuple[int, int], ...] = ()
    n_extra_requests: int = 0
    down: ServiceDownError | None = None


async def collect_cutouts(
    requests: Sequence[CutoutRequest],
    request_limits: RequestLimits,
    rate_limiter: RateLimiter | None = None,
    repeat_detector: RepeatDetector | None = None,
    *,
    known_good: CutoutRequest | None = None,
) -> Collected:
    """Fetch cutouts to the end, and set aside images that another request received too: a cache may be stuck.

    Parameters are those of `fetch_cutouts`, and a detector with the images of the run's other calls. Requests with the
    same parameters may have the same image.
    """
    repeat_detector = repeat_detector or local_repeat_detector()
    by_row = {request.row: request for request in requests}
    received: dict[int, CutoutResponse] = {}
    down = None
    async with _ImageReporter(repeat_detector) as reporter:
        try:
            async for response in fetch_cutouts(requests, request_limits, rate_limiter, known_good=known_good):
                received[response.row] = response
                reporter.report(ReceivedImage(by_row[response.row].query, response.digest))
                if response.reason not in DOWN_REASONS:
                    known_good = by_row[response.row]
        except ServiceDownError as error:
            down = error
    rows = sorted(row for row, response in received.items() if response.digest)
    images = [ReceivedImage(by_row[row].query, received[row].digest) for row in rows]
    repeats = await repeat_detector(images)
    repeated = [received.pop(row) for row, is_repeat in zip(rows, repeats, strict=True) if is_repeat]
    return Collected(
        responses=tuple(received[row] for row in sorted(received)),
        to_recheck=tuple((response.row, response.attempts) for response in repeated),
        down=down,
    )


async def recheck_cutouts(
    requests: Sequence[CutoutRequest],
    others: Sequence[CutoutRequest],
    request_limits: RequestLimits,
    rate_limiter: RateLimiter | None = None,
    repeat_detector: RepeatDetector | None = None,
) -> Collected:
    """Find the owners of shared images; only one recheck may run at a time.

    Objects are requested one after the other, past all caches. Each request follows a request for one of `others`,
    objects with undisputed images, so that a cache which repeats its last response repeats that image. An image that
    comes twice in a row belongs to the object. An object without one within `attempts` requests (at least three) gets
    REPEATED_BODY. So do all objects that receive the same image in this way.
    """
    recheck = _Recheck(
        known_good=others[0] if others else None,
        others=cycle(others),
        request_limits=request_limits,
        rate_limiter=rate_limiter or RateLimiter(request_limits.requests_per_second),
        repeat_detector=repeat_detector or local_repeat_detector(),
    )
    return await recheck.run(requests)


class _ImageReporter:
    """Batched reports of received images to the repeat detector, while further requests are running.

    A cache repeats images that are seconds old or less. If a block were reported only at its end, the repeat detector
    would often see the repeat first, and the owner's image only after the other block is stored.
    """

    def __init__(self, repeat_detector: RepeatDetector) -> None:
        self._repeat_detector = repeat_detector
        self._waiting: list[ReceivedImage] = []
        self._sending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def report(self, image: ReceivedImage) -> None:
        if image.digest != NO_IMAGE:
            self._waiting.append(image)
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            images, self._waiting = self._waiting, []
            await self._repeat_detector(images)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), REPORT_INTERVAL_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._sending is None:
            return
        if error is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        else:
            self._closing.set()
            await self._sending


@dataclass(slots=True, kw_only=True)
class _Recheck:
    """Recheck of objects, one after the other, each time after an object with an undisputed image."""

    known_good: CutoutRequest | None
    others: Iterator[CutoutRequest]
    request_limits: RequestLimits
    rate_limiter: RateLimiter
    repeat_detector: RepeatDetector
    n_attempts: Counter[int] = field(default_factory=Counter)
    n_extra_requests: int = 0

    async def run(self, requests: Sequence[CutoutRequest]) -> Collected:
        down, responses = None, list[CutoutResponse]()
        for request in requests:
            try:
                responses.append(await self._recheck(request))
            except ServiceDownError as error:
                down = error
                break
        # a conflict is found with the later of the two objects, so check all of them once more
        images = [
            ReceivedImage(request.query, response.digest, response.confirmed)
            for request, response in zip(requests, responses, strict=False)
        ]
        repeats = await self.repeat_detector(images)
        return Collected(
            responses=tuple(
                replace(_as_repeated(response) if is_repeat else response, attempts=self.n_attempts[response.row])
                for response, is_repeat in zip(responses, repeats, strict=True)
            ),
            n_extra_requests=self.n_extra_requests,
            down=down,
        )

    async def _recheck(self, request: CutoutRequest) -> CutoutResponse:
        previous = NO_IMAGE
        for _ in range(max(MIN_RECHECKS, self.request_limits.attempts - 1)):
            other = await self._fetch_other()
            response = await self._fetch(request)
            self.n_attempts[request.row] += response.attempts
            if response.reason is not Reason.NONE:
                return response
            if response.digest == previous != other:
                image = ReceivedImage(request.query, previous, confirmed=True)
                (is_repeat,) = await self.repeat_detector([image])
                return _as_repeated(response) if is_repeat else replace(response, confirmed=True)
            previous = response.digest if response.digest != other else NO_IMAGE
        return _as_repeated(response)

    async def _fetch_other(self) -> bytes:
        request = next(self.others, None)
        if request is None:
            return NO_IMAGE
        response = await self._fetch(request)
        self.n_extra_requests += response.attempts
        return response.digest

    async def _fetch(self, request: CutoutRequest) -> CutoutResponse:
        # the service ignores unknown parameters, while a cache takes the address for a new page
        params = {**request.params, "_": str(time.time_ns())}
        uncached = replace(request, params=params, headers={**request.headers, "Cache-Control": "no-cache"})
        stream = fetch_cutouts([uncached], self.request_limits, self.rate_limiter, known_good=self.known_good)
        (response,) = [response async for response in stream]
        return response


def _as_repeated(response: CutoutResponse) -> CutoutResponse:
    return CutoutResponse(
        row=response.row, reason=Reason.REPEATED_BODY, http_status=200, attempts=0, refused=response.body
    )
