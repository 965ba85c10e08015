from __future__ import annotations

import asyncio
import threading
import time

import pytest

from galstore.executor import ThreadExecutor, run_bounded
from galstore.survey.repeated_bodies import ReceivedImage


def test_no_more_tasks_than_allowed_are_unfinished() -> None:
    lock, n_running, peaks = threading.Lock(), [0], []

    def work(item: int) -> int:
        with lock:
            n_running[0] += 1
            peaks.append(n_running[0])
        time.sleep(0.01)
        with lock:
            n_running[0] -= 1
        return item

    with ThreadExecutor(8) as executor:
        assert sorted(run_bounded(executor, work, range(20), 3)) == list(range(20))
    assert max(peaks) <= 3


def test_items_are_consumed_as_tasks_finish() -> None:
    consumed: list[int] = []

    def items():
        for number in range(10):
            consumed.append(number)
            yield number

    with ThreadExecutor(1) as executor:
        results = run_bounded(executor, str, items(), 2)
        assert next(results) == "0"
        assert consumed == [0, 1, 2]
        results.close()


def test_an_error_cancels_the_other_tasks() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise KeyError(item)
        time.sleep(0.05)
        done.append(item)

    with ThreadExecutor(1) as executor, pytest.raises(KeyError):
        list(run_bounded(executor, work, range(10), 5))
    assert len(done) <= 1


def test_threads_share_the_rate_and_the_images_of_a_service() -> None:
    with ThreadExecutor(2) as executor:
        state = executor.share_service_state()
        assert [round(asyncio.run(state.lease_slots("a", 2, 10.0)), 1) for _ in range(3)] == [0.0, 0.2, 0.4]
        assert asyncio.run(state.lease_slots("b", 1, 10.0)) == 0.0
        assert executor.find_repeats("a", [ReceivedImage("ra=1", b"x")]) == [False]
        assert executor.find_repeats("a", [ReceivedImage("ra=2", b"x")]) == [True]
        assert executor.find_repeats("b", [ReceivedImage("ra=3", b"x")]) == [False]
