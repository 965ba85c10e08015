"""Pacing: one rate of requests for a whole run, however many workers share it.

Libraries that limit rates (aiolimiter, pyrate-limiter) do it within one process, or through a database that every
machine reaches. Here the Dask scheduler, which every worker of a run talks to anyway, hands out the turns.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

LEASE_S = 0.05
"""Turns are handed out for this long ahead: at 5,000 requests/s the scheduler is asked 20 times a second."""

SHORTEST_SLEEP_S = 0.002
"""Shorter waits are not slept: the event loop's clock ticks in milliseconds, 5,000 sleeps would last 5 s."""

LATEST_S = 0.04
"""A turn that a busy worker is later for is forfeited: what waited would else crowd with what is sent on time."""

HEADROOM = 0.95
"""Share of the rate that is used: with turns up to 40 ms late, one second sees those of 1.04 s, 0.99 of the rate."""


class Pacer(Protocol):
    """Whoever says when the next request may go."""

    async def turn(self) -> None:
        """Return when it is this request's turn."""


class Turns:
    """Turns of one service: evenly spaced points in time, each given away once."""

    def __init__(self) -> None:
        self._next_s = -math.inf

    def lease(self, n: int, requests_per_second: float, *, now_s: float) -> float:
        """Give away the next n turns.

        Parameters
        ----------
        n
            How many.
        requests_per_second
            Their spacing is the inverse.
        now_s
            A monotonic clock.

        Returns
        -------
        float
            Seconds from now until the first of them.

        Examples
        --------
        >>> turns = Turns()
        >>> [turns.lease(2, 10.0, now_s=0.0) for _ in range(3)]
        [0.0, 0.2, 0.4]
        """
        first_s = max(now_s, self._next_s)
        self._next_s = first_s + n / requests_per_second
        return first_s - now_s


class LeasingPacer:
    """Takes turns in leases from whoever gives them away, and lets one request go at each.

    Parameters
    ----------
    requests_per_second
        The limit of the whole run.
    """

    def __init__(self, requests_per_second: float) -> None:
        self._per_second = requests_per_second * HEADROOM
        self._n_leased = max(1, round(self._per_second * LEASE_S))
        self._left = 0
        self._next_s = 0.0
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for the next turn; requests go in the order in which they asked."""
        async with self._queue:
            while True:
                at_s = await self._take()
                delay_s = at_s - time.monotonic()
                if delay_s > SHORTEST_SLEEP_S:
                    await asyncio.sleep(delay_s)
                if time.monotonic() - at_s <= LATEST_S:
                    return

    async def _take(self) -> float:
        """Take the next turn; returns when it comes, by the monotonic clock."""
        # turns that are forfeited anyway are dropped at once
        n_missed = math.ceil((time.monotonic() - LATEST_S - self._next_s) * self._per_second)
        n_dropped = min(self._left, max(0, n_missed))
        self._left -= n_dropped
        self._next_s += n_dropped / self._per_second
        if not self._left:
            wait_s = await self._lease(self._n_leased, self._per_second)
            self._left, self._next_s = self._n_leased, time.monotonic() + wait_s
        at_s = self._next_s
        self._left -= 1
        self._next_s += 1 / self._per_second
        return at_s

    async def _lease(self, n: int, requests_per_second: float) -> float:
        raise NotImplementedError


class LocalPacer(LeasingPacer):
    """The rate of one process."""

    def __init__(self, requests_per_second: float) -> None:
        super().__init__(requests_per_second)
        self._turns = Turns()

    async def _lease(self, n: int, requests_per_second: float) -> float:
        return self._turns.lease(n, requests_per_second, now_s=time.monotonic())
