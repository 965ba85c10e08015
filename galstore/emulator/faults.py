"""Faults that the emulator makes on purpose, and the plan that assigns them to objects."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from schemas.errors import ContractError
from schemas.recipes import FaultSection


class Fault(StrEnum):
    """Faults of the cutout services; the values are the keys of `FaultSection`.

    Add new faults at the end: the plan assigns ranges of the unit interval in this order, and the objects that meet a
    fault must not change when others are added.
    """

    TOO_MANY_REQUESTS = "too_many_requests"
    """429 with Retry-After: in seconds for even object ids, as a date for odd ones."""
    SERVER_ERROR = "server_error"
    """500 with a JPEG (SkyServer) or an HTML page (viewer)."""
    OUTAGE_PAGE = "outage_page"
    """503 with an HTML page."""
    TRUNCATED = "truncated"
    """200 with the first half of the JPEG."""
    OUT_OF_FOOTPRINT = "out_of_footprint"
    """Reply of the service to a position outside the imaging. Permanent."""
    BLACK_TILE = "black_tile"
    """200 with a black JPEG, as older releases reply outside the imaging. Permanent."""
    FLAT_TILE = "flat_tile"
    """200 with a JPEG of one colour, as the Legacy Surveys viewer replies without coverage. Permanent."""
    HTML_PAGE = "html_page"
    """200 with an HTML page."""
    ERROR_MESSAGE = "error_message"
    """200 with error_message (SkyServer: CSV for even object ids, JSON for odd ones) or a text (viewer)."""
    WRONG_SIZE = "wrong_size"
    """200 with the upper left quarter of the image."""
    NOT_A_JPEG = "not_a_jpeg"
    """200 with a PNG, announced as a JPEG."""
    BOMB = "bomb"
    """200 with a small JPEG whose header claims 30,000 x 30,000 pixels."""
    READ_TIMEOUT = "read_timeout"
    """No response until the client hangs up."""
    CONNECT_TIMEOUT = "connect_timeout"
    """307 to a port that neither accepts nor refuses connections."""
    CONNECTION_RESET = "connection_reset"
    """Connection reset (RST) without a response."""
    TRAILING_BYTES = "trailing_bytes"
    """200 with the JPEG and further bytes after its end."""
    STUCK_CACHE = "stuck_cache"
    """200 with the last good image of another object, if one was sent."""
    CLIENT_ERROR = "client_error"
    """400 with JSON (SkyServer) or a text (viewer). Permanent."""
    REDIRECT_LOOP = "redirect_loop"
    """302 to the same address."""


PERMANENT_FAULTS = frozenset({Fault.OUT_OF_FOOTPRINT, Fault.BLACK_TILE, Fault.FLAT_TILE, Fault.CLIENT_ERROR})
"""Faults of every attempt. Others are permanent for the share `FaultSection.lasting` of their objects."""

SECOND_ATTEMPT_SHARE = 0.25
"""Share of the transient faults that also hit the second attempt; the third succeeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFault:
    """Fault of an object: at its first `n_attempts` requests, or at all of them if `is_permanent`."""

    fault: Fault | None = None
    n_attempts: int = 0
    is_permanent: bool = False

    def at(self, attempt: int) -> Fault | None:
        return self.fault if self.is_permanent or attempt <= self.n_attempts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Assignment of faults to objects and attempts, which depends on a seed alone.

    Raises
    ------
    ContractError
        The shares add up to more than one.

    Examples
    --------
    >>> plan = FaultPlan(seed=1, section=FaultSection(truncated=1.0))
    >>> plan.object_fault(1237648702973411443).at(1), plan.object_fault(1237648702973411443).at(3)
    (<Fault.TRUNCATED: 'truncated'>, None)
    """

    seed: int
    section: FaultSection

    def __post_init__(self) -> None:
        total = sum(self._shares.values())
        if total > 1 + 1e-9:
            raise ContractError(f"the shares of faults add up to {total:g}, at most 1 is possible: lower some of them")

    @property
    def _shares(self) -> dict[Fault, float]:
        shares = {fault: float(getattr(self.section, fault)) for fault in Fault}
        return {fault: share for fault, share in shares.items() if share}

    def object_fault(self, object_id: int) -> ObjectFault:
        if not self._shares:
            return ObjectFault()
        position, endurance, permanence = np.random.default_rng((self.seed, object_id)).random(3)
        bound = 0.0
        for fault, share in self._shares.items():
            bound += share
            if position < bound:
                is_permanent = bool(fault in PERMANENT_FAULTS or permanence < self.section.lasting)
                n_attempts = 2 if endurance < SECOND_ATTEMPT_SHARE else 1
                return ObjectFault(fault=fault, n_attempts=n_attempts, is_permanent=is_permanent)
        return ObjectFault()


@dataclass(slots=True, kw_only=True)
class RequestLog:
    """Requests and faults since the emulator started."""

    attempts: Counter[int] = field(default_factory=Counter)
    """Number of requests by object id."""
    events: list[dict[str, object]] = field(default_factory=list)
    """Faulty responses in the form of the JSON log."""
    arrivals: Counter[int] = field(default_factory=Counter)
    """Number of cutout requests, valid or not, by whole second of a monotonic clock."""
    busiest_second: int = 0
    """Largest number of cutout requests within one second."""
    longest_stall_s: float = 0.0
    """Longest delay of the event loop, seconds. Requests that came during a stall are recorded as one burst."""
    _last_second: deque[float] = field(default_factory=deque)

    def record_arrival(self) -> None:
        now_s = time.monotonic()
        self.arrivals[int(now_s)] += 1
        self._last_second.append(now_s)
        while self._last_second[0] <= now_s - 1:
            self._last_second.popleft()
        self.busiest_second = max(self.busiest_second, len(self._last_second))

    def record_fault(self, object_id: int, attempt: int, planned: ObjectFault, body_of: int | None) -> None:
        """Record a faulty response; `body_of` is the object whose image a stuck cache sent."""
        event = {"object_id": str(object_id), "attempt": attempt, "fault": planned.fault, "lasts": planned.is_permanent}
        self.events.append(event if body_of is None else event | {"body_of": str(body_of)})

    def count_attempt(self, object_id: int) -> int:
        """Count a request and return the number of the attempt, from 1."""
        self.attempts[object_id] += 1
        return self.attempts[object_id]

    def as_json(self) -> dict[str, object]:
        """Return counts and events; ids are strings, since numbers of JavaScript cannot hold them.

        `arrivals` are counts per second from the first request on, `attempts` counts per object.
        """
        seconds = range(min(self.arrivals, default=0), max(self.arrivals, default=-1) + 1)
        return {
            "requests": self.attempts.total(),
            "objects": len(self.attempts),
            "attempts": {str(object_id): n for object_id, n in self.attempts.items()},
            "arrivals": [self.arrivals[second] for second in seconds],
            "busiest_second": self.busiest_second,
            "longest_stall_s": self.longest_stall_s,
            "faults": Counter(event["fault"] for event in self.events),
            "spoiled": self.events,
        }
