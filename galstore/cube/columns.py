"""Cache of columns: arrays of one or a few values per object.

A column is allocated at its full length, but only the requested chunks are read; untouched pages take no memory.
A lookup is then one numpy step, however many chunks it spans.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import AnyArray, Values, read_chunks, rows_of_chunk

CACHE_BYTES = 256 * 2**20
"""Enough for 15 catalog columns and both indexes of a million objects."""

CONCURRENT_CHUNKS = 256
"""Chunks read concurrently: 16 MB at 64 kB each."""

Part = tuple[AnyArray, slice]
"""An array and a range of its rows; the slice has a start and a stop, and no step."""


@dataclass(slots=True)
class _Column:
    values: Values
    is_read: npt.NDArray[np.bool_]
    """One flag per chunk."""
    n_bytes: int = 0


class ColumnCache:
    """Cache of the columns of one snapshot, usable from several threads.

    Between two calls at most `max_bytes` stay in memory. The least recently used columns are dropped first.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._columns: OrderedDict[str, _Column] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, arrays: Sequence[AnyArray], rows: npt.NDArray[np.int64]) -> list[Values]:
        """Return the values of each array at the given rows, shape (n, ...), in their order.

        A damaged chunk raises `StoreError`.
        """
        with self._lock:
            columns = self._load(arrays, [np.unique(rows // array.chunks[0]) for array in arrays])
            taken = [column.values[rows] for column in columns]
            self._evict()
        return taken

    def read(self, parts: Sequence[Part]) -> list[Values]:
        """Return the rows of each part as read-only arrays, in the given order; errors as in `take`."""
        with self._lock:
            numbers = [
                np.arange(rows.start // array.chunks[0], -(-rows.stop // array.chunks[0])) for array, rows in parts
            ]
            columns = self._load([array for array, _ in parts], numbers)
            values = [column.values[rows] for column, (_, rows) in zip(columns, parts, strict=True)]
            self._evict()
        for part in values:
            part.flags.writeable = False
        return values

    def clear(self) -> None:
        """Drop everything, after the arrays have changed."""
        with self._lock:
            self._columns.clear()

    def _load(self, arrays: Sequence[AnyArray], numbers: Sequence[npt.NDArray[np.int64]]) -> list[_Column]:
        columns = [self._column(array) for array in arrays]
        by_name = {
            (array.path, number): (column, (array, int(number)))
            for column, array, wanted in zip(columns, arrays, numbers, strict=True)
            for number in wanted[~column.is_read[wanted]]
        }
        missing = list(by_name.values())
        for first in range(0, len(missing), CONCURRENT_CHUNKS):
            batch = missing[first : first + CONCURRENT_CHUNKS]
            for (column, chunk), values in zip(batch, read_chunks([chunk for _, chunk in batch]), strict=True):
                place = column.values[rows_of_chunk(chunk)]
                place[...] = values[: place.shape[0]]
                column.is_read[chunk[1]] = True
                column.n_bytes += place.nbytes
        return columns

    def _column(self, array: AnyArray) -> _Column:
        column = self._columns.get(array.path)
        if column is None:
            n_chunks = -(-array.shape[0] // array.chunks[0])
            column = _Column(np.empty(array.shape, dtype=array.dtype), np.zeros(n_chunks, dtype=bool))
            self._columns[array.path] = column
        self._columns.move_to_end(array.path)
        return column

    def _evict(self) -> None:
        n_bytes = sum(column.n_bytes for column in self._columns.values())
        while n_bytes > self._max_bytes:
            _, column = self._columns.popitem(last=False)
            n_bytes -= column.n_bytes
