from __future__ import annotations

import numpy as np

from galstore.ingest.seen_rows import Roll


def test_named_rows_are_remembered() -> None:
    roll = Roll()
    assert not roll.has_named(np.array([0, -1])).any()
    nothing = np.array([], dtype=np.int64)
    roll.name(np.array([2, 5]), at_fault=nothing)
    roll.name(nothing, at_fault=np.array([6]))
    assert roll.has_named(np.array([-1, 0, 2, 5, 6, 9])).tolist() == [False, False, True, True, False, False]
    assert roll.listed(8).tolist() == [False, False, True, False, False, True, True, False]
    assert roll.listed(3).tolist() == [False, False, True]
    assert roll.n_named == 2
