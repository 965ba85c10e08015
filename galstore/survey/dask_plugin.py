"""State that all workers of a run share about a survey service, kept by the Dask scheduler."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import distributed

from galstore.survey.rate_limit import LeasedRateLimiter, RequestSlots
from galstore.survey.repeated_bodies import ReceivedImage, RecentDigests


class SharedServicePlugin(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Request slots and recent image digests of every service, for all workers."""

    name = "galstore-shared-service"
    idempotent = True

    def __init__(self) -> None:
        self._slots: defaultdict[str, RequestSlots] = defaultdict(RequestSlots)
        self._digests: defaultdict[str, RecentDigests] = defaultdict(RecentDigests)

    async def start(self, scheduler: distributed.Scheduler) -> None:
        """Register the handlers for the workers' calls."""
        scheduler.handlers["galstore_lease_slots"] = self.lease_slots
        scheduler.handlers["galstore_find_repeats"] = self.find_repeats

    def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        """Lease n slots and return the seconds until the first."""
        return self._slots[service].lease(n, requests_per_second, now_s=time.monotonic())

    def find_repeats(self, service: str, images: Sequence[tuple[str, bytes, bool]]) -> list[bool]:
        """Call `RecentDigests.find_repeats`; messages carry the images as plain tuples."""
        return self._digests[service].find_repeats([ReceivedImage(*image) for image in images])


class SharedRateLimiter(LeasedRateLimiter):
    """Rate limiter of all workers that use one service; for use inside a task.

    Parameters
    ----------
    service
        Base URL of the service.
    requests_per_second
        Rate of the whole run.
    """

    def __init__(self, service: str, requests_per_second: float) -> None:
        super().__init__(requests_per_second)
        self._service = service

    async def _lease(self, n: int, requests_per_second: float) -> float:
        arguments = {"service": self._service, "n": n, "requests_per_second": requests_per_second}
        return float(await _call_scheduler("galstore_lease_slots", **arguments))


class SharedRepeatDetector:
    """Repeat detector of all workers that use one service; for use inside a task."""

    def __init__(self, service: str) -> None:
        self._service = service

    async def find_repeats(self, images: Sequence[ReceivedImage]) -> Sequence[bool]:
        repeats: list[bool] = await _call_scheduler(
            "galstore_find_repeats", service=self._service, images=[tuple(image) for image in images]
        )
        return repeats


def find_repeats(client: distributed.Client, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
    """Return which images are repeats by now; for use outside of tasks."""
    repeats: list[bool] = client.sync(
        client.scheduler.galstore_find_repeats, service=service, images=[tuple(image) for image in images]
    )
    return repeats


async def _call_scheduler(operation: str, **arguments: Any) -> Any:
    worker = distributed.get_worker()

    async def call() -> Any:
        return await getattr(worker.scheduler, operation)(**arguments)

    # a task runs in its own thread; the worker's connection to the scheduler belongs to the worker's event loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), worker.loop.asyncio_loop))
