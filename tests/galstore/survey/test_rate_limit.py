from __future__ import annotations

import asyncio
import time

import pytest

from galstore.survey.rate_limit import RateLimiter, RequestSlots


async def request_times_s(rate: float, n: int, *, stalls: tuple[int, ...] = ()) -> list[float]:
    """Return the times of n requests; after some of them the process blocks for 0.3 s."""
    rate_limiter, times_s = RateLimiter(rate), []

    async def go(number: int) -> None:
        await rate_limiter.acquire()
        times_s.append(time.monotonic())
        if number in stalls:
            time.sleep(0.3)  # noqa: ASYNC251 - like a decoder that blocks the loop

    await asyncio.gather(*(go(number) for number in range(n)))
    return times_s


def busiest_second(times_s: list[float]) -> int:
    return max(sum(start <= time_s < start + 1 for time_s in times_s) for start in times_s)


@pytest.mark.parametrize("stalls", [(), (20, 50, 90)])
def test_rate_holds_in_every_second_even_if_a_worker_is_busy(stalls: tuple[int, ...]) -> None:
    assert busiest_second(asyncio.run(request_times_s(100, 200, stalls=stalls))) <= 100


def test_slots_of_several_workers_never_overlap() -> None:
    slots = RequestSlots()
    starts = [slots.lease(5, 50.0, now_s=0.0) for _ in range(4)]
    assert starts == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert slots.lease(5, 50.0, now_s=9.0) == 0.0
