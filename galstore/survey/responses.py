"""Answers: one request to a cutout service, and what its answer is, for good or for now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

import aiohttp
import numpy as np
import numpy.typing as npt
from yarl import URL

from galstore.survey.images import judge_body
from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import PASSING_REASONS, Reason
from schemas.errors import ServiceError

MOST_READ_BYTES = DELIVERED_BYTES + 65_536
"""Of a longer body no more is read: enough to know a page or a text by, and no more memory than that."""

MAX_REDIRECTS = 3

_NEEDS_NO_ENCODING = re.compile(r"[A-Za-z0-9._-]*")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_OK, _NOT_FOUND, _REQUEST_TIMEOUT, _TOO_MANY_REQUESTS, _UNAVAILABLE = 200, 404, 408, 429, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutRequest:
    """One object's cutout: its row, which no other request of the same call has, and what to ask for.

    `query` holds the parameters as one string, the same whatever their order.

    Examples
    --------
    >>> CutoutRequest(row=0, url="http://127.0.0.1", params={"ra": "1.5", "dec": "-2"}).query
    'dec=-2&ra=1.5'
    """

    row: int
    url: str
    params: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "query", _encoded(self.params))


def _encoded(params: Mapping[str, str]) -> str:
    pairs = sorted(params.items())
    # numbers need no encoding, which would take a tenth of a request's time
    if _NEEDS_NO_ENCODING.fullmatch("".join(part for pair in pairs for part in pair)):
        return "&".join([f"{name}={value}" for name, value in pairs])
    return urlencode(pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one request.

    `pixels` are counts, shape (128, 128, band), `body` the delivered bytes and `digest` their SHA-256, where `reason`
    is NONE; else None and empty. `http_status` is that of the last attempt, 0 where no answer came. `refused` is the
    beginning of what came in place of an image.
    """

    row: int
    reason: Reason
    http_status: int
    attempts: int
    body: bytes = field(default=b"", repr=False)
    digest: bytes = b""
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    refused: bytes = field(default=b"", repr=False)
    examined: bool = False
    """Another request got the image too, and it came again when it was asked for again."""


class PassingError(ServiceError):
    """An answer that may be better next time.

    `wait_s` is what Retry-After asks for, in seconds; None where it asks for nothing. `for_all` says that it asks every
    request to wait, not this one alone.
    """

    def __init__(self, delivery: Delivery, *, wait_s: float | None = None) -> None:
        super().__init__(f"{delivery.reason.name} (status {delivery.http_status})")
        self.delivery = delivery
        self.wait_s = wait_s
        self.for_all = wait_s is not None and delivery.http_status in (_TOO_MANY_REQUESTS, _UNAVAILABLE)


class AnswerLostError(aiohttp.ClientError):
    """A connection that was refused, reset or closed."""


async def ask_without_repeats(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Middleware of a client session: a lost connection is an error at once.

    aiohttp would otherwise send a GET once more by itself, beside the rate and the count of attempts.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise AnswerLostError(str(error)) from error


async def ask_once(http: aiohttp.ClientSession, request: CutoutRequest) -> Delivery:
    """Send one request and judge its answer.

    Raises
    ------
    PassingError
        The answer is none, and the next one may be better.
    """
    return judge_answer(request, await receive_answer(http, request))


class Answer(NamedTuple):
    """What came back for one request, not yet judged.

    `failure` says why there is no answer at all, else NONE; `status` is 0 then, but for a redirect in a circle. `body`
    holds at most `MOST_READ_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: Reason = Reason.NONE
    n_redirects: int = 0


async def receive_answer(http: aiohttp.ClientSession, request: CutoutRequest) -> Answer:
    """Send one request; whatever happens is an answer."""
    status, headers, body = 0, _NO_HEADERS, b""
    failure, n_redirects = Reason.NONE, 0
    try:
        url = URL(f"{request.url}?{request.query}", encoded=True)
        async with http.get(url, headers=request.headers, max_redirects=MAX_REDIRECTS) as response:
            status, headers, n_redirects = response.status, response.headers, len(response.history)
            # an error's body is read too, so that its connection can serve the next request
            body = await _read_beginning(response)
    except aiohttp.ConnectionTimeoutError:
        failure = Reason.CONNECT_TIMEOUT
    except TimeoutError:
        failure = Reason.READ_TIMEOUT
    except aiohttp.ClientResponseError as error:
        # a redirect in a circle, or an answer that is no HTTP
        failure, status = Reason.SERVICE_ERROR, error.history[-1].status if error.history else 0
    except aiohttp.ClientError:
        failure = Reason.CONNECTION_LOST
    return Answer(status, headers, body, failure, n_redirects)


def judge_answer(request: CutoutRequest, answer: Answer) -> Delivery:
    """What an answer is worth.

    Raises
    ------
    PassingError
        It is none, and the next one may be better.
    """
    reason = answer.failure or _judge_status(answer.status)
    if reason is Reason.NONE:
        judgement = judge_body(answer.body)
        reason = judgement.reason
        if reason is Reason.NONE:
            return Delivery(
                row=request.row, reason=reason, http_status=answer.status, attempts=1, body=answer.body,
                digest=hashlib.sha256(answer.body).digest(), pixels=judgement.pixels,
            )  # fmt: skip
    delivery = Delivery(
        row=request.row, reason=reason, http_status=answer.status, attempts=1, refused=answer.body[:DELIVERED_BYTES]
    )
    if reason in PASSING_REASONS:
        raise PassingError(delivery, wait_s=retry_after_s(answer.headers.get("Retry-After")))
    return delivery


def _judge_status(status: int) -> Reason:
    """What a status says by itself: NONE where the body has to be looked at."""
    if status < 400:
        return Reason.NONE
    if status == _NOT_FOUND:
        return Reason.OUT_OF_FOOTPRINT
    if status == _TOO_MANY_REQUESTS:
        return Reason.TOO_MANY_REQUESTS
    return Reason.SERVICE_ERROR if status >= 500 or status == _REQUEST_TIMEOUT else Reason.CLIENT_ERROR


async def _read_beginning(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= MOST_READ_BYTES:
        return await response.read()
    pieces, n_left = [], MOST_READ_BYTES
    while n_left and (piece := await response.content.read(n_left)):
        pieces.append(piece)
        n_left -= len(piece)
    return b"".join(pieces)


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
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    # "-0000" and a missing zone make a date without one; HTTP dates are always GMT
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now().timestamp())
