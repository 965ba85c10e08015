from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.ids import ATTRIBUTE, IdLookup, append_ids

CHUNK_ROWS = 16


class CountingColumn:
    """A column that notes which chunks are read."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.n_reads: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __getitem__(self, rows: slice) -> Any:
        self.n_reads[rows.start // CHUNK_ROWS] += 1
        return self._array[rows]


def empty_column() -> Any:
    return zarr.create_array(
        {}, shape=(0,), chunks=(CHUNK_ROWS,), dtype="int64", fill_value=-1, attributes={ATTRIBUTE: []}
    )


def grow(column: Any, ids: list[int]) -> None:
    first = column.shape[0]
    column.resize((first + len(ids),))
    append_ids(column, first, np.array(ids, dtype=np.int64))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 2**63 - 1), max_size=40), max_size=8))
def test_ids_are_found_at_their_rows_however_the_cube_grew(growth: list[list[int]]) -> None:
    column, lookup, expected = empty_column(), IdLookup(), dict[int, int]()
    for page in growth:
        new = [one for one in dict.fromkeys(page) if one not in expected]
        expected |= {one: len(expected) + n for n, one in enumerate(new)}
        if new:
            grow(column, new)
        asked = np.array([5, *expected, 2**62 + 1, *reversed(expected)], dtype=np.int64)
        wanted = [expected.get(int(one), -1) for one in asked]
        assert lookup.rows_of(asked, column).tolist() == wanted
        assert IdLookup().rows_of(asked, column).tolist() == wanted


def test_ids_beyond_all_bounds_read_nothing_and_the_others_their_chunks_once() -> None:
    column = empty_column()
    grow(column, list(range(1000, 1100)))
    counting, lookup = CountingColumn(column), IdLookup()
    assert lookup.rows_of(np.array([5, 2000]), counting).tolist() == [-1, -1]
    assert not counting.n_reads
    for _ in range(2):
        assert lookup.rows_of(np.array([1000, 1015, 1040]), counting).tolist() == [0, 15, 40]
    assert counting.n_reads == {0: 1, 2: 1}


def test_bounds_survive_the_cube_s_own_format() -> None:
    column = empty_column()
    grow(column, [1237648702973411443, 2**63 - 1, 7])
    assert column.attrs[ATTRIBUTE] == [[7, 2**63 - 1]]
