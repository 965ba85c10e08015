import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.parallel import map_ahead


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 12), n_ahead=st.integers(1, 5), n_threads=st.integers(1, 4))
def test_results_come_in_order_for_any_number_of_threads(n, n_ahead, n_threads):
    results = map_ahead(lambda item: item * 10, range(n), n_threads=n_threads, n_ahead=n_ahead)
    assert list(results) == [item * 10 for item in range(n)]


def test_items_are_consumed_in_the_calling_thread_and_at_most_n_ahead():
    taken, n_called = [], threading.Semaphore(0)

    def items():
        for item in range(20):
            taken.append((item, threading.current_thread()))
            yield item

    def call(item):
        n_called.release()
        return item

    results = map_ahead(call, items(), n_threads=2, n_ahead=3)
    assert next(results) == 0
    for _ in range(3):
        assert n_called.acquire(timeout=60)
    results.close()
    assert taken == [(item, threading.current_thread()) for item in range(3)]


def test_an_error_is_raised_in_place_of_its_result_and_ends_the_threads():
    n_threads = threading.active_count()

    def fail_at_two(item):
        if item == 2:
            raise OSError("chunk 2 is damaged")
        return item

    results = map_ahead(fail_at_two, range(9), n_threads=2, n_ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="chunk 2 is damaged"):
        next(results)
    assert threading.active_count() == n_threads
