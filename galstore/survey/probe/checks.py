"""Checks of a probe: what was expected of a service, what it did, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum

import simplejpeg

from galstore.survey.responses import Answer
from schemas.cutouts import Reason


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    DIFFERS = "differs"
    """There is an answer, and it is another one than this client is written for."""
    FAILED = "failed"
    """The service has a fault, which may pass."""
    SKIPPED = "skipped"
    """Not asked, since an earlier check left nothing to ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that client and service must agree on.

    `advice` says what to do where they do not; `seconds` is what the request took, 0 where there was none.
    """

    name: str
    verdict: Verdict
    expected: str
    got: str
    advice: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, str | float]:
        """For JSON."""
        return {**asdict(self), "verdict": self.verdict.value, "seconds": round(self.seconds, 3)}


_WAIT = "try again later; runs wait and ask again by themselves"
_WRITE = "the service has changed: report it, and do not ingest until galstore knows the new answer"

MEANINGS: dict[Reason, tuple[str, str]] = {
    Reason.OUT_OF_FOOTPRINT: ("no image of this place", "check the catalog's positions and the survey's data release"),
    Reason.NOT_A_JPEG: ("bytes that are no JPEG", _WRITE),
    Reason.TRUNCATED: ("a JPEG that stops before its end", "a proxy cuts answers off: " + _WAIT),
    Reason.WRONG_SIZE: ("a JPEG of another size than asked for", _WRITE),
    Reason.FLAT: ("a tile of one colour, as where there is no coverage", "check the survey's layer and footprint"),
    Reason.TOO_LARGE: ("more bytes than the cube keeps", _WRITE),
    Reason.CLIENT_ERROR: ("the request itself is refused", _WRITE),
    Reason.SERVICE_ERROR: ("the service has an error", _WAIT),
    Reason.TOO_MANY_REQUESTS: ("too many requests", "wait, and lower survey.requests_per_second"),
    Reason.CONNECT_TIMEOUT: ("no connection in time", "check the network and the base URL, or raise connect_timeout_s"),
    Reason.READ_TIMEOUT: ("no answer in time", "raise survey.read_timeout_s, or try again later"),
    Reason.CONNECTION_LOST: ("the connection was refused or lost", "check the network and the base URL"),
    Reason.HTML_PAGE: ("an HTML page in place of an image", "a portal or an outage: open the address in a browser"),
    Reason.ERROR_MESSAGE: ("a text in place of an image", "read the text; lower the rate if it says so"),
    Reason.TRAILING_BYTES: ("a JPEG with bytes behind its end", "a proxy damages answers: " + _WAIT),
    Reason.REPEATED_BODY: ("the very bytes of another object", "a cache is stuck: " + _WAIT),
    Reason.DECOMPRESSION_BOMB: ("a JPEG that claims more pixels than a cutout has", _WRITE),
}
"""What each reason says about a service, and what to do."""

DIFFERENCES = frozenset(
    {Reason.NOT_A_JPEG, Reason.WRONG_SIZE, Reason.TOO_LARGE, Reason.CLIENT_ERROR, Reason.DECOMPRESSION_BOMB,
     Reason.OUT_OF_FOOTPRINT, Reason.FLAT}
)  # fmt: skip
"""Reasons that do not pass: service and client disagree."""

_LOOKED_AT = 2000
_TOLD_CHARACTERS = 160


def tell_answer(answer: Answer, reason: Reason) -> str:
    """An answer in one line: reason, status, kind of body, and what the body says."""
    told = "an image" if reason is Reason.NONE else f"{reason.name.lower()}: {MEANINGS[reason][0]}"
    if answer.failure is not Reason.NONE:
        return f"{told} (status {answer.status}, redirected in a circle)" if answer.status else told
    body = _tell_body(answer.body)
    wait = f", Retry-After {answer.headers['Retry-After']}" if "Retry-After" in answer.headers else ""
    moved = f", after {answer.n_redirects} redirects" if answer.n_redirects else ""
    return f"{told} (status {answer.status}{wait}{moved}; {body})"


def _tell_body(body: bytes) -> str:
    if not body:
        return "no body"
    if body[:2] == b"\xff\xd8":
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(body)
        except ValueError:
            return f"a JPEG of {len(body)} bytes without a header"
        return f"a JPEG of {width} x {height} px, {len(body)} bytes"
    try:
        text = body[:_LOOKED_AT].decode("utf-8")
    except UnicodeDecodeError:
        return f"{len(body)} bytes that begin with {body[:4]!r}"
    title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return f"it says {' '.join((title.group(1) if title else text).split())[:_TOLD_CHARACTERS]!r}"
