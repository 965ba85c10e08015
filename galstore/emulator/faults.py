"""Which answers the emulator spoils, and how: a plan that depends on nothing but a seed, an object and an attempt."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from schemas.errors import ContractError
from schemas.recipes import FaultSection

SECOND_TIME_SHARE = 0.25
"""Share of the passing faults that also hit the second attempt; the third always succeeds."""


class Fault(StrEnum):
    """How an answer is spoiled; the names are the keys of `FaultSection`.

    New kinds go to the end: a plan gives each kind a range of the unit interval in this order, and the objects that
    meet a kind must not change with kinds that nobody asked for.
    """

    TOO_MANY_REQUESTS = "too_many_requests"
    """429 with Retry-After: in seconds for objects with an even id, as a date for the others."""
    SERVER_ERROR = "server_error"
    """500 whose body is a JPEG."""
    OUTAGE_PAGE = "outage_page"
    """503 whose body is an HTML page."""
    TRUNCATED = "truncated"
    """200 with the first half of the JPEG."""
    OUT_OF_FOOTPRINT = "out_of_footprint"
    """404 with a black JPEG, at every attempt: the object lies outside the imaging."""
    BLACK_TILE = "black_tile"
    """200 with that black JPEG, at every attempt: what older releases answer outside the imaging."""
    FLAT_TILE = "flat_tile"
    """200 with a JPEG of one colour, at every attempt: what the Legacy Surveys viewer answers without coverage."""
    HTML_PAGE = "html_page"
    """200 with an HTML page."""
    ERROR_MESSAGE = "error_message"
    """200 with SkyServer's error_message: as CSV for objects with an even id, as JSON for the others."""
    WRONG_SIZE = "wrong_size"
    """200 with the JPEG's upper left quarter."""
    NOT_A_JPEG = "not_a_jpeg"
    """200 with a PNG that is announced as a JPEG."""
    BOMB = "bomb"
    """200 with a small JPEG whose header claims 30,000 x 30,000 pixels."""
    READ_TIMEOUT = "read_timeout"
    """No answer, for as long as the client waits for one."""
    CONNECT_TIMEOUT = "connect_timeout"
    """307 to a port of the emulator's that takes no connections and refuses none."""
    CONNECTION_RESET = "connection_reset"
    """A reset connection (RST) in place of an answer."""
    TRAILING_BYTES = "trailing_bytes"
    """200 with the JPEG and further bytes behind its end."""
    STUCK_CACHE = "stuck_cache"
    """200 with the image that was last delivered well for another object, if there is one yet."""
    CLIENT_ERROR = "client_error"
    """400 with JSON, at every attempt."""
    REDIRECT_LOOP = "redirect_loop"
    """302 to the very same address."""


ALWAYS_LASTING = frozenset({Fault.OUT_OF_FOOTPRINT, Fault.BLACK_TILE, Fault.FLAT_TILE, Fault.CLIENT_ERROR})
"""Faults that are the object's own; the others last for the share `FaultSection.lasting` of the objects they meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What is in store for an object: its first `n_spoiled` answers are spoiled, or all of them where it `lasts`."""

    fault: Fault | None = None
    n_spoiled: int = 0
    lasts: bool = False

    def at(self, attempt: int) -> Fault | None:
        """The fault of the `attempt`-th answer (from 1); None where it is good."""
        return self.fault if self.lasts or attempt <= self.n_spoiled else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """Decides what becomes of each request.

    Parameters
    ----------
    seed
        Of the plan.
    section
        Share of objects that meet each fault.

    Raises
    ------
    ContractError
        The shares add up to more than one.

    Examples
    --------
    >>> plan = FaultPlan(seed=1, section=FaultSection(truncated=1.0))
    >>> plan.fault(1237648702973411443, attempt=1), plan.fault(1237648702973411443, attempt=3)
    (<Fault.TRUNCATED: 'truncated'>, None)
    """

    seed: int
    section: FaultSection
    _shares: tuple[tuple[Fault, float], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shares = [(fault, getattr(self.section, fault)) for fault in Fault]
        object.__setattr__(self, "_shares", tuple(one for one in shares if one[1]))
        total = sum(share for _, share in shares)
        if total > 1 + 1e-9:
            raise ContractError(f"the shares of faults add up to {total:g}, at most 1 is possible: lower some of them")

    def fate(self, object_id: int) -> Fate:
        """What is in store for an object."""
        if not self._shares:
            return Fate()
        draw, endurance, permanence = np.random.default_rng((self.seed, object_id)).random(3)
        bound = 0.0
        for fault, share in self._shares:
            bound += share
            if draw < bound:
                return Fate(
                    fault=fault,
                    n_spoiled=2 if endurance < SECOND_TIME_SHARE else 1,
                    lasts=bool(fault in ALWAYS_LASTING or permanence < self.section.lasting),
                )
        return Fate()

    def fault(self, object_id: int, *, attempt: int) -> Fault | None:
        """What happens to the `attempt`-th request (from 1) for an object; None where it is answered well."""
        return self.fate(object_id).at(attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """One spoiled answer: whose, at which attempt, how, and whether all of its answers are.

    `body_of` is the object whose image was sent by a stuck cache, else None.
    """

    object_id: int
    attempt: int
    fault: Fault
    lasts: bool
    body_of: int | None = None

    def as_json(self) -> dict[str, object]:
        other = {} if self.body_of is None else {"body_of": str(self.body_of)}
        return {
            "object_id": str(self.object_id),
            "attempt": self.attempt,
            "fault": str(self.fault),
            "lasts": self.lasts,
            **other,
        }


@dataclass(slots=True, kw_only=True)
class FaultLog:
    """What was asked for and what was done to it, since the emulator started."""

    attempts: Counter[int] = field(default_factory=Counter)
    """Requests so far by object id."""
    spoiled: list[Spoiled] = field(default_factory=list)
    """Every spoiled answer, in order."""
    arrivals: Counter[int] = field(default_factory=Counter)
    """Cutout requests, whatever they asked for, by whole second of a monotonic clock."""
    busiest_second: int = 0
    """Most cutout requests that arrived within any one second."""
    longest_stall_s: float = 0.0
    """Longest time for which the emulator heard nothing, since its machine was busy: what came meanwhile arrived, by
    its own clock, all at once."""
    _last_second: deque[float] = field(default_factory=deque)

    def note_arrival(self, now_s: float | None = None) -> None:
        """Note that a cutout request arrived; `now_s` is the monotonic clock."""
        now_s = time.monotonic() if now_s is None else now_s
        self.arrivals[int(now_s)] += 1
        window = self._last_second
        window.append(now_s)
        while window[0] <= now_s - 1:
            window.popleft()
        self.busiest_second = max(self.busiest_second, len(window))

    def count_attempt(self, object_id: int) -> int:
        """Note one more request for an object; returns the number of the attempt, from 1."""
        self.attempts[object_id] += 1
        return self.attempts[object_id]

    def as_json(self) -> dict[str, object]:
        """Counts and events; ids as strings, since JavaScript's numbers cannot hold them.

        `arrivals` are counts by second from the first request on, `attempts` requests by object.
        """
        seconds = range(min(self.arrivals, default=0), max(self.arrivals, default=-1) + 1)
        return {
            "requests": self.attempts.total(),
            "objects": len(self.attempts),
            "attempts": {str(object_id): n for object_id, n in self.attempts.items()},
            "arrivals": [self.arrivals[second] for second in seconds],
            "busiest_second": self.busiest_second,
            "longest_stall_s": self.longest_stall_s,
            "faults": Counter(str(one.fault) for one in self.spoiled),
            "spoiled": [one.as_json() for one in self.spoiled],
        }
