"""Rows of the cube that the current update of a catalog has listed so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Flags = npt.NDArray[np.bool_]
_Rows = npt.NDArray[np.int64]


class SeenRows:
    """Rows that a catalog lists, at one or two bytes per object of the cube."""

    def __init__(self) -> None:
        self._accepted = np.zeros(0, dtype=bool)
        self._rejected = np.zeros(0, dtype=bool)

    def has_accepted(self, rows: _Rows) -> _Flags:
        """Return which rows an earlier page listed in an accepted line; -1 stands for no row."""
        inside = (rows >= 0) & (rows < self._accepted.size)
        return np.asarray(inside & self._accepted[np.where(inside, rows, 0)] if self._accepted.size else inside & False)

    def add(self, accepted: _Rows, *, rejected: _Rows) -> None:
        """Record rows that the catalog lists in accepted lines, and in rejected lines."""
        self._accepted = _set_flags(self._accepted, accepted)
        self._rejected = _set_flags(self._rejected, rejected)

    @property
    def n_accepted(self) -> int:
        return int(np.count_nonzero(self._accepted))

    def listed(self, n_rows: int) -> _Flags:
        """Return which of the first n rows the catalog lists, in accepted or rejected lines, shape (n_rows,)."""
        listed = np.zeros(n_rows, dtype=bool)
        for flags in (self._accepted, self._rejected):
            listed[: flags.size] |= flags[:n_rows]
        return listed


def _set_flags(flags: _Flags, rows: _Rows) -> _Flags:
    if rows.size and rows.max() >= flags.size:
        flags = np.concatenate([flags, np.zeros(int(rows.max()) + 1 - flags.size, dtype=bool)])
    flags[rows] = True
    return flags
