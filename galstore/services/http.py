"""Cutouts over HTTP: many at once, politely, each until it is an image or known not to be one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from galstore.services.answers import CutoutRequest, Delivery, ask_without_repeats
from galstore.services.conversation import Conversation, Politeness
from galstore.services.pacing import LocalPacer, Pacer
from galstore.services.witness import GIVEN_BACK, LocalWitness, Witness, key_of
from schemas.cutouts import DOWN_REASONS, Reason
from schemas.errors import ServiceDownError

__all__ = ["USER_AGENT", "Collected", "CutoutRequest", "Delivery", "Politeness", "collect_cutouts", "fetch_cutouts"]

USER_AGENT = f"galstore/{version('galstore')} (survey ingest; python aiohttp)"


async def fetch_cutouts(
    requests: Iterable[CutoutRequest],
    politeness: Politeness,
    pacer: Pacer | None = None,
    *,
    known_good: CutoutRequest | None = None,
) -> AsyncIterator[Delivery]:
    """Fetch cutouts concurrently; deliveries come in the order in which they settle, one for each request.

    Faults of the service (`DOWN_REASONS`) are held back until another object's answer shows that the service works.
    Where `breaker_failures` of them pile up, an object that was answered well is asked for once more: those that fail
    are the slowest to settle and so come in a row at the end of every call. Only if that fails too the breaker opens.

    An answer 429 or 503 with Retry-After holds up every request of this call until then, at most 60 s: it is said to
    the client, not about the object.

    Parameters
    ----------
    requests
        What to ask for.
    politeness
        Limits.
    pacer
        Hands out the turns, to retries too; by default the rate is this call's own.
    known_good
        A request that the service answered well before. It tells failures from an outage where none of `requests` is
        answered well.

    Yields
    ------
    Delivery
        An image, or the reason why there is none.

    Raises
    ------
    ServiceDownError
        The service is down: `breaker_failures` objects failed in a row, or all of `requests` did. What was not yielded
        is not settled.
    """
    # the slots limit the connections; waiting for one here would be taken for a connection that times out
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(
        connect=politeness.connect_timeout_s,
        sock_read=politeness.read_timeout_s,
        total=politeness.connect_timeout_s + politeness.read_timeout_s,
    )
    # nobody packs a JPEG, and what is not unpacked cannot burst
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        auto_decompress=False,
        middlewares=(ask_without_repeats,),
    ) as http:
        conversation = Conversation(http, politeness, pacer or LocalPacer(politeness.requests_per_second))
        held: list[Delivery] = []
        worked = False
        async with aclosing(conversation.settle_all(requests)) as settled:
            async for request, delivery in settled:
                failed = delivery.reason in DOWN_REASONS
                if failed:
                    held.append(delivery)
                    if len(held) < politeness.breaker_failures:
                        continue
                    if known_good is None or not await conversation.works_for(known_good):
                        raise _down(request, held)
                    worked = True
                else:
                    known_good, worked = request, True
                for one in held:
                    yield one
                held.clear()
                if not failed:
                    yield delivery
        if held and not worked and (known_good is None or not await conversation.works_for(known_good)):
            raise _down(request, held)
        for one in held:
            yield one


def _down(request: CutoutRequest, failed: Sequence[Delivery]) -> ServiceDownError:
    last = failed[-1]
    status = f"status {last.http_status}" if last.http_status else "no answer"
    return ServiceDownError(
        f"the survey at {URL(request.url).origin()} is down: {len(failed)} objects in a row failed, the last with "
        f"{last.reason.name} ({status}) after {last.attempts} attempts; none of them was quarantined: run the same "
        "command again when it is back"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What became of some requests: deliveries ordered by row; and, if the breaker opened, the error that says so.

    Requests without a delivery are not settled: there are some only where `down` is not None.
    """

    deliveries: tuple[Delivery, ...]
    down: ServiceDownError | None = None


async def collect_cutouts(
    requests: Sequence[CutoutRequest],
    politeness: Politeness,
    pacer: Pacer | None = None,
    witness: Witness | None = None,
    *,
    known_good: CutoutRequest | None = None,
) -> Collected:
    """Fetch cutouts to the end, and ask again for images that another request got too: a cache may be stuck.

    Two places on the sky never give the same bytes. Whoever shares an image is asked for again past all caches, at
    most `attempts` times in all. An image that is still shared then is REPEATED_BODY for all who share it, since
    nobody can tell whose it is; unless all others answered with changing images and one always with this.

    Parameters
    ----------
    requests, politeness, pacer, known_good
        As of `fetch_cutouts`. Requests with the same parameters may well have the same image.
    witness
        Knows the images of the run's other calls; by default there are none.

    Returns
    -------
    Collected
        One delivery a request, unless the service went down. `attempts` adds up all rounds.
    """
    witness = witness or LocalWitness()
    pacer = pacer or LocalPacer(politeness.requests_per_second)
    album = _Album(requests)
    asked, down, backwards = list(requests), None, False
    while asked:
        async with _Messenger(witness) as messenger:
            try:
                async for delivery in fetch_cutouts(asked, politeness, pacer, known_good=known_good):
                    messenger.tell(*album.add(delivery))
                    if delivery.reason not in DOWN_REASONS:
                        known_good = album.requests[delivery.row]
            except ServiceDownError as error:
                down = error
        shared = await album.find_shared([request.row for request in asked], witness)
        again = [row for row in shared if down or album.n_rounds(row) < politeness.attempts]
        # backwards every other time: what repeats its last answer would else repeat that of the same neighbour
        backwards = not backwards
        asked = await album.take_back(again[::-1] if backwards else again, witness)
        if down:
            break
        decoy = album.decoy() if asked else None
        if decoy is not None:
            # two who are alone would get the same again: what repeats its last answer now repeats this one
            with suppress(ServiceDownError):
                async for delivery in fetch_cutouts([decoy], politeness, pacer, known_good=known_good):
                    album.count_attempts(delivery)
    return Collected(deliveries=album.judged(), down=down)


class _Messenger:
    """Tells the witness of images while further ones are under way, as many at a time as came meanwhile.

    What a cache repeats is seconds old or less. A witness that heard of a block only at its end would often learn of
    the repetition first, and of the image's owner when the other block is stored.
    """

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._waiting: list[tuple[str, bytes]] = []
        self._sending: asyncio.Task[None] | None = None

    def tell(self, key: str, digest: bytes) -> None:
        """Tell of one image; an empty digest is none."""
        if digest:
            self._waiting.append((key, digest))
            if self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            told, self._waiting = self._waiting, []
            await self._witness.seen_elsewhere(told)

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
            await self._sending


class _Album:
    """The deliveries of one call, of which some are asked for again."""

    def __init__(self, requests: Sequence[CutoutRequest]) -> None:
        self.requests = {request.row: request for request in requests}
        self._keys = {request.row: key_of(request.params) for request in requests}
        self._deliveries: dict[int, Delivery] = {}
        self._n_attempts: Counter[int] = Counter()
        self._digests: defaultdict[int, list[bytes]] = defaultdict(list)
        self._elsewhere: set[int] = set()

    def add(self, delivery: Delivery) -> tuple[str, bytes]:
        """Keep a delivery; returns the request's key and the digest."""
        row = delivery.row
        self._n_attempts[row] += delivery.attempts
        n_attempts = self._n_attempts[row]
        self._deliveries[row] = delivery if n_attempts == delivery.attempts else replace(delivery, attempts=n_attempts)
        if delivery.reason is Reason.NONE:
            self._digests[row].append(delivery.digest)
        return self._keys[row], delivery.digest

    def decoy(self) -> CutoutRequest | None:
        """A request of somebody else, whose image nobody doubts; None where there is none."""
        good = (row for row, one in self._deliveries.items() if one.digest and row not in self._elsewhere)
        row = next(good, None)
        return None if row is None else self._past_caches(self.requests[row])

    def count_attempts(self, delivery: Delivery) -> None:
        """Count the requests of a further answer that is not kept."""
        row = delivery.row
        self._n_attempts[row] += delivery.attempts
        self._deliveries[row] = replace(self._deliveries[row], attempts=self._n_attempts[row])

    def n_rounds(self, row: int) -> int:
        """How many images a row was given so far."""
        return len(self._digests[row])

    async def take_back(self, rows: Sequence[int], witness: Witness) -> list[CutoutRequest]:
        """Forget the deliveries of some rows; returns the requests that ask for them again, past all caches."""
        if rows:
            await witness.seen_elsewhere([(self._keys[row], GIVEN_BACK) for row in rows])
        for row in rows:
            del self._deliveries[row]
        return [self._past_caches(self.requests[row]) for row in rows]

    def _past_caches(self, request: CutoutRequest) -> CutoutRequest:
        # the service ignores parameters that it does not know, a cache takes them for another page
        params = {**request.params, "_": str(time.time_ns())}
        return replace(request, params=params, headers={**request.headers, "Cache-Control": "no-cache"})

    async def find_shared(self, rows: Iterable[int], witness: Witness) -> list[int]:
        """Rows whose image another request has too, after `rows` were asked for."""
        images = [row for row in rows if row in self._deliveries and self._deliveries[row].digest]
        seen = await witness.seen_elsewhere([(self._keys[row], self._deliveries[row].digest) for row in images])
        self._elsewhere.difference_update(rows)
        self._elsewhere.update(row for row, elsewhere in zip(images, seen, strict=True) if elsewhere)
        return sorted(self._elsewhere.union(*self._groups()))

    def judged(self) -> tuple[Delivery, ...]:
        """The deliveries by row; those whose image is still shared are REPEATED_BODY."""
        repeated = self._elsewhere.union(*(group - self._owner(group) for group in self._groups()))
        for row in repeated & self._deliveries.keys():
            self._deliveries[row] = replace(
                self._deliveries[row], reason=Reason.REPEATED_BODY, body=b"", digest=b"", pixels=None
            )
        return tuple(self._deliveries[row] for row in sorted(self._deliveries))

    def _groups(self) -> list[set[int]]:
        """Rows that share an image although they asked for different things."""
        rows_of: defaultdict[bytes, set[int]] = defaultdict(set)
        for row, delivery in self._deliveries.items():
            if delivery.digest:
                rows_of[delivery.digest].add(row)
        return [rows for rows in rows_of.values() if len({self._keys[row] for row in rows}) > 1]

    def _owner(self, group: set[int]) -> set[int]:
        """Rows that always got this image, several times, where everyone else in the group got different ones."""
        steady = {row for row in group if len(set(self._digests[row])) == 1}
        proven = all(len(self._digests[row]) > 1 for row in steady) and len({self._keys[row] for row in steady}) == 1
        return steady if proven else set()
