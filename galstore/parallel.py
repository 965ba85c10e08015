"""Ordered parallel map with bounded look-ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    n_threads: int,
    n_ahead: int,
) -> Iterator[_Result]:
    """Apply a function to items in threads and yield the results in order.

    Parameters
    ----------
    function
        Called in several threads.
    items
        Consumed in the calling thread, at most `n_ahead` before their results.
    n_threads
        Number of threads.
    n_ahead
        Maximum number of submitted items whose result was not yielded yet; bounds the memory. At least 1.

    Notes
    -----
    An error of `function` is raised in place of its result. When the caller stops early, waiting items are cancelled
    and running ones end.

    Examples
    --------
    >>> list(map_ahead(abs, [-3, 2, -1], n_threads=2, n_ahead=2))
    [3, 2, 1]
    """
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= n_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
