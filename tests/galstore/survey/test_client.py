from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TypeVar

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from galstore.emulator.fault_effects import DeafPort
from galstore.survey.client import USER_AGENT, fetch_cutouts
from galstore.survey.collect import Collected, collect_cutouts, examine_cutouts
from galstore.survey.repeated_bodies import LocalWitness, Witness
from galstore.survey.responses import MOST_READ_BYTES, CutoutRequest, Delivery, retry_after_s
from galstore.survey.retry import Politeness
from schemas.cutouts import Reason
from schemas.errors import ServiceDownError
from tests.conftest import draw_blobs, encode

GOOD = encode(draw_blobs(1)[0])
IMAGE = {"body": GOOD, "content_type": "image/jpeg"}

Answer = TypeVar("Answer")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fetch(handler: Handler, n: int = 1, **politeness: float) -> list[Delivery]:
    """Fetch n cutouts from a real server on loopback that answers by `handler`."""

    async def session(url: str) -> list[Delivery]:
        known_good = CutoutRequest(row=-1, url=url, params={"row": "good"})
        stream = fetch_cutouts(requests_of(url, n), polite(**politeness), known_good=known_good)
        return [delivery async for delivery in stream]

    return converse(handler, session)


def polite(**settings: float) -> Politeness:
    """Limits of a test: fast, with three attempts, and a breaker that a few bad objects do not open."""
    usual = Politeness(
        requests_per_second=1000,
        concurrency=8,
        connect_timeout_s=2,
        read_timeout_s=5,
        attempts=3,
        retry_budget_s=60,
        breaker_failures=20,
    )
    return replace(usual, **settings)


def requests_of(url: str, n: int) -> list[CutoutRequest]:
    return [CutoutRequest(row=row, url=url, params={"row": str(row)}) for row in range(n)]


def converse(handler: Handler, session: Callable[[str], Awaitable[Answer]]) -> Answer:
    """Run a client against a real server on loopback; the server answers well where `row` is "good"."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return good() if request.query["row"] == "good" else await handler(request)

    async def both() -> Answer:
        application = web.Application()
        application.router.add_get("/cutout", answer)
        async with TestServer(application) as server:
            return await session(str(server.make_url("/cutout")))

    return asyncio.run(both())


def collect(handler: Handler, n: int, witness: Witness | None = None, **politeness: float) -> Collected:
    """As `fetch`, to the end, and without a request that the service answered well before."""
    return converse(handler, lambda url: settle(requests_of(url, n), polite(**politeness), witness or LocalWitness()))


async def settle(requests: list[CutoutRequest], politeness: Politeness, witness: Witness) -> Collected:
    """Collect, then examine what is doubted, as a run does."""
    collected = await collect_cutouts(requests, politeness, witness=witness)
    before = dict(collected.doubted)
    if not before or collected.down:
        return collected
    by_row = {request.row: request for request in requests}
    others = [by_row[one.row] for one in collected.deliveries if one.digest]
    examined = await examine_cutouts([by_row[row] for row in before], others, politeness, witness=witness)
    deliveries = [replace(one, attempts=one.attempts + before[one.row]) for one in examined.deliveries]
    return replace(examined, deliveries=tuple(sorted([*collected.deliveries, *deliveries], key=lambda one: one.row)))


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
        (status(408), Reason.SERVICE_ERROR, 3),
        (status(429), Reason.TOO_MANY_REQUESTS, 3),
        (status(500), Reason.SERVICE_ERROR, 3),
        (status(200), Reason.HTML_PAGE, 3),
        (lambda: web.Response(body=GOOD + b"0"), Reason.TRAILING_BYTES, 3),
        (lambda: web.Response(body=bytes(400)), Reason.NOT_A_JPEG, 3),
        (lambda: web.Response(text="no such layer"), Reason.ERROR_MESSAGE, 3),
        (lambda: web.Response(body=GOOD[:-100], content_type="image/jpeg"), Reason.TRUNCATED, 3),
        (lambda: web.Response(body=encode(draw_blobs(1)[0, :64, :64])), Reason.WRONG_SIZE, 1),
    ],
    ids=["404", "400", "408", "429", "500", "page", "trailing", "zeros", "text", "truncated", "64 px"],
)
def test_a_lasting_fault_ends_with_its_reason(response, reason: Reason, attempts: int) -> None:
    (delivery,) = fetch(answers(response))
    assert (delivery.reason, delivery.attempts) == (reason, attempts)
    assert delivery.pixels is None


def lost_answer(handler: Handler, **politeness: float) -> tuple[Reason, int, int]:
    (delivery,) = fetch(handler, attempts=2, **politeness)
    return delivery.reason, delivery.attempts, delivery.http_status


def test_an_answer_that_does_not_come_is_a_read_timeout() -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return good()

    assert lost_answer(sleep, read_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 0)


def test_a_body_that_stops_half_way_is_a_read_timeout_with_its_status() -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        await response.prepare(request)
        await response.write(GOOD[:300])
        await asyncio.sleep(30)
        return response

    assert lost_answer(stall, read_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 200)


def test_a_body_that_trickles_does_not_outlast_the_limit() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        await response.prepare(request)
        for place in range(0, len(GOOD), 10):
            await response.write(GOOD[place : place + 10])
            await asyncio.sleep(0.1)
        return response

    started = time.monotonic()
    assert lost_answer(trickle, read_timeout_s=0.3, connect_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 200)
    assert time.monotonic() - started < 4


def test_a_full_backlog_is_a_connect_timeout() -> None:
    port = DeafPort()
    port.redirect()
    host = f"http://127.0.0.1:{port._sockets[0].getsockname()[1]}/"

    async def session(_: str) -> list[Delivery]:
        requests = [CutoutRequest(row=0, url=host, params={})]
        known_good = CutoutRequest(row=-1, url=_, params={"row": "good"})
        stream = fetch_cutouts(requests, polite(connect_timeout_s=0.2, attempts=2), known_good=known_good)
        return [delivery async for delivery in stream]

    try:
        (delivery,) = converse(answers(good), session)
    finally:
        port.close()
    assert (delivery.reason, delivery.attempts, delivery.http_status) == (Reason.CONNECT_TIMEOUT, 2, 0)


def abort(request: web.Request) -> None:
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


@pytest.mark.parametrize("end", [abort, lambda request: request.transport.close()], ids=["reset", "closed"])
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "in the body"])
def test_a_connection_that_ends_early_is_lost_and_no_request_is_repeated_unseen(
    end: Callable[[web.Request], None], *, begun: bool
) -> None:
    n_asked = 0

    async def drop(request: web.Request) -> web.StreamResponse:
        nonlocal n_asked
        n_asked += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        if begun:
            await response.prepare(request)
            await response.write(GOOD[:300])
            await asyncio.sleep(0.05)
        end(request)
        return response

    reason, attempts, http_status = lost_answer(drop)
    assert (reason, attempts) == (Reason.CONNECTION_LOST, 2)
    assert n_asked == 2
    assert http_status in ((200, 0) if begun else (0,))


def test_nobody_at_the_port_is_a_lost_connection() -> None:
    async def session(url: str) -> list[Delivery]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{free.getsockname()[1]}/"
        requests = [CutoutRequest(row=0, url=nobody, params={})]
        known_good = CutoutRequest(row=-1, url=url, params={"row": "good"})
        return [one async for one in fetch_cutouts(requests, polite(attempts=2), known_good=known_good)]

    (delivery,) = converse(answers(good), session)
    assert (delivery.reason, delivery.attempts, delivery.http_status) == (Reason.CONNECTION_LOST, 2, 0)


@pytest.mark.parametrize(("beginning", "reason"), [(GOOD, Reason.TOO_LARGE), (b"<html>", Reason.HTML_PAGE)])
def test_of_a_huge_body_only_the_beginning_is_read(beginning: bytes, reason: Reason) -> None:
    n_sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal n_sent
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(beginning)
        for _ in range(2000):
            await response.write(bytes(100_000))
            n_sent += 100_000
        return response

    (delivery,) = fetch(flood, attempts=1)
    assert delivery.reason is reason
    assert n_sent < 20_000_000 + MOST_READ_BYTES  # what the buffers of two sockets hold, of 200 MB


def test_a_redirect_is_followed_and_a_circle_is_an_error_of_the_service() -> None:
    async def once(request: web.Request) -> web.Response:
        if "again" in request.query:
            return good()
        raise web.HTTPFound("/cutout?again=1&row=0")

    async def circle(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.path_qs)

    (delivery,) = fetch(once)
    assert (delivery.reason, delivery.http_status) == (Reason.NONE, 200)
    assert lost_answer(circle) == (Reason.SERVICE_ERROR, 2, 302)


def test_an_answer_that_is_no_http_is_an_error_of_the_service() -> None:
    async def babble(request: web.Request) -> web.StreamResponse:
        request.transport.write(b"+OK POP3 ready\r\n\r\n")
        await asyncio.sleep(0.2)
        request.transport.close()
        return good()

    assert lost_answer(babble) == (Reason.SERVICE_ERROR, 2, 0)


def test_a_compressed_body_is_not_unpacked() -> None:
    (delivery,) = fetch(answers(lambda: web.Response(body=GOOD, headers={"Content-Encoding": "gzip"})))
    assert delivery.reason is Reason.NONE


# waiting


def http_date(wait_s: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=wait_s), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("header", "least_s"), [(lambda: "1", 1.0), (lambda: http_date(2), 1.0)], ids=["seconds", "date"]
)
def test_retry_after_is_obeyed(code: int, header: Callable[[], str], least_s: float) -> None:
    started = time.monotonic()
    (delivery,) = fetch(answers(status(code, **{"Retry-After": header()}), good))
    assert delivery.reason is Reason.NONE
    assert least_s <= time.monotonic() - started < 4


@pytest.mark.parametrize("header", ["soon", "", "-5", "1e9", "99999999999999999999x", "Mon, 99 Nov 2026 25:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_ignored(header: str) -> None:
    assert retry_after_s(header) is None


def test_a_date_that_is_past_asks_for_no_wait() -> None:
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 -0000") == 0.0


def test_retry_after_holds_up_all_requests_of_the_call() -> None:
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        first = len(times) == 1
        return status(429, **{"Retry-After": "1"})() if first else good()

    deliveries = fetch(handler, n=30, concurrency=2)
    assert {one.reason for one in deliveries} == {Reason.NONE}
    assert len(times) == 31
    # whoever was under way with the first may have been answered
    assert sum(at < times[0] + 1 for at in times) <= 2
    assert sum(at < times[0] + 0.95 for at in times[2:]) == 0


def test_no_retry_starts_beyond_the_budget() -> None:
    started = time.monotonic()
    (delivery,) = fetch(answers(status(429, **{"Retry-After": "3"})), retry_budget_s=2)
    assert (delivery.reason, delivery.attempts) == (Reason.TOO_MANY_REQUESTS, 1)
    # the shared pause holds up the question whether the service works for others
    assert time.monotonic() - started < 5


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
    assert max(sum(start <= at < start + 1 for at in times) for start in times) <= 50


# the breaker


BLOB = draw_blobs(1)[0]


def picture(row: int) -> bytes:
    return encode(np.roll(BLOB, row, axis=0))


def by_row(bad: Callable[[int], bool], answer: Callable[[], web.Response]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        return answer() if bad(row) else web.Response(body=picture(row), content_type="image/jpeg")

    return handler


def test_a_service_that_is_down_opens_the_breaker_before_the_whole_survey_was_asked() -> None:
    n_asked: Counter[str] = Counter()

    async def down(request: web.Request) -> web.Response:
        n_asked[request.query["row"]] += 1
        return status(503)()

    collected = collect(down, 500, breaker_failures=10)
    assert collected.deliveries == ()
    with pytest.raises(ServiceDownError, match=r"(?=.*\b10 objects)(?=.*SERVICE_ERROR)"):
        raise collected.down
    assert len(n_asked) <= 10 + 8
    assert n_asked.total() <= 3 * (10 + 8)


def test_a_survey_of_fewer_objects_than_the_breaker_counts_is_down_too() -> None:
    collected = collect(answers(status(503)), 3)
    assert collected.deliveries == ()
    assert "3 objects" in str(collected.down)


def test_what_was_settled_before_the_service_died_is_kept() -> None:
    n_answered = 0

    def dead(_: int) -> bool:
        nonlocal n_answered
        n_answered += 1
        return n_answered > 40

    collected = collect(by_row(dead, status(503)), 100, breaker_failures=5, attempts=2)
    assert len(collected.deliveries) == 40
    assert {one.reason for one in collected.deliveries} == {Reason.NONE}
    assert collected.down is not None


def test_failures_are_held_back_until_another_answer_shows_that_the_service_works() -> None:
    collected = collect(by_row(lambda row: row % 3 == 0, status(503)), 60, breaker_failures=5, attempts=2)
    assert collected.down is None
    reasons = {one.row: one.reason for one in collected.deliveries}
    assert len(reasons) == 60
    assert {row for row, reason in reasons.items() if reason is Reason.SERVICE_ERROR} == set(range(0, 60, 3))


def test_slow_failures_at_the_end_are_no_outage_while_a_good_object_still_answers() -> None:
    collected = collect(by_row(lambda row: row >= 50, status(503)), 60, breaker_failures=4, attempts=2)
    assert collected.down is None
    assert Counter(one.reason for one in collected.deliveries) == {Reason.NONE: 50, Reason.SERVICE_ERROR: 10}


# caches that are stuck


def test_an_image_that_another_object_got_is_asked_for_past_the_cache() -> None:
    asked: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        if row == 7 and "_" not in request.query:
            return web.Response(body=picture(3), content_type="image/jpeg")
        asked.append(dict(request.headers) if "_" in request.query else {})
        return web.Response(body=picture(row), content_type="image/jpeg")

    collected = collect(handler, 20)
    assert [one.body for one in collected.deliveries] == [picture(row) for row in range(20)]
    # before each of the two questions to each of the two, an object that nobody doubts is asked for
    assert {one.row: one.attempts for one in collected.deliveries if one.attempts > 1} == {3: 3, 7: 3}
    assert collected.n_further == 4
    assert [headers["Cache-Control"] for headers in asked if headers] == ["no-cache"] * 8
    assert {one.row for one in collected.deliveries if one.examined} == {3, 7}


def test_an_image_that_is_shared_for_good_belongs_to_nobody() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=picture(min(int(request.query["row"]), 17)), content_type="image/jpeg")

    collected = collect(handler, 20)
    assert [one.reason for one in collected.deliveries] == [Reason.NONE] * 17 + [Reason.REPEATED_BODY] * 3
    assert {(one.attempts, one.body, one.digest) for one in collected.deliveries[17:]} == {(3, b"", b"")}


def test_the_owner_keeps_an_image_that_others_get_now_and_then() -> None:
    given: Counter[int] = Counter()

    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        given[row] += 1
        # object 9 always gets somebody else's, another one each time
        return web.Response(body=picture(given[row] if row == 9 else row), content_type="image/jpeg")

    collected = collect(handler, 12)
    assert {one.row for one in collected.deliveries if one.reason is not Reason.NONE} == {9}
    assert collected.deliveries[9].reason is Reason.REPEATED_BODY


def test_a_cache_that_repeats_its_last_answer_to_two_who_are_alone_is_found_out() -> None:
    last = picture(0)

    async def handler(request: web.Request) -> web.Response:
        nonlocal last
        row = int(request.query["row"])
        if row != 1:
            last = picture(row)
        return web.Response(body=last, content_type="image/jpeg")

    collected = collect(handler, 5, concurrency=1, attempts=5)
    assert {one.row: one.reason for one in collected.deliveries if one.reason is not Reason.NONE} == {
        1: Reason.REPEATED_BODY
    }
    assert [one.body for one in collected.deliveries if one.row != 1] == [picture(row) for row in (0, 2, 3, 4)]


def test_the_same_request_twice_may_have_the_same_image() -> None:
    async def session(url: str) -> Collected:
        requests = [CutoutRequest(row=row, url=url, params={"row": "0"}) for row in range(2)]
        return await settle(requests, polite(), LocalWitness())

    collected = converse(answers(good), session)
    assert [(one.reason, one.attempts) for one in collected.deliveries] == [(Reason.NONE, 1)] * 2


def test_two_calls_share_what_they_know_of_images() -> None:
    witness = LocalWitness()

    async def session(url: str) -> tuple[Collected, Collected]:
        first, second = requests_of(url, 2)
        return (
            await settle([first], polite(), witness),
            await settle([second], polite(), witness),
        )

    async def handler(request: web.Request) -> web.Response:
        stuck = "_" not in request.query
        return web.Response(body=picture(0 if stuck else int(request.query["row"])), content_type="image/jpeg")

    first, second = converse(handler, session)
    assert (first.deliveries[0].body, first.deliveries[0].attempts) == (picture(0), 1)
    assert (second.deliveries[0].body, second.deliveries[0].attempts) == (picture(1), 3)


def test_doubted_images_are_left_open_where_the_service_went_down() -> None:
    n_answered = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal n_answered
        n_answered += 1
        if n_answered > 20:
            return status(503)()
        return web.Response(body=picture(max(int(request.query["row"]), 1)), content_type="image/jpeg")

    collected = collect(handler, 60, breaker_failures=5, attempts=2, concurrency=1)
    assert [one.row for one in collected.deliveries] == list(range(2, 20))
    assert collected.down is not None


def test_the_project_names_itself() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["User-Agent"])
        return good()

    fetch(handler)
    assert seen == [USER_AGENT]
    assert USER_AGENT.startswith("galstore/")
