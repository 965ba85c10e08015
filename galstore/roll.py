"""The roll of a delivery: which row each id has, and which rows the delivery has named so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from galstore.ids import IdLookup


class Roll:
    """Ids of a cube as far as they were read, and the rows that a delivery named.

    What earlier pages looked up is known to later ones. A delivery costs a byte for each object of the cube, and what
    `IdLookup` keeps of the chunks that it meets.
    """

    def __init__(self) -> None:
        self._lookup = IdLookup()
        self._named = np.zeros(0, dtype=bool)

    def rows_of(self, ids: npt.NDArray[np.int64], column: Any) -> npt.NDArray[np.int64]:
        """As of `IdLookup`."""
        return self._lookup.rows_of(ids, column)

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
