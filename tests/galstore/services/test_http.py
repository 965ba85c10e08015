from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from galstore.services.http import USER_AGENT, CutoutRequest, Delivery, Politeness, fetch_cutouts
from schemas.cutouts import Reason
from tests.conftest import draw_blobs, encode

GOOD = encode(draw_blobs(1)[0])
IMAGE = {"body": GOOD, "content_type": "image/jpeg"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fetch(handler: Handler, n: int = 1, **politeness: float) -> list[Delivery]:
    """Fetch n cutouts from a real server on loopback that answers by `handler`."""
    limits = {"requests_per_second": 1000, "concurrency": 8, "timeout_s": 5, "attempts": 3} | politeness

    async def session() -> list[Delivery]:
        application = web.Application()
        application.router.add_get("/cutout", handler)
        async with TestServer(application) as server:
            url = str(server.make_url("/cutout"))
            requests = [CutoutRequest(row=row, url=url, params={"row": str(row)}) for row in range(n)]
            return [delivery async for delivery in fetch_cutouts(requests, Politeness(**limits))]

    return asyncio.run(session())


def answers(*responses: Callable[[], web.Response]) -> Handler:
    """Give these answers one after the other, the last one for ever."""
    given = Counter()

    async def handler(_: web.Request) -> web.Response:
        given["n"] += 1
        return responses[min(given["n"], len(responses)) - 1]()

    return handler


def good() -> web.Response:
    return web.Response(**IMAGE)


def status(code: int, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, text="<html>sorry</html>", content_type="text/html", headers=headers)


def test_every_request_gets_one_delivery_with_the_delivered_bytes() -> None:
    deliveries = fetch(answers(good), n=50)
    assert sorted(one.row for one in deliveries) == list(range(50))
    assert all(one.body == GOOD and one.pixels is not None and one.reason is Reason.NONE for one in deliveries)


@pytest.mark.parametrize(
    "first",
    [
        status(500),
        status(503),
        status(429, **{"Retry-After": "0"}),
        lambda: web.Response(body=GOOD[:-100], content_type="image/jpeg"),
        lambda: web.Response(text="<html>maintenance</html>", content_type="text/html"),
    ],
    ids=["500", "503", "429", "truncated", "html with 200"],
)
def test_a_passing_fault_is_tried_again(first: Callable[[], web.Response]) -> None:
    (delivery,) = fetch(answers(first, good))
    assert (delivery.reason, delivery.attempts, delivery.http_status) == (Reason.NONE, 2, 200)


@pytest.mark.parametrize(
    ("response", "reason", "attempts"),
    [
        (lambda: web.Response(status=404, **IMAGE), Reason.OUT_OF_FOOTPRINT, 1),
        (status(400), Reason.CLIENT_ERROR, 1),
        (status(500), Reason.SERVICE_ERROR, 3),
        (lambda: web.Response(text="no such layer"), Reason.NOT_A_JPEG, 3),
        (lambda: web.Response(body=GOOD[:-100], content_type="image/jpeg"), Reason.TRUNCATED, 3),
        (lambda: web.Response(body=encode(draw_blobs(1)[0, :64, :64])), Reason.WRONG_SIZE, 1),
    ],
    ids=["404", "400", "500", "text", "truncated", "64 px"],
)
def test_a_lasting_fault_ends_with_its_reason(response, reason: Reason, attempts: int) -> None:
    (delivery,) = fetch(answers(response))
    assert (delivery.reason, delivery.attempts) == (reason, attempts)
    assert delivery.pixels is None


def test_a_time_out_and_a_dropped_connection_are_service_errors_without_a_status() -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return good()

    async def drop(request: web.Request) -> web.Response:
        request.transport.close()
        return good()

    for handler in (sleep, drop):
        (delivery,) = fetch(handler, timeout_s=0.2, attempts=2)
        assert (delivery.reason, delivery.attempts, delivery.http_status) == (Reason.SERVICE_ERROR, 2, 0)


def test_retry_after_is_obeyed() -> None:
    started = time.monotonic()
    (delivery,) = fetch(answers(status(429, **{"Retry-After": "1"}), good))
    assert delivery.reason is Reason.NONE
    assert time.monotonic() - started >= 1


def test_concurrency_and_rate_stay_under_their_limits() -> None:
    under_way, most, times = 0, 0, []

    async def handler(_: web.Request) -> web.Response:
        nonlocal under_way, most
        times.append(time.monotonic())
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return good()

    fetch(handler, n=60, requests_per_second=50, concurrency=3)
    assert most <= 3
    # aiolimiter's leaky bucket lets a tenth of a second's allowance through at once
    assert len(times) - 50 * 0.1 <= 50 * (times[-1] - times[0]) + 1


def test_the_project_names_itself() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["User-Agent"])
        return good()

    fetch(handler)
    assert seen == [USER_AGENT]
    assert USER_AGENT.startswith("galstore/")
