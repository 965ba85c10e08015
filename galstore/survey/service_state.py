"""Request slots and recent images of survey services, shared by all tasks of a run: in threads or on Dask workers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import distributed

from galstore.survey.rate_limit import RequestSlots
from galstore.survey.repeated_bodies import ReceivedImage, RecentDigests


class ServiceState(Protocol):
    """State of survey services, by their base URL, for use inside tasks; an argument of the tasks."""

    async def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        """Lease n request slots and return the seconds until the first."""

    async def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
        """Record images and return which of them are repeats, see `RecentDigests`."""


class ServiceRecords:
    """Request slots and recent image digests of every service, usable from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._slots: defaultdict[str, RequestSlots] = defaultdict(RequestSlots)
        self._digests: defaultdict[str, RecentDigests] = defaultdict(RecentDigests)

    def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        with self._lock:
            return self._slots[service].lease(n, requests_per_second, now_s=time.monotonic())

    def find_repeats(self, service: str, images: Sequence[tuple[str, bytes, bool]]) -> list[bool]:
        # Dask's messages carry plain tuples
        with self._lock:
            return self._digests[service].find_repeats([ReceivedImage(*image) for image in images])


class ThreadServiceState:
    """Service state of one process, whose tasks run in threads with separate event loops."""

    def __init__(self, records: ServiceRecords) -> None:
        self._records = records

    async def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        return self._records.lease_slots(service, n, requests_per_second)

    async def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
        return self._records.find_repeats(service, images)


class SharedServicePlugin(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Service records for all workers of a Dask scheduler."""

    name = "galstore-shared-service"
    idempotent = True

    async def start(self, scheduler: distributed.Scheduler) -> None:
        records = ServiceRecords()
        scheduler.handlers["galstore_lease_slots"] = records.lease_slots
        scheduler.handlers["galstore_find_repeats"] = records.find_repeats


class DaskServiceState:
    """Service state of all Dask workers, kept by the scheduler's plugin."""

    async def lease_slots(self, service: str, n: int, requests_per_second: float) -> float:
        arguments = {"service": service, "n": n, "requests_per_second": requests_per_second}
        return float(await _call_scheduler("galstore_lease_slots", **arguments))

    async def find_repeats(self, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
        plain = [tuple(image) for image in images]
        return list(await _call_scheduler("galstore_find_repeats", service=service, images=plain))


def find_repeats(client: distributed.Client, service: str, images: Sequence[ReceivedImage]) -> list[bool]:
    """Return which images are repeats by now; for use outside of tasks."""
    plain = [tuple(image) for image in images]
    return list(client.sync(client.scheduler.galstore_find_repeats, service=service, images=plain))


async def _call_scheduler(operation: str, **arguments: Any) -> Any:
    worker = distributed.get_worker()

    async def call() -> Any:
        return await getattr(worker.scheduler, operation)(**arguments)

    # a task runs in its own thread; the worker's connection to the scheduler belongs to the worker's event loop
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), worker.loop.asyncio_loop))
