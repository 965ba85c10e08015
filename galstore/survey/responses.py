"""Cutout requests, and the classification of the HTTP responses to them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from galstore.survey.images import check_image
from schemas.cube import DELIVERED_BYTES
from schemas.cutouts import TRANSIENT_REASONS, Reason
from schemas.errors import ServiceError

_NEEDS_NO_ENCODING = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutRequest:
    """Request for the cutout of one object.

    `row` is unique among the requests of one call. `query` holds the parameters as one string, sorted by name.

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
        object.__setattr__(self, "query", _encode_query(self.params))


def _encode_query(params: Mapping[str, str]) -> str:
    pairs = sorted(params.items())
    # numbers need no encoding, which would take a tenth of a request's time
    if _NEEDS_NO_ENCODING.fullmatch("".join(part for pair in pairs for part in pair)):
        return "&".join([f"{name}={value}" for name, value in pairs])
    return urlencode(pairs)


class HttpResponse(NamedTuple):
    """HTTP response before its classification.

    `failure` is the reason if no complete response arrived, else NONE. `status` is then 0, or the status received
    before the failure. `body` may be cut to `client.MAX_READ_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: Reason = Reason.NONE
    n_redirects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutResponse:
    """Classified response to one cutout request.

    If `reason` is NONE, `pixels` are counts of shape (128, 128, band), `body` is the JPEG and `digest` its SHA-256;
    otherwise they are None and empty. `http_status` belongs to the last attempt, 0 without a response. `refused` is the
    beginning of a body that is not a valid image. `confirmed` means that another object received the same image, and
    that this object received it again in a recheck.
    """

    row: int
    reason: Reason
    http_status: int
    attempts: int
    body: bytes = field(default=b"", repr=False)
    digest: bytes = b""
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    refused: bytes = field(default=b"", repr=False)
    confirmed: bool = False


class TransientError(ServiceError):
    """Failed request that may succeed when it is retried.

    `wait_s` is the delay requested by Retry-After, in seconds, or None. `pauses_all` means that the delay applies to
    every request, not only to this one.
    """

    def __init__(self, response: CutoutResponse, *, wait_s: float | None = None) -> None:
        super().__init__(f"{response.reason.name} (status {response.http_status})")
        self.response = response
        self.wait_s = wait_s
        self.pauses_all = wait_s is not None and response.http_status in (
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


def classify_response(request: CutoutRequest, received: HttpResponse) -> CutoutResponse:
    """Return the image in an HTTP response, or the lasting reason for its absence.

    Raises
    ------
    TransientError
        There is no image, but a retry may bring it.
    """
    reason = received.failure or _classify_status(received.status)
    if reason is Reason.NONE:
        image = check_image(received.body)
        reason = image.reason
    response = CutoutResponse(row=request.row, reason=reason, http_status=received.status, attempts=1)
    if reason is Reason.NONE:
        digest = hashlib.sha256(received.body).digest()
        return replace(response, body=received.body, digest=digest, pixels=image.pixels)
    response = replace(response, refused=received.body[:DELIVERED_BYTES])
    if reason in TRANSIENT_REASONS:
        raise TransientError(response, wait_s=retry_after_s(received.headers.get("Retry-After")))
    return response


def _classify_status(status: int) -> Reason:
    """Return the reason that follows from a status; NONE if the body decides."""
    if status < 400:
        return Reason.NONE
    if status == HTTPStatus.NOT_FOUND:
        return Reason.OUT_OF_FOOTPRINT
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Reason.TOO_MANY_REQUESTS
    return Reason.SERVICE_ERROR if status >= 500 or status == HTTPStatus.REQUEST_TIMEOUT else Reason.CLIENT_ERROR


def retry_after_s(header: str | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Return the delay in a Retry-After header, in seconds; None without a valid one.

    The header holds a number of seconds or a date (RFC 9110, section 10.2.3).

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
    # "-0000" and a missing zone give a naive date; HTTP dates are always GMT
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now().timestamp())
