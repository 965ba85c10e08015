"""Columns: arrays of one value (or a few) for each object, of which the chunks that were asked for stay in memory.

A column is held at its full length, but only the chunks that somebody asked for are read into it; what was never
touched takes no memory. Looking values up is then one step of numpy, however many chunks they come from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.chunks import read_chunks, rows_of_chunk

MOST_HELD_BYTES = 256 * 2**20
"""Of a million objects: 15 catalog columns, and both indexes."""

READ_AT_ONCE = 256
"""Chunks that are under way together: of 64 kB each, 16 MB."""

Piece = tuple[zarr.Array[Any], slice]
"""An array, and which of its rows; the slice has a start and a stop, and no step."""


@dataclass(slots=True)
class _Column:
    """Values at full length, and which chunks of them are there."""

    values: npt.NDArray[Any]
    is_here: npt.NDArray[np.bool_]
    n_bytes: int = 0


class Columns:
    """Columns of one snapshot. Several threads may read.

    Parameters
    ----------
    most_bytes
        So much stays in memory between two calls. The columns that were used least recently are forgotten first.
    """

    def __init__(self, most_bytes: int = MOST_HELD_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[str, _Column] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, arrays: Sequence[zarr.Array[Any]], rows: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """Values of each array at some rows, shape (n, ...), in their order.

        Raises
        ------
        StoreError
            A chunk is damaged.
        """
        with self._lock:
            columns = self._with(arrays, [np.unique(rows // array.chunks[0]) for array in arrays])
            taken = [column.values[rows] for column in columns]
            self._forget()
        return taken

    def read(self, pieces: Sequence[Piece]) -> list[npt.NDArray[Any]]:
        """The rows of each piece, in the order asked, not to be written to; errors as of `take`."""
        with self._lock:
            numbers = [
                np.arange(rows.start // array.chunks[0], -(-rows.stop // array.chunks[0])) for array, rows in pieces
            ]
            columns = self._with([array for array, _ in pieces], numbers)
            values = [column.values[rows] for column, (_, rows) in zip(columns, pieces, strict=True)]
            self._forget()
        for piece in values:
            piece.flags.writeable = False
        return values

    def clear(self) -> None:
        """Forget everything, since the arrays have changed."""
        with self._lock:
            self._held.clear()

    def _with(self, arrays: Sequence[zarr.Array[Any]], numbers: Sequence[npt.NDArray[np.int64]]) -> list[_Column]:
        """The arrays' columns, with these chunks there."""
        columns = [self._column(array) for array in arrays]
        missing = dict.fromkeys(
            (index, int(number))
            for index, wanted in enumerate(numbers)
            for number in wanted[~columns[index].is_here[wanted]]
        )
        listed = list(missing)
        for first in range(0, len(listed), READ_AT_ONCE):
            batch = listed[first : first + READ_AT_ONCE]
            chunks = read_chunks([(arrays[index], number) for index, number in batch])
            for (index, number), chunk in zip(batch, chunks, strict=True):
                self._put(columns[index], arrays[index], number, chunk)
        return columns

    def _column(self, array: zarr.Array[Any]) -> _Column:
        column = self._held.get(array.path)
        if column is None:
            n_chunks = -(-array.shape[0] // array.chunks[0])
            column = _Column(np.empty(array.shape, dtype=array.dtype), np.zeros(n_chunks, dtype=bool))
            self._held[array.path] = column
        self._held.move_to_end(array.path)
        return column

    def _put(self, column: _Column, array: zarr.Array[Any], number: int, chunk: Any) -> None:
        if column.is_here[number]:  # the same array was asked for twice in one call
            return
        place = column.values[rows_of_chunk((array, number))]
        place[...] = chunk[: place.shape[0]]
        column.is_here[number] = True
        column.n_bytes += place.nbytes

    def _forget(self) -> None:
        n_bytes = sum(column.n_bytes for column in self._held.values())
        while n_bytes > self._most_bytes:
            _, column = self._held.popitem(last=False)
            n_bytes -= column.n_bytes
