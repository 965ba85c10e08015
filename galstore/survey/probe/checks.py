"""Result of a check: expected and actual response of a service, and advice if they differ."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum

import simplejpeg

from galstore.survey.responses import HttpResponse
from schemas.cutouts import TRANSIENT_REASONS, Reason


class Verdict(StrEnum):
    """Verdict of a check."""

    OK = "ok"
    DIFFERS = "differs"
    """The response is not the one that this client is written for."""
    FAILED = "failed"
    """The service has a fault, which may be transient."""
    SKIPPED = "skipped"
    """An earlier check failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one check.

    `advice` is empty if client and service agree. `seconds` is the duration of the request, 0 without one.
    """

    name: str
    verdict: Verdict
    expected: str
    got: str
    advice: str = ""
    seconds: float = 0.0

    @classmethod
    def skipped(cls, name: str, expected: str, why: str) -> Check:
        return cls(name=name, verdict=Verdict.SKIPPED, expected=expected, got=why)

    def to_dict(self) -> dict[str, str | float]:
        """Return the result in JSON types."""
        return {**asdict(self), "verdict": self.verdict.value, "seconds": round(self.seconds, 3)}


_WAIT = "try again later; runs wait and retry automatically"
_REPORT = "the service has changed: report it, and do not ingest until galstore supports the new response"

MEANINGS: dict[Reason, tuple[str, str]] = {
    Reason.OUT_OF_FOOTPRINT: ("no image at this position", "check the catalog's positions and the data release"),
    Reason.NOT_A_JPEG: ("bytes that are not a JPEG", _REPORT),
    Reason.TRUNCATED: ("a JPEG that stops before its end", "a proxy truncates responses: " + _WAIT),
    Reason.WRONG_SIZE: ("a JPEG of the wrong size", _REPORT),
    Reason.FLAT: ("a tile of one colour, as without coverage", "check the survey's layer and footprint"),
    Reason.TOO_LARGE: ("more bytes than the cube stores", _REPORT),
    Reason.CLIENT_ERROR: ("the request is refused", _REPORT),
    Reason.SERVICE_ERROR: ("the service has an error", _WAIT),
    Reason.TOO_MANY_REQUESTS: ("too many requests", "wait, and lower survey.requests_per_second"),
    Reason.CONNECT_TIMEOUT: ("no connection in time", "check the network and the base URL, or raise connect_timeout_s"),
    Reason.READ_TIMEOUT: ("no response in time", "raise survey.read_timeout_s, or try again later"),
    Reason.CONNECTION_LOST: ("the connection was refused or lost", "check the network and the base URL"),
    Reason.HTML_PAGE: ("an HTML page instead of an image", "a portal or an outage: open the address in a browser"),
    Reason.ERROR_MESSAGE: ("a text instead of an image", "read the text; lower the rate if it says so"),
    Reason.TRAILING_BYTES: ("a JPEG with bytes after its end", "a proxy damages responses: " + _WAIT),
    Reason.REPEATED_BODY: ("the same bytes as another object", "a cache is stuck: " + _WAIT),
    Reason.DECOMPRESSION_BOMB: ("a JPEG that claims more pixels than a cutout has", _REPORT),
}
"""Meaning of each reason for a service, and advice."""

DIFFERENCES = frozenset(Reason) - TRANSIENT_REASONS - {Reason.NONE} | {Reason.NOT_A_JPEG}
"""Reasons that mean that service and client disagree: a retry does not help."""

_TEXT_CHECK_BYTES = 2000
_MAX_TEXT_CHARACTERS = 160


def describe_response(received: HttpResponse, reason: Reason) -> str:
    """Describe a response in one line: reason, status, type of the body, and its text."""
    text = "an image" if reason is Reason.NONE else f"{reason.name.lower()}: {MEANINGS[reason][0]}"
    if received.failure is not Reason.NONE:
        return f"{text} (status {received.status}, redirect loop)" if received.status else text
    wait = f", Retry-After {received.headers['Retry-After']}" if "Retry-After" in received.headers else ""
    redirects = f", after {received.n_redirects} redirects" if received.n_redirects else ""
    return f"{text} (status {received.status}{wait}{redirects}; {_describe_body(received.body)})"


def _describe_body(body: bytes) -> str:
    if not body:
        return "no body"
    if body[:2] == b"\xff\xd8":
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(body)
        except ValueError:
            return f"a JPEG of {len(body)} bytes without a header"
        return f"a JPEG of {width} x {height} px, {len(body)} bytes"
    try:
        text = body[:_TEXT_CHECK_BYTES].decode("utf-8")
    except UnicodeDecodeError:
        return f"{len(body)} bytes that begin with {body[:4]!r}"
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return f"text {' '.join((title.group(1) if title else text).split())[:_MAX_TEXT_CHARACTERS]!r}"
