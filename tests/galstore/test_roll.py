from __future__ import annotations

import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.roll import Roll


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**63 - 1), max_size=8), max_size=12))
def test_ids_are_found_at_their_rows_however_the_cube_grew(growth: list[list[int]]) -> None:
    column = zarr.create_array({}, shape=(0,), chunks=(16,), dtype="int64")
    roll, expected = Roll(), dict[int, int]()
    for page in growth:
        new = [one for one in dict.fromkeys(page) if one not in expected]
        first = column.shape[0]
        column.resize((first + len(new),))
        column[first:] = np.array(new, dtype=np.int64)
        expected |= {one: first + n for n, one in enumerate(new)}
        asked = np.array([*expected, 5, 2**62 + 1], dtype=np.int64)
        rows = roll.rows_of(asked, column)
        assert rows.tolist() == [expected.get(int(one), -1) for one in asked]


def test_named_rows_are_remembered() -> None:
    roll = Roll()
    assert not roll.has_named(np.array([0, -1])).any()
    roll.name(np.array([2, 5]))
    roll.name(np.array([], dtype=np.int64))
    assert roll.has_named(np.array([-1, 0, 2, 5, 9])).tolist() == [False, False, True, True, False]
    assert roll.named(8).tolist() == [False, False, True, False, False, True, False, False]
    assert roll.named(3).tolist() == [False, False, True]
    assert roll.n_named == 2
