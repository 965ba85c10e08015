"""Which answers the emulator spoils, and how: a plan that depends on nothing but a seed, an object and an attempt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from schemas.errors import ContractError
from schemas.recipes import FaultSection

SECOND_TIME_SHARE = 0.25
"""Share of the passing faults that also hit the second attempt; the third always succeeds."""


class Fault(StrEnum):
    """How an answer is spoiled; the names are the keys of `FaultSection`."""

    TOO_MANY_REQUESTS = "too_many_requests"
    """429 with Retry-After."""
    SERVER_ERROR = "server_error"
    """500 whose body is a JPEG."""
    OUTAGE_PAGE = "outage_page"
    """503 whose body is an HTML page."""
    TRUNCATED = "truncated"
    """200 with the first half of the JPEG."""
    OUT_OF_FOOTPRINT = "out_of_footprint"
    """404 with a black JPEG, at every attempt: the object lies outside the imaging."""


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

    def __post_init__(self) -> None:
        total = sum(getattr(self.section, fault) for fault in Fault)
        if total > 1 + 1e-9:
            raise ContractError(f"the shares of faults add up to {total:g}, at most 1 is possible: lower some of them")

    def fault(self, object_id: int, *, attempt: int) -> Fault | None:
        """What happens to the `attempt`-th request (from 1) for an object; None where it is answered well."""
        if not any(getattr(self.section, fault) for fault in Fault):
            return None
        fate, endurance = np.random.default_rng((self.seed, object_id)).random(2)
        bound = 0.0
        for fault in Fault:
            bound += getattr(self.section, fault)
            if fate < bound:
                spoiled = 2 if endurance < SECOND_TIME_SHARE else 1
                return fault if fault is Fault.OUT_OF_FOOTPRINT or attempt <= spoiled else None
        return None


@dataclass(slots=True, kw_only=True)
class FaultLog:
    """What was asked for and what was done to it, since the emulator started."""

    attempts: Counter[int] = field(default_factory=Counter)
    """Requests so far by object id."""
    spoiled: list[tuple[int, int, Fault]] = field(default_factory=list)
    """Object id, attempt and fault of every spoiled answer, in order."""

    def count_attempt(self, object_id: int) -> int:
        """Note one more request for an object; returns the number of the attempt, from 1."""
        self.attempts[object_id] += 1
        return self.attempts[object_id]

    def as_json(self) -> dict[str, object]:
        """Counts and events; ids as strings, since JavaScript's numbers cannot hold them."""
        return {
            "requests": self.attempts.total(),
            "objects": len(self.attempts),
            "faults": Counter(str(fault) for _, _, fault in self.spoiled),
            "spoiled": [
                {"object_id": str(object_id), "attempt": attempt, "fault": str(fault)}
                for object_id, attempt, fault in self.spoiled
            ],
        }
