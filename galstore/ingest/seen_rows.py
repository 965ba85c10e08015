"""The roll of a delivery: which rows it has named so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Roll:
    """The rows that a delivery named: a byte or two for each object of the cube."""

    def __init__(self) -> None:
        self._named = np.zeros(0, dtype=bool)
        self._at_fault = np.zeros(0, dtype=bool)

    def has_named(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some rows an earlier page named by a line that was kept; -1 is none."""
        inside = (rows >= 0) & (rows < self._named.size)
        return np.asarray(inside & self._named[np.where(inside, rows, 0)] if self._named.size else inside & False)

    def name(self, rows: npt.NDArray[np.int64], *, at_fault: npt.NDArray[np.int64]) -> None:
        """Note that the delivery has these rows; those `at_fault` by lines alone that cannot be kept."""
        self._named = _marked(self._named, rows)
        self._at_fault = _marked(self._at_fault, at_fault)

    @property
    def n_named(self) -> int:
        """How many rows the delivery has by lines that were kept."""
        return int(np.count_nonzero(self._named))

    def listed(self, n_rows: int) -> npt.NDArray[np.bool_]:
        """Which of the first n rows the delivery has, be it by lines at fault, shape (n_rows,)."""
        listed = np.zeros(n_rows, dtype=bool)
        for flags in (self._named, self._at_fault):
            listed[: flags.size] |= flags[:n_rows]
        return listed


def _marked(flags: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    if rows.size and rows.max() >= flags.size:
        flags = np.concatenate([flags, np.zeros(int(rows.max()) + 1 - flags.size, dtype=bool)])
    flags[rows] = True
    return flags
