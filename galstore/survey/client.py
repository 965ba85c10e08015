"""HTTP client for cutouts: concurrent requests with a rate limit, retries and a circuit breaker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from importlib.metadata import version

import aiohttp
from yarl import URL

from galstore.survey.rate_limit import RateLimiter
from galstore.survey.responses import CutoutRequest, CutoutResponse, HttpResponse, classify_response
from galstore.survey.retry import RequestLimits, RetryLoop
from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import DOWN_REASONS, Reason
from schemas.errors import ServiceDownError

USER_AGENT = f"galstore/{version('galstore')} (survey ingest; python aiohttp)"

MAX_READ_BYTES = DELIVERED_BYTES + 65_536
"""Longer bodies are not read to the end: this is enough to recognise a page or a text, and it bounds the memory."""

MAX_REDIRECTS = 3


class ConnectionLostError(aiohttp.ClientError):
    """Connection that was refused, reset or closed."""


async def fetch_cutouts(
    requests: Iterable[CutoutRequest],
    request_limits: RequestLimits,
    rate_limiter: RateLimiter | None = None,
    *,
    known_good: CutoutRequest | None = None,
) -> AsyncIterator[CutoutResponse]:
    """Fetch cutouts concurrently and yield one response per request, in the order of completion.

    Service faults (`DOWN_REASONS`) are held back until another object's response shows that the service works. After
    `breaker_failures` of them, the client repeats a request that succeeded before: failing objects take longest and so
    fail in a row at the end of every call. If this request fails too, the service is down.

    A response 429 or 503 with Retry-After pauses every request of this call, for at most 60 s: it concerns the client,
    not the object.

    Parameters
    ----------
    rate_limiter
        Grants a slot to every request and retry; by default a rate limiter for this call alone.
    known_good
        Request that succeeded before. It distinguishes failing objects from an outage if none of `requests` succeeds.

    Raises
    ------
    ServiceDownError
        The service is down: `breaker_failures` objects failed in a row, or all of `requests` did. Requests without a
        yielded response stay open.
    """
    async with open_session(request_limits) as session:
        rate_limiter = rate_limiter or RateLimiter(request_limits.requests_per_second)

        async def send(request: CutoutRequest) -> CutoutResponse:
            return classify_response(request, await send_request(session, request))

        loop = RetryLoop(send, request_limits, rate_limiter)
        held: list[CutoutResponse] = []
        works = False
        async with aclosing(loop.run(requests)) as finished:
            async for request, response in finished:
                failed = response.reason in DOWN_REASONS
                if failed:
                    held.append(response)
                    if len(held) < request_limits.breaker_failures:
                        continue
                    if known_good is None or not await loop.is_working(known_good):
                        raise _service_down(request, held)
                    works = True
                else:
                    known_good, works = request, True
                for held_response in held:
                    yield held_response
                held.clear()
                if not failed:
                    yield response
        if held and not works and (known_good is None or not await loop.is_working(known_good)):
            raise _service_down(request, held)
        for held_response in held:
            yield held_response


def open_session(request_limits: RequestLimits) -> aiohttp.ClientSession:
    """Return a session with the timeouts and headers of this client, for use as a context manager."""
    # the retry loop limits the connections; waiting for one here would count as a connect timeout
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(
        connect=request_limits.connect_timeout_s,
        sock_read=request_limits.read_timeout_s,
        total=request_limits.connect_timeout_s + request_limits.read_timeout_s,
    )
    # compression does not help JPEG, and a body that is not decompressed cannot be a decompression bomb
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        auto_decompress=False,
        middlewares=(raise_on_lost_connection,),
    )


async def raise_on_lost_connection(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Raise an error for a lost connection, as middleware of a session.

    Otherwise aiohttp repeats a GET once, outside the rate limit and the count of attempts.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error)) from error


async def send_request(session: aiohttp.ClientSession, request: CutoutRequest) -> HttpResponse:
    """Send one request; network errors are returned as `failure` of the response."""
    headers: Mapping[str, str] = {}
    status, body, failure, n_redirects = 0, b"", Reason.NONE, 0
    try:
        url = URL(f"{request.url}?{request.query}", encoded=True)
        async with session.get(url, headers=request.headers, max_redirects=MAX_REDIRECTS) as response:
            status, headers, n_redirects = response.status, response.headers, len(response.history)
            # read the body of an error too, so that its connection can serve the next request
            body = await _read_beginning(response)
    except aiohttp.ConnectionTimeoutError:
        failure = Reason.CONNECT_TIMEOUT
    except TimeoutError:
        failure = Reason.READ_TIMEOUT
    except aiohttp.ClientResponseError as error:
        # a redirect loop, or a response that is not HTTP
        failure, status = Reason.SERVICE_ERROR, error.history[-1].status if error.history else 0
    except aiohttp.ClientError:
        failure = Reason.CONNECTION_LOST
    return HttpResponse(status, headers, body, failure, n_redirects)


async def _read_beginning(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MAX_READ_BYTES:
        return await response.read()
    parts, n_left = [], MAX_READ_BYTES
    while n_left and (part := await response.content.read(n_left)):
        parts.append(part)
        n_left -= len(part)
    return b"".join(parts)


def _service_down(request: CutoutRequest, failed: Sequence[CutoutResponse]) -> ServiceDownError:
    last = failed[-1]
    status = f"status {last.http_status}" if last.http_status else "no response"
    return ServiceDownError(
        f"the survey at {URL(request.url).origin()} is down: {len(failed)} objects in a row failed, the last with "
        f"{last.reason.name} ({status}) after {last.attempts} attempts. None of them was quarantined: run the same "
        "command again when the survey is back"
    )
