"""The desk: what all workers of a run share about one survey service, kept by the Dask scheduler they all talk to."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import distributed

from galstore.survey.rate_limit import LeasingPacer, Turns
from galstore.survey.repeated_bodies import Claim, RecentBodies


class ServiceDesk(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Hands out turns to ask a service, and remembers the images that it sent lately."""

    name = "galstore-service-desk"
    idempotent = True

    def __init__(self) -> None:
        self._turns: defaultdict[str, Turns] = defaultdict(Turns)
        self._bodies: defaultdict[str, RecentBodies] = defaultdict(RecentBodies)

    async def start(self, scheduler: Any) -> None:
        """Answer the workers' questions from now on."""
        scheduler.handlers["galstore_turns"] = self.lease_turns
        scheduler.handlers["galstore_seen"] = self.seen_elsewhere

    def lease_turns(self, service: str, n: int, requests_per_second: float) -> float:
        """Seconds until the first of the next n turns."""
        return self._turns[service].lease(n, requests_per_second, now_s=time.monotonic())

    def seen_elsewhere(self, service: str, claims: Sequence[tuple[str, bytes, bool]]) -> list[bool]:
        """As of `RecentBodies`; a message has lost the names of a claim's parts."""
        return self._bodies[service].seen_elsewhere([Claim(*claim) for claim in claims])


class SharedPacer(LeasingPacer):
    """The rate of all workers that ask one service; for use inside a task.

    Parameters
    ----------
    service
        What the rate belongs to: the base URL.
    requests_per_second
        The limit.
    """

    def __init__(self, service: str, requests_per_second: float) -> None:
        super().__init__(requests_per_second)
        self._service = service

    async def _lease(self, n: int, requests_per_second: float) -> float:
        asked = {"service": self._service, "n": n, "requests_per_second": requests_per_second}
        return float(await _ask_desk("galstore_turns", **asked))


class SharedWitness:
    """The witness of all workers that ask one service; for use inside a task."""

    def __init__(self, service: str) -> None:
        self._service = service

    async def seen_elsewhere(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """As of `galstore.survey.repeated_bodies.Witness`."""
        seen: list[bool] = await _ask_desk("galstore_seen", service=self._service, claims=_plain(claims))
        return seen


def doubtful_claims(client: distributed.Client, service: str, claims: Sequence[Claim]) -> list[bool]:
    """Which claims are doubtful by now; for use where a run is led from."""
    doubtful: list[bool] = client.sync(client.scheduler.galstore_seen, service=service, claims=_plain(claims))
    return doubtful


def _plain(claims: Sequence[Claim]) -> list[tuple[str, bytes, bool]]:
    return [(claim.key, claim.digest, claim.examined) for claim in claims]


async def _ask_desk(operation: str, **asked: Any) -> Any:
    worker = distributed.get_worker()

    async def ask() -> Any:
        return await getattr(worker.scheduler, operation)(**asked)

    # a task runs in a thread of its own; the worker's connection to the scheduler belongs to the worker's loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), worker.loop.asyncio_loop))
