from __future__ import annotations

import asyncio
import time

import pytest

from galstore.survey.rate_limit import LocalPacer, Turns


async def moments(rate: float, n: int, *, stalls: tuple[int, ...] = ()) -> list[float]:
    """When n requests went; before some of them the whole process is busy for 0.3 s."""
    pacer, went = LocalPacer(rate), []

    async def go(number: int) -> None:
        await pacer.turn()
        went.append(time.monotonic())
        if number in stalls:
            time.sleep(0.3)  # noqa: ASYNC251 - a decoder that holds up the loop

    await asyncio.gather(*(go(number) for number in range(n)))
    return went


def busiest_second(went: list[float]) -> int:
    return max(sum(start <= moment < start + 1 for moment in went) for start in went)


@pytest.mark.parametrize("stalls", [(), (20, 50, 90)])
def test_no_second_sees_more_requests_than_the_rate_even_where_a_worker_is_busy(stalls: tuple[int, ...]) -> None:
    assert busiest_second(asyncio.run(moments(100, 200, stalls=stalls))) <= 100


def test_turns_of_several_workers_never_overlap() -> None:
    turns = Turns()
    starts = [turns.lease(5, 50.0, now_s=0.0) for _ in range(4)]
    assert starts == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert turns.lease(5, 50.0, now_s=9.0) == 0.0
