"""The roll of a delivery: which row each id has, and which rows the delivery has named so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


class Roll:
    """Ids of a cube as far as they were read, and the rows that a delivery named.

    Rows are only ever added to a cube and their ids never change. So each page reads just the ids that came since the
    page before, and registering n objects costs n, whatever the size of the pages. The ids are hashed in segments, each
    at least twice as long as the next; an object costs about 40 bytes while its delivery is registered.
    """

    def __init__(self) -> None:
        self._segments: list[pd.Index[Any]] = []
        self._n_read = 0
        self._named = np.zeros(0, dtype=bool)

    def rows_of(self, ids: npt.NDArray[np.int64], column: Any) -> npt.NDArray[np.int64]:
        """Row of each id, -1 where it has none.

        Parameters
        ----------
        ids
            Shape (n,).
        column
            The cube's ids, a Zarr array of shape (object,), of the last snapshot or one under construction.
        """
        self._read(column)
        rows, first = np.full(ids.size, -1, dtype=np.int64), 0
        for segment in self._segments:
            found = segment.get_indexer(pd.Index(ids))
            rows = np.where(found >= 0, found + first, rows)
            first += segment.size
        return rows

    def _read(self, column: Any) -> None:
        n_rows = int(column.shape[0])
        if n_rows == self._n_read:
            return
        self._segments.append(pd.Index(np.asarray(column[self._n_read : n_rows])))
        self._n_read = n_rows
        while len(self._segments) > 1 and self._segments[-2].size < 2 * self._segments[-1].size:
            last = self._segments.pop()
            self._segments[-1] = self._segments[-1].append(last)

    def has_named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some rows an earlier page named; -1 is none."""
        inside = (rows >= 0) & (rows < self._named.size)
        return np.asarray(inside & self._named[np.where(inside, rows, 0)] if self._named.size else inside & False)

    def name(self, rows: npt.NDArray[np.int64]) -> None:
        """Note that the delivery has these rows."""
        if rows.size and rows.max() >= self._named.size:
            self._named = np.concatenate([self._named, np.zeros(int(rows.max()) + 1 - self._named.size, dtype=bool)])
        self._named[rows] = True

    @property
    def n_named(self) -> int:
        return int(np.count_nonzero(self._named))

    def named(self, n_rows: int) -> npt.NDArray[np.bool_]:
        """Which of the first n rows the delivery has, shape (n_rows,)."""
        named = np.zeros(n_rows, dtype=bool)
        named[: self._named.size] = self._named[:n_rows]
        return named
