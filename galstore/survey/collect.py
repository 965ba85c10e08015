"""Collecting: some requests to the end, with images that are surely their own, also where a cache is stuck."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from types import TracebackType
from typing import Self

from galstore.survey.client import fetch_cutouts
from galstore.survey.rate_limit import LocalPacer, Pacer
from galstore.survey.repeated_bodies import NO_IMAGE, Claim, LocalWitness, Witness
from galstore.survey.responses import CutoutRequest, Delivery
from galstore.survey.retry import Politeness
from schemas.cutouts import DOWN_REASONS, Reason
from schemas.errors import ServiceDownError

TELL_EVERY_S = 0.05
"""Between two messages to the witness: a message costs as much as several requests."""

LEAST_LOOKS = 2
"""An image counts as a request's own when it comes twice in a row, with another object's between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What became of some requests.

    Attributes
    ----------
    deliveries
        Ordered by row.
    doubted
        Row and requests so far of objects whose image another request got too: `examine_cutouts` settles them.
    n_further
        Requests for objects that are none of these.
    down
        The error that says so, if the breaker opened; only then are there requests that are in neither list.
    """

    deliveries: tuple[Delivery, ...]
    doubted: tuple[tuple[int, int], ...] = ()
    n_further: int = 0
    down: ServiceDownError | None = None


async def collect_cutouts(
    requests: Sequence[CutoutRequest],
    politeness: Politeness,
    pacer: Pacer | None = None,
    witness: Witness | None = None,
    *,
    known_good: CutoutRequest | None = None,
) -> Collected:
    """Fetch cutouts to the end, but for images that another request got too: a cache may be stuck.

    Parameters
    ----------
    requests, politeness, pacer, known_good
        As of `fetch_cutouts`. Requests with the same parameters may well have the same image.
    witness
        Knows the images of the run's other calls; by default there are none.
    """
    witness = witness or LocalWitness()
    keys = {request.row: request.query for request in requests}
    by_row = {request.row: request for request in requests}
    delivered: dict[int, Delivery] = {}
    down = None
    async with _Messenger(witness) as messenger:
        try:
            async for delivery in fetch_cutouts(requests, politeness, pacer, known_good=known_good):
                delivered[delivery.row] = delivery
                messenger.tell(Claim(keys[delivery.row], delivery.digest))
                if delivery.reason not in DOWN_REASONS:
                    known_good = by_row[delivery.row]
        except ServiceDownError as error:
            down = error
    rows = sorted(row for row, one in delivered.items() if one.digest)
    doubtful = await witness.seen_elsewhere([Claim(keys[row], delivered[row].digest) for row in rows])
    doubted = [delivered.pop(row) for row, doubt in zip(rows, doubtful, strict=True) if doubt]
    return Collected(
        deliveries=tuple(delivered[row] for row in sorted(delivered)),
        doubted=tuple((one.row, one.attempts) for one in doubted),
        down=down,
    )


async def examine_cutouts(
    requests: Sequence[CutoutRequest],
    others: Sequence[CutoutRequest],
    politeness: Politeness,
    pacer: Pacer | None = None,
    witness: Witness | None = None,
) -> Collected:
    """Settle doubted objects, while nobody else examines any.

    Two places on the sky never give the same bytes. One object after the other is asked for past all caches, and before
    each time one of `others`, so that a cache which repeats its last answer repeats that. An image that comes twice in
    a row all the same is the object's own. It is REPEATED_BODY where none does within `attempts` requests, or three;
    and for all of several objects who get the same one in this way.

    Parameters
    ----------
    requests
        The doubted objects.
    others
        Objects with images that nobody doubts.
    politeness, pacer, witness
        As of `collect_cutouts`.
    """
    pacer = pacer or LocalPacer(politeness.requests_per_second)
    return await _Examination(others, politeness, pacer, witness or LocalWitness()).settle(requests)


class _Messenger:
    """Tells the witness of images while further ones are under way, as many at a time as came meanwhile.

    What a cache repeats is seconds old or less. A witness that heard of a block only at its end would often learn of
    the repetition first, and of the image's owner when the other block is stored.
    """

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._waiting: list[Claim] = []
        self._sending: asyncio.Task[None] | None = None
        self._is_over = asyncio.Event()

    def tell(self, claim: Claim) -> None:
        """Tell of one image; a claim without one is none."""
        if claim.digest != NO_IMAGE:
            self._waiting.append(claim)
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            told, self._waiting = self._waiting, []
            await self._witness.seen_elsewhere(told)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), TELL_EVERY_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is None:
            return
        if error is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        else:
            self._is_over.set()
            await self._sending


class _Examination:
    """Asks for doubted objects again, one after the other, each time after an object that nobody doubts."""

    def __init__(self, others: Sequence[CutoutRequest], politeness: Politeness, pacer: Pacer, witness: Witness) -> None:
        self._politeness, self._pacer, self._witness = politeness, pacer, witness
        self._known_good = others[0] if others else None
        self._others = cycle(others)
        self._n_attempts: Counter[int] = Counter()
        self._n_further = 0

    async def settle(self, requests: Sequence[CutoutRequest]) -> Collected:
        down, settled = None, list[Delivery]()
        keys = {request.row: request.query for request in requests}
        for request in requests:
            try:
                settled.append(await self._examine(request))
            except ServiceDownError as error:
                down = error
                break
        # whose image is another's too was found out with the later of them
        claims = [Claim(keys[one.row], one.digest, one.examined) for one in settled]
        contested = await self._witness.seen_elsewhere(claims)
        deliveries = (_repeated(one) if no else one for one, no in zip(settled, contested, strict=True))
        return Collected(
            deliveries=tuple(replace(one, attempts=self._n_attempts[one.row]) for one in deliveries),
            n_further=self._n_further,
            down=down,
        )

    async def _examine(self, request: CutoutRequest) -> Delivery:
        before = NO_IMAGE
        for _ in range(max(LEAST_LOOKS, self._politeness.attempts - 1)):
            shown = await self._ask_another()
            delivery = await self._ask(request)
            self._n_attempts[request.row] += delivery.attempts
            if delivery.reason is not Reason.NONE:
                return delivery
            if delivery.digest == before != shown:
                claim = Claim(request.query, before, examined=True)
                (contested,) = await self._witness.seen_elsewhere([claim])
                return _repeated(delivery) if contested else replace(delivery, examined=True)
            before = delivery.digest if delivery.digest != shown else NO_IMAGE
        return _repeated(delivery)

    async def _ask_another(self) -> bytes:
        """Ask for an object that nobody doubts; returns the digest of what came."""
        request = next(self._others, None)
        if request is None:
            return NO_IMAGE
        delivery = await self._ask(request)
        self._n_further += delivery.attempts
        return delivery.digest

    async def _ask(self, request: CutoutRequest) -> Delivery:
        # the service ignores parameters that it does not know, a cache takes them for another page
        params = {**request.params, "_": str(time.time_ns())}
        past_caches = replace(request, params=params, headers={**request.headers, "Cache-Control": "no-cache"})
        answers = fetch_cutouts([past_caches], self._politeness, self._pacer, known_good=self._known_good)
        (delivery,) = [one async for one in answers]
        return delivery


def _repeated(delivery: Delivery) -> Delivery:
    """The image is another object's."""
    return Delivery(row=delivery.row, reason=Reason.REPEATED_BODY, http_status=200, attempts=0, refused=delivery.body)
