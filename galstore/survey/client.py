"""Cutouts over HTTP: many at once, politely, each until it is an image or known not to be one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from importlib.metadata import version

import aiohttp
from yarl import URL

from galstore.survey.rate_limit import LocalPacer, Pacer
from galstore.survey.responses import CutoutRequest, Delivery, ask_without_repeats
from galstore.survey.retry import Conversation, Politeness
from schemas.cutouts import DOWN_REASONS
from schemas.errors import ServiceDownError

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
    async with open_session(politeness) as http:
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


def open_session(politeness: Politeness) -> aiohttp.ClientSession:
    """A session with the timeouts and manners of this client, to be used as a context."""
    # the slots limit the connections; waiting for one here would be taken for a connection that times out
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(
        connect=politeness.connect_timeout_s,
        sock_read=politeness.read_timeout_s,
        total=politeness.connect_timeout_s + politeness.read_timeout_s,
    )
    # nobody packs a JPEG, and what is not unpacked cannot burst
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        auto_decompress=False,
        middlewares=(ask_without_repeats,),
    )


def _down(request: CutoutRequest, failed: Sequence[Delivery]) -> ServiceDownError:
    last = failed[-1]
    status = f"status {last.http_status}" if last.http_status else "no answer"
    return ServiceDownError(
        f"the survey at {URL(request.url).origin()} is down: {len(failed)} objects in a row failed, the last with "
        f"{last.reason.name} ({status}) after {last.attempts} attempts; none of them was quarantined: run the same "
        "command again when it is back"
    )
