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

from galstore.emulator.fault_effects import UnresponsivePort
from galstore.survey.client import MAX_READ_BYTES, USER_AGENT, fetch_cutouts
from galstore.survey.collect import Collected, collect_cutouts, recheck_cutouts
from galstore.survey.repeated_bodies import RepeatDetector, local_repeat_detector
from galstore.survey.responses import CutoutRequest, CutoutResponse, retry_after_s
from galstore.survey.retry import RequestLimits
from schemas.cutouts import Reason
from schemas.errors import ServiceDownError
from tests.conftest import draw_blobs, encode

GOOD = encode(draw_blobs(1)[0])
IMAGE = {"body": GOOD, "content_type": "image/jpeg"}

Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fetch(handler: Handler, n: int = 1, **request_limits: float) -> list[CutoutResponse]:
    """Fetch n cutouts from a server on loopback that responds with `handler`."""

    async def session(url: str) -> list[CutoutResponse]:
        known_good = CutoutRequest(row=-1, url=url, params={"row": "good"})
        stream = fetch_cutouts(requests_of(url, n), limits(**request_limits), known_good=known_good)
        return [response async for response in stream]

    return run_session(handler, session)


def limits(**settings: float) -> RequestLimits:
    """Return fast limits with three attempts, and a breaker that a few bad objects do not open."""
    usual = RequestLimits(
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


def run_session(handler: Handler, session: Callable[[str], Awaitable[Result]]) -> Result:
    """Run a client against a server on loopback, which always sends an image for `row` "good"."""

    async def respond(request: web.Request) -> web.StreamResponse:
        return good() if request.query["row"] == "good" else await handler(request)

    async def serve() -> Result:
        application = web.Application()
        application.router.add_get("/cutout", respond)
        async with TestServer(application) as server:
            return await session(str(server.make_url("/cutout")))

    return asyncio.run(serve())


def collect(
    handler: Handler, n: int, repeat_detector: RepeatDetector | None = None, **request_limits: float
) -> Collected:
    """Collect and recheck n cutouts, without a request that succeeded before."""
    return run_session(
        handler,
        lambda url: collect_and_recheck(
            requests_of(url, n), limits(**request_limits), repeat_detector or local_repeat_detector()
        ),
    )


async def collect_and_recheck(
    requests: list[CutoutRequest], request_limits: RequestLimits, repeat_detector: RepeatDetector
) -> Collected:
    """Collect, then recheck shared images, like a run."""
    collected = await collect_cutouts(requests, request_limits, repeat_detector=repeat_detector)
    before = dict(collected.to_recheck)
    if not before or collected.down:
        return collected
    by_row = {request.row: request for request in requests}
    others = [by_row[response.row] for response in collected.responses if response.digest]
    rechecked = await recheck_cutouts(
        [by_row[row] for row in before], others, request_limits, repeat_detector=repeat_detector
    )
    responses = [
        replace(response, attempts=response.attempts + before[response.row]) for response in rechecked.responses
    ]
    return replace(
        rechecked, responses=tuple(sorted([*collected.responses, *responses], key=lambda response: response.row))
    )


def respond_with(*responses: Callable[[], web.Response]) -> Handler:
    """Return a handler that gives these responses in turn, and then repeats the last."""
    given = Counter()

    async def handler(_: web.Request) -> web.Response:
        given["n"] += 1
        return responses[min(given["n"], len(responses)) - 1]()

    return handler


def good() -> web.Response:
    return web.Response(**IMAGE)


def status(code: int, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, text="<html>sorry</html>", content_type="text/html", headers=headers)


def test_every_request_gets_one_response_with_the_bytes_sent() -> None:
    responses = fetch(respond_with(good), n=50)
    assert sorted(response.row for response in responses) == list(range(50))
    assert all(
        response.body == GOOD and response.pixels is not None and response.reason is Reason.NONE
        for response in responses
    )


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
def test_a_transient_fault_is_retried(first: Callable[[], web.Response]) -> None:
    (response,) = fetch(respond_with(first, good))
    assert (response.reason, response.attempts, response.http_status) == (Reason.NONE, 2, 200)


@pytest.mark.parametrize(
    ("send", "reason", "attempts"),
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
def test_a_lasting_fault_ends_with_its_reason(send, reason: Reason, attempts: int) -> None:
    (response,) = fetch(respond_with(send))
    assert (response.reason, response.attempts) == (reason, attempts)
    assert response.pixels is None


def fetch_failure(handler: Handler, **request_limits: float) -> tuple[Reason, int, int]:
    (response,) = fetch(handler, attempts=2, **request_limits)
    return response.reason, response.attempts, response.http_status


def test_a_missing_response_is_a_read_timeout() -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return good()

    assert fetch_failure(sleep, read_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 0)


def test_a_body_that_stops_half_way_is_a_read_timeout_with_its_status() -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        await response.prepare(request)
        await response.write(GOOD[:300])
        await asyncio.sleep(30)
        return response

    assert fetch_failure(stall, read_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 200)


def test_a_body_that_trickles_does_not_outlast_the_limit() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        await response.prepare(request)
        for place in range(0, len(GOOD), 10):
            await response.write(GOOD[place : place + 10])
            await asyncio.sleep(0.1)
        return response

    started = time.monotonic()
    assert fetch_failure(trickle, read_timeout_s=0.3, connect_timeout_s=0.2) == (Reason.READ_TIMEOUT, 2, 200)
    assert time.monotonic() - started < 4


def test_a_full_backlog_is_a_connect_timeout() -> None:
    port = UnresponsivePort()
    port.redirect()
    host = f"http://127.0.0.1:{port._sockets[0].getsockname()[1]}/"

    async def session(_: str) -> list[CutoutResponse]:
        requests = [CutoutRequest(row=0, url=host, params={})]
        known_good = CutoutRequest(row=-1, url=_, params={"row": "good"})
        stream = fetch_cutouts(requests, limits(connect_timeout_s=0.2, attempts=2), known_good=known_good)
        return [response async for response in stream]

    try:
        (response,) = run_session(respond_with(good), session)
    finally:
        port.close()
    assert (response.reason, response.attempts, response.http_status) == (Reason.CONNECT_TIMEOUT, 2, 0)


def abort(request: web.Request) -> None:
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


@pytest.mark.parametrize("end", [abort, lambda request: request.transport.close()], ids=["reset", "closed"])
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "in the body"])
def test_a_connection_that_ends_early_is_lost_and_every_request_is_counted(
    end: Callable[[web.Request], None], *, begun: bool
) -> None:
    n_requests = 0

    async def drop(request: web.Request) -> web.StreamResponse:
        nonlocal n_requests
        n_requests += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
        if begun:
            await response.prepare(request)
            await response.write(GOOD[:300])
            await asyncio.sleep(0.05)
        end(request)
        return response

    reason, attempts, http_status = fetch_failure(drop)
    assert (reason, attempts) == (Reason.CONNECTION_LOST, 2)
    assert n_requests == 2
    assert http_status in ((200, 0) if begun else (0,))


def test_a_closed_port_is_a_lost_connection() -> None:
    async def session(url: str) -> list[CutoutResponse]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            unused = f"http://127.0.0.1:{free.getsockname()[1]}/"
        requests = [CutoutRequest(row=0, url=unused, params={})]
        known_good = CutoutRequest(row=-1, url=url, params={"row": "good"})
        stream = fetch_cutouts(requests, limits(attempts=2), known_good=known_good)
        return [response async for response in stream]

    (response,) = run_session(respond_with(good), session)
    assert (response.reason, response.attempts, response.http_status) == (Reason.CONNECTION_LOST, 2, 0)


@pytest.mark.parametrize(("beginning", "reason"), [(GOOD, Reason.TOO_LARGE), (b"<html>", Reason.HTML_PAGE)])
def test_only_the_beginning_of_a_huge_body_is_read(beginning: bytes, reason: Reason) -> None:
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

    (response,) = fetch(flood, attempts=1)
    assert response.reason is reason
    assert n_sent < 20_000_000 + MAX_READ_BYTES  # what the buffers of two sockets hold, of 200 MB


def test_a_redirect_is_followed_and_a_redirect_loop_is_a_service_error() -> None:
    async def once(request: web.Request) -> web.Response:
        if "moved" in request.query:
            return good()
        raise web.HTTPFound("/cutout?moved=1&row=0")

    async def redirect_to_itself(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.path_qs)

    (response,) = fetch(once)
    assert (response.reason, response.http_status) == (Reason.NONE, 200)
    assert fetch_failure(redirect_to_itself) == (Reason.SERVICE_ERROR, 2, 302)


def test_a_response_that_is_not_http_is_a_service_error() -> None:
    async def babble(request: web.Request) -> web.StreamResponse:
        request.transport.write(b"+OK POP3 ready\r\n\r\n")
        await asyncio.sleep(0.2)
        request.transport.close()
        return good()

    assert fetch_failure(babble) == (Reason.SERVICE_ERROR, 2, 0)


def test_a_compressed_body_is_not_decompressed() -> None:
    (response,) = fetch(respond_with(lambda: web.Response(body=GOOD, headers={"Content-Encoding": "gzip"})))
    assert response.reason is Reason.NONE


# retries and pauses


def http_date(wait_s: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=wait_s), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("header", "least_s"), [(lambda: "1", 1.0), (lambda: http_date(2), 1.0)], ids=["seconds", "date"]
)
def test_retry_after_is_obeyed(code: int, header: Callable[[], str], least_s: float) -> None:
    started = time.monotonic()
    (response,) = fetch(respond_with(status(code, **{"Retry-After": header()}), good))
    assert response.reason is Reason.NONE
    assert least_s <= time.monotonic() - started < 4


@pytest.mark.parametrize("header", ["soon", "", "-5", "1e9", "99999999999999999999x", "Mon, 99 Nov 2026 25:00:00 GMT"])
def test_an_invalid_retry_after_is_ignored(header: str) -> None:
    assert retry_after_s(header) is None


def test_a_date_in_the_past_means_no_delay() -> None:
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 -0000") == 0.0


def test_retry_after_pauses_all_requests_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="galstore.survey.retry")
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        first = len(times) == 1
        return status(429, **{"Retry-After": "1"})() if first else good()

    responses = fetch(handler, n=30, concurrency=2)
    assert {response.reason for response in responses} == {Reason.NONE}
    assert len(times) == 31
    assert caplog.messages == ["pause all requests for 1 s (status 429 with Retry-After)"]
    # a request that was running with the first may still succeed
    assert sum(at < times[0] + 1 for at in times) <= 2
    assert sum(at < times[0] + 0.95 for at in times[2:]) == 0


def test_no_retry_starts_beyond_the_budget() -> None:
    started = time.monotonic()
    (response,) = fetch(respond_with(status(429, **{"Retry-After": "3"})), retry_budget_s=2)
    assert (response.reason, response.attempts) == (Reason.TOO_MANY_REQUESTS, 1)
    # the shared pause also delays the request that tests whether the service works
    assert time.monotonic() - started < 5


def test_concurrency_and_rate_stay_under_their_limits() -> None:
    n_running, most, times = 0, 0, []

    async def handler(_: web.Request) -> web.Response:
        nonlocal n_running, most
        times.append(time.monotonic())
        n_running += 1
        most = max(most, n_running)
        await asyncio.sleep(0.02)
        n_running -= 1
        return good()

    fetch(handler, n=60, requests_per_second=50, concurrency=3)
    assert most <= 3
    assert max(sum(start <= at < start + 1 for at in times) for start in times) <= 50


# circuit breaker


BLOB = draw_blobs(1)[0]


def picture(row: int) -> bytes:
    return encode(np.roll(BLOB, row, axis=0))


def by_row(bad: Callable[[int], bool], answer: Callable[[], web.Response]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        return answer() if bad(row) else web.Response(body=picture(row), content_type="image/jpeg")

    return handler


def test_an_outage_opens_the_breaker_before_every_object_is_requested(caplog: pytest.LogCaptureFixture) -> None:
    n_requests: Counter[str] = Counter()

    async def down(request: web.Request) -> web.Response:
        n_requests[request.query["row"]] += 1
        return status(503)()

    collected = collect(down, 500, breaker_failures=10)
    assert collected.responses == ()
    with pytest.raises(ServiceDownError, match=r"(?=.*\b10 objects)(?=.*SERVICE_ERROR)"):
        raise collected.down
    assert len(n_requests) <= 10 + 8
    assert [message for message in caplog.messages if "circuit breaker open: 10 requests" in message]
    assert n_requests.total() <= 3 * (10 + 8)


def test_an_outage_is_reported_for_fewer_objects_than_the_breaker_counts() -> None:
    collected = collect(respond_with(status(503)), 3)
    assert collected.responses == ()
    assert "3 objects" in str(collected.down)


def test_responses_before_the_outage_are_returned() -> None:
    n_requests = 0

    def dead(_: int) -> bool:
        nonlocal n_requests
        n_requests += 1
        return n_requests > 40

    collected = collect(by_row(dead, status(503)), 100, breaker_failures=5, attempts=2)
    assert len(collected.responses) == 40
    assert {response.reason for response in collected.responses} == {Reason.NONE}
    assert collected.down is not None


def test_failures_are_returned_once_another_response_shows_that_the_service_works() -> None:
    collected = collect(by_row(lambda row: row % 3 == 0, status(503)), 60, breaker_failures=5, attempts=2)
    assert collected.down is None
    reasons = {response.row: response.reason for response in collected.responses}
    assert len(reasons) == 60
    assert {row for row, reason in reasons.items() if reason is Reason.SERVICE_ERROR} == set(range(0, 60, 3))


def test_slow_failures_at_the_end_are_not_an_outage_while_a_known_good_request_succeeds() -> None:
    collected = collect(by_row(lambda row: row >= 50, status(503)), 60, breaker_failures=4, attempts=2)
    assert collected.down is None
    assert Counter(response.reason for response in collected.responses) == {Reason.NONE: 50, Reason.SERVICE_ERROR: 10}


# stuck caches


def test_a_shared_image_is_requested_again_past_the_cache() -> None:
    requested: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        if row == 7 and "_" not in request.query:
            return web.Response(body=picture(3), content_type="image/jpeg")
        requested.append(dict(request.headers) if "_" in request.query else {})
        return web.Response(body=picture(row), content_type="image/jpeg")

    collected = collect(handler, 20)
    assert [response.body for response in collected.responses] == [picture(row) for row in range(20)]
    # each of the two rechecks of each of the two objects follows a request for an undisputed object
    assert {response.row: response.attempts for response in collected.responses if response.attempts > 1} == {
        3: 3,
        7: 3,
    }
    assert collected.n_extra_requests == 4
    assert [headers["Cache-Control"] for headers in requested if headers] == ["no-cache"] * 8
    assert {response.row for response in collected.responses if response.confirmed} == {3, 7}


def test_objects_that_always_share_an_image_are_all_rejected() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=picture(min(int(request.query["row"]), 17)), content_type="image/jpeg")

    collected = collect(handler, 20)
    assert [response.reason for response in collected.responses] == [Reason.NONE] * 17 + [Reason.REPEATED_BODY] * 3
    assert {(response.attempts, response.body, response.digest) for response in collected.responses[17:]} == {
        (3, b"", b"")
    }


def test_the_owner_keeps_an_image_that_others_receive_sometimes() -> None:
    given: Counter[int] = Counter()

    async def handler(request: web.Request) -> web.Response:
        row = int(request.query["row"])
        given[row] += 1
        # object 9 always receives the image of another object, a different one each time
        return web.Response(body=picture(given[row] if row == 9 else row), content_type="image/jpeg")

    collected = collect(handler, 12)
    assert {response.row for response in collected.responses if response.reason is not Reason.NONE} == {9}
    assert collected.responses[9].reason is Reason.REPEATED_BODY


def test_a_cache_that_repeats_its_last_response_is_detected() -> None:
    last = picture(0)

    async def handler(request: web.Request) -> web.Response:
        nonlocal last
        row = int(request.query["row"])
        if row != 1:
            last = picture(row)
        return web.Response(body=last, content_type="image/jpeg")

    collected = collect(handler, 5, concurrency=1, attempts=5)
    assert {
        response.row: response.reason for response in collected.responses if response.reason is not Reason.NONE
    } == {1: Reason.REPEATED_BODY}
    assert [response.body for response in collected.responses if response.row != 1] == [
        picture(row) for row in (0, 2, 3, 4)
    ]


def test_the_same_request_twice_may_have_the_same_image() -> None:
    async def session(url: str) -> Collected:
        requests = [CutoutRequest(row=row, url=url, params={"row": "0"}) for row in range(2)]
        return await collect_and_recheck(requests, limits(), local_repeat_detector())

    collected = run_session(respond_with(good), session)
    assert [(response.reason, response.attempts) for response in collected.responses] == [(Reason.NONE, 1)] * 2


def test_two_calls_share_a_repeat_detector() -> None:
    repeat_detector = local_repeat_detector()

    async def session(url: str) -> tuple[Collected, Collected]:
        first, second = requests_of(url, 2)
        return (
            await collect_and_recheck([first], limits(), repeat_detector),
            await collect_and_recheck([second], limits(), repeat_detector),
        )

    async def handler(request: web.Request) -> web.Response:
        stuck = "_" not in request.query
        return web.Response(body=picture(0 if stuck else int(request.query["row"])), content_type="image/jpeg")

    first, second = run_session(handler, session)
    assert (first.responses[0].body, first.responses[0].attempts) == (picture(0), 1)
    assert (second.responses[0].body, second.responses[0].attempts) == (picture(1), 3)


def test_shared_images_stay_open_during_an_outage() -> None:
    n_requests = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal n_requests
        n_requests += 1
        if n_requests > 20:
            return status(503)()
        return web.Response(body=picture(max(int(request.query["row"]), 1)), content_type="image/jpeg")

    collected = collect(handler, 60, breaker_failures=5, attempts=2, concurrency=1)
    assert [response.row for response in collected.responses] == list(range(2, 20))
    assert collected.down is not None


def test_requests_carry_the_user_agent_of_the_project() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["User-Agent"])
        return good()

    fetch(handler)
    assert seen == [USER_AGENT]
    assert USER_AGENT.startswith("galstore/")
