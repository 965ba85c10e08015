"""Ids of the objects of a cube: which row each has, without reading all of them.

The column `catalog/object_id` keeps the smallest and the largest id of each of its chunks as the attribute
`chunk_bounds`. Surveys deliver by id, so that the ids of one page lie within few chunks; a page that is beyond all
bounds reads nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

ATTRIBUTE = "chunk_bounds"


class IdLookup:
    """Finds rows by id; chunks that it has read it keeps, about 40 bytes an object, since ids never change."""

    def __init__(self) -> None:
        self._chunks: dict[int, pd.Index[Any]] = {}

    def rows_of(self, ids: npt.NDArray[np.int64], column: Any) -> npt.NDArray[np.int64]:
        """Row of each id, -1 where it has none.

        Parameters
        ----------
        ids
            Shape (n,).
        column
            `catalog/object_id`, a Zarr array of shape (object,), of a snapshot no older than at the call before.
        """
        rows = np.full(ids.size, -1, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        ascending, n_rows, chunk_rows = ids[order], int(column.shape[0]), int(column.chunks[0])
        for number, (low, high) in enumerate(column.attrs[ATTRIBUTE]):
            first, last = np.searchsorted(ascending, low, "left"), np.searchsorted(ascending, high, "right")
            if first == last:
                continue
            start = number * chunk_rows
            held = self._read_chunk(number, column, start, min(start + chunk_rows, n_rows))
            found = held.get_indexer(pd.Index(ascending[first:last]))
            rows[order[first:last][found >= 0]] = start + found[found >= 0]
        return rows

    def _read_chunk(self, number: int, column: Any, start: int, stop: int) -> pd.Index[Any]:
        held = self._chunks.get(number)
        # the last chunk grows
        if held is None or held.size != stop - start:
            held = self._chunks[number] = pd.Index(np.asarray(column[start:stop]))
        return held


def append_ids(column: Any, first: int, ids: npt.NDArray[np.int64]) -> None:
    """Write the ids of new rows, and widen the bounds of the chunks that they are in.

    Parameters
    ----------
    column
        `catalog/object_id`, long enough for them.
    first
        Row of the first of them; all rows before it have their ids.
    ids
        Shape (n,).
    """
    column[first : first + ids.size] = ids
    bounds, chunk_rows = [list(pair) for pair in column.attrs[ATTRIBUTE]], int(column.chunks[0])
    for number in range(first // chunk_rows, -(-(first + ids.size) // chunk_rows)):
        inside = ids[max(0, number * chunk_rows - first) : (number + 1) * chunk_rows - first]
        pair = [int(inside.min()), int(inside.max())]
        if number < len(bounds):
            bounds[number] = [min(bounds[number][0], pair[0]), max(bounds[number][1], pair[1])]
        else:
            bounds.append(pair)
    column.attrs[ATTRIBUTE] = bounds
