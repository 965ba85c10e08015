"""Rate limits: one request rate for a whole run, shared by all workers.

Rate-limit libraries (aiolimiter, pyrate-limiter) work within one process, or need a database that every machine can
reach. Here the Dask scheduler, which every worker already talks to, hands out the request slots.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

LEASE_S = 0.05
"""Slots are leased for this long ahead: at 5,000 requests/s the scheduler is asked 20 times a second."""

MIN_SLEEP_S = 0.002
"""Shorter waits are skipped: the event loop's clock ticks in milliseconds, and 5,000 sleeps would last 5 s."""

MAX_LATENESS_S = 0.04
"""A busy worker forfeits slots that it misses by more than this; late requests would otherwise come in bursts."""

HEADROOM = 0.95
"""Share of the rate in use: with slots up to 40 ms late, one second holds the requests of 1.04 s, 0.99 of the rate."""


Lease = Callable[[int, float], Awaitable[float]]
"""Coroutine function that leases n slots at a rate (per second) and returns the seconds until the first."""


class RequestSlots:
    """Evenly spaced points in time, each given away once."""

    def __init__(self) -> None:
        self._next_s = -math.inf

    def lease(self, n: int, requests_per_second: float, *, now_s: float) -> float:
        """Give away the next n slots, spaced by the inverse rate, and return the seconds from now until the first.

        Examples
        --------
        >>> slots = RequestSlots()
        >>> [slots.lease(2, 10.0, now_s=0.0) for _ in range(3)]
        [0.0, 0.2, 0.4]
        """
        first_s = max(now_s, self._next_s)
        self._next_s = first_s + n / requests_per_second
        return first_s - now_s


class RateLimiter:
    """Rate limiter that leases several slots at a time.

    Parameters
    ----------
    requests_per_second
        Rate of the whole run.
    lease
        Source of the slots; by default this limiter alone uses them.
    """

    def __init__(self, requests_per_second: float, lease: Lease | None = None) -> None:
        self._lease = lease or _local_lease()
        self._per_second = requests_per_second * HEADROOM
        self._n_leased = max(1, round(self._per_second * LEASE_S))
        self._n_left = 0
        self._next_s = 0.0
        self._queue = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait for the next slot; requests are served in order of arrival."""
        async with self._queue:
            while True:
                slot_s = await self._next_slot()
                delay_s = slot_s - time.monotonic()
                if delay_s > MIN_SLEEP_S:
                    await asyncio.sleep(delay_s)
                if time.monotonic() - slot_s <= MAX_LATENESS_S:
                    return

    async def _next_slot(self) -> float:
        """Return the time of the next slot, by the monotonic clock."""
        # drop the slots that are already missed
        n_missed = math.ceil((time.monotonic() - MAX_LATENESS_S - self._next_s) * self._per_second)
        n_dropped = min(self._n_left, max(0, n_missed))
        self._n_left -= n_dropped
        self._next_s += n_dropped / self._per_second
        if not self._n_left:
            wait_s = await self._lease(self._n_leased, self._per_second)
            self._n_left, self._next_s = self._n_leased, time.monotonic() + wait_s
        slot_s = self._next_s
        self._n_left -= 1
        self._next_s += 1 / self._per_second
        return slot_s


def _local_lease() -> Lease:
    slots = RequestSlots()

    async def lease(n: int, requests_per_second: float) -> float:
        return slots.lease(n, requests_per_second, now_s=time.monotonic())

    return lease
